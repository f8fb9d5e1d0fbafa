package testspec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/theory/jsonpath"
	"github.com/theory/jsonpath/registry"
	"github.com/theory/jsonpath/spec"

	"github.com/testflow/testflow/internal/limits"
)

// compiledPath is a JSONPath ready to run. The library parses it and evaluates names, indexes and filters; walking the
// document is done here, because the library's own walk can be neither stopped nor bounded ($..*..*..* took more than
// 8 s), and because its order among an object's members is random. Ours is that of the sorted names.
type compiledPath struct {
	query    *spec.PathQuery
	singular bool
	// loops is how often the filters of the path multiply with the document: one evaluation of a filter looks at no
	// more than nodes^loops values.
	loops int
}

// smallDocument is so few values that no path without loops in its filters takes long: no timer is set for it.
const smallDocument = 1000

// pathCache keeps compiled paths; they are the same in every run of a test. 4 096 of them take a few MB.
var pathCache = mustCache[string, *compiledPath](4096)

func mustCache[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic(err) // only for a size that isn't positive
	}
	return c
}

var pathParser = jsonpath.NewParser(jsonpath.WithRegistry(boundedRegistry()))

// boundedRegistry is RFC 9535's functions, with match and search of our own: under the limits of patterns, since their
// pattern and their input can both come from a response, and with the whole of an alternation anchored (the library's
// match of "a|b" takes "ax").
func boundedRegistry() *registry.Registry {
	reg := registry.New()
	for name, whole := range map[string]bool{"match": true, "search": false} {
		fn := reg.Get(name)
		orig := *fn // whose methods the new one may use without calling itself
		*fn = *spec.Extension(name, orig.ReturnType(), orig.Validate, func(args []spec.PathValue) spec.PathValue {
			text, pattern := textOf(args[0]), textOf(args[1])
			if text == nil || pattern == nil || len(*text) > limits.MaxMatchInput {
				return spec.LogicalFalse
			}
			re := compileIRegexp(*pattern, whole)
			return spec.Logical(re != nil && re.MatchString(*text))
		})
	}
	return reg
}

// iRegexp is a pattern and whether it must match the whole of a text.
type iRegexp struct {
	pattern string
	whole   bool
}

// iRegexps keeps compiled patterns, nil for what is none: one is run for each value that a filter looks at.
var iRegexps = mustCache[iRegexp, *regexp.Regexp](1024)

// compileIRegexp compiles a pattern as RFC 9485 (5.4) says for RE2: a dot matches neither line feed nor carriage return,
// and match is anchored at both ends. It returns nil for what is no pattern.
func compileIRegexp(pattern string, whole bool) *regexp.Regexp {
	if len(pattern) > limits.MaxPattern {
		return nil
	}
	key := iRegexp{pattern, whole}
	if re, ok := iRegexps.Get(key); ok {
		return re
	}
	// Alone first: "a)(b" is no pattern, though with a group around it it would be one.
	var re *regexp.Regexp
	if _, err := regexp.Compile(pattern); err == nil {
		text := dotsWithoutLines(pattern)
		if whole {
			text = `\A(?:` + text + `)\z`
		}
		re, err = regexp.Compile(text)
		if err != nil {
			re = nil
		}
	}
	iRegexps.Add(key, re)
	return re
}

// dotsWithoutLines writes each dot outside of a class as [^\n\r].
func dotsWithoutLines(pattern string) string {
	if !strings.Contains(pattern, ".") {
		return pattern
	}
	var b strings.Builder
	inClass := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			b.WriteString(pattern[i : i+2])
			i++
			continue
		case c == '[' && !inClass:
			inClass = true
			// A ] that comes first stands for itself.
			for _, first := range []string{"[^]", "[]"} {
				if strings.HasPrefix(pattern[i:], first) {
					b.WriteString(first[:len(first)-1])
					i += len(first) - 1
					break
				}
			}
		case c == ']':
			inClass = false
		case c == '.' && !inClass:
			b.WriteString(`[^\n\r]`)
			continue
		}
		b.WriteByte(pattern[i])
	}
	return b.String()
}

// textOf returns a function's argument as text, nil when it is none or nothing. (The library's own match and search
// panic on nothing.)
func textOf(v spec.PathValue) *string {
	arg := spec.ValueFrom(v)
	if arg == nil {
		return nil
	}
	if s, ok := arg.Value().(string); ok {
		return &s
	}
	return nil
}

// compilePath parses an RFC 9535 path. The error's text is a clause.
func compilePath(path string) (*compiledPath, error) {
	if p, ok := pathCache.Get(path); ok {
		return p, nil
	}
	if len(path) > limits.MaxProperty {
		return nil, fmt.Errorf("a JSONPath has at most %d bytes", limits.MaxProperty)
	}
	parsed, err := pathParser.Parse(path)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), jsonpath.ErrPathParse.Error()+": ")
		return nil, fmt.Errorf("this is not a JSONPath (RFC 9535): %s", shorten(why, 200))
	}
	called, err := callComparisons(path)
	if err != nil {
		return nil, fmt.Errorf("this is not a JSONPath (RFC 9535): %w", err)
	}
	if called != path {
		if parsed, err = comparingParser.Parse(called); err != nil {
			return nil, errors.New("this JSONPath cannot be followed")
		}
	}
	p := &compiledPath{query: parsed.Query(), loops: filterLoops(path)}
	p.singular = p.query.Singular() != nil
	pathCache.Add(path, p)
	return p, nil
}

// filterLoops counts what multiplies inside a path's filters: descents, wildcards, slices and filters within them.
// path is valid, so that brackets and quotes are balanced.
func filterLoops(path string) int {
	loops, filters := 0, 0
	var open []bool // for each open bracket, whether it began a filter
	for i := 0; i < len(path); i++ {
		switch c := path[i]; c {
		case '\'', '"':
			for i++; i < len(path) && path[i] != c; i++ {
				if path[i] == '\\' {
					i++
				}
			}
		case '[':
			open = append(open, false)
		case ']':
			if n := len(open); n > 0 {
				if open[n-1] {
					filters--
				}
				open = open[:n-1]
			}
		case '?':
			if n := len(open); n > 0 && !open[n-1] {
				if filters > 0 {
					loops++
				}
				open[n-1] = true
				filters++
			}
		case '*', ':':
			if filters > 0 {
				loops++
			}
		case '.':
			if filters > 0 && i+1 < len(path) && path[i+1] == '.' {
				loops++
				i++
				if i+1 < len(path) && path[i+1] == '*' {
					i++ // ..* looks at each value once
				}
			}
		}
	}
	return loops
}

// Costly says whether reading property from source may take long even in a small body.
func Costly(source, property string) bool {
	switch source {
	case "jsonpath":
		p, err := compilePath(property)
		return err == nil && p.loops > 0
	case "expression":
		e, err := compileExpression(property)
		return err == nil && e.loops
	default:
		return false
	}
}

// walk is one run of a path.
type walk struct {
	ctx     context.Context //nolint:containedctx // lives as long as one call of run
	root    any
	visited int
	out     []any
}

// run selects from doc, which holds at most nodes values. The error is an errSelector.
func (p *compiledPath) run(ctx context.Context, doc any, nodes int) ([]any, error) {
	cost := 1.0
	for range p.loops {
		cost *= float64(max(nodes, 2))
	}
	if cost > limits.MaxFilterCost && p.loops > 1 {
		return nil, errSelector{"the path's filter is too costly for a body of this size"}
	}
	if nodes > smallDocument || p.loops > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, selectorTime(ctx))
		defer stop()
	}
	w := &walk{ctx: ctx, root: doc}
	current := []any{doc}
	for _, seg := range p.query.Segments() {
		w.out = make([]any, 0, len(current))
		for _, n := range current {
			if err := w.segment(seg, n); err != nil {
				return nil, err
			}
		}
		current = w.out
	}
	if len(current) > limits.MaxSelected {
		return nil, errSelector{fmt.Sprintf("the path selects more than %d values", limits.MaxSelected)}
	}
	return current, nil
}

var errTooSlow = errSelector{"the path takes too long in a body of this size"}

// visit counts one look at a value.
func (w *walk) visit() error {
	w.visited++
	if w.visited > limits.MaxVisited || len(w.out) > limits.MaxResponseNodes {
		return errTooSlow
	}
	if w.visited&0xff == 0 && w.ctx.Err() != nil {
		return w.stopped()
	}
	return nil
}

func (w *walk) stopped() error {
	if errors.Is(w.ctx.Err(), context.DeadlineExceeded) {
		return errTooSlow
	}
	return errSelector{"the run was stopped"}
}

func (w *walk) segment(seg *spec.Segment, n any) error {
	if err := w.visit(); err != nil {
		return err
	}
	for _, sel := range seg.Selectors() {
		if err := w.selector(sel, n); err != nil {
			return err
		}
	}
	if !seg.IsDescendant() {
		return nil
	}
	return w.children(n, func(kid any) error { return w.segment(seg, kid) })
}

func (w *walk) selector(sel spec.Selector, n any) error {
	switch s := sel.(type) {
	case spec.WildcardSelector:
		return w.children(n, func(kid any) error {
			w.out = append(w.out, kid)
			return w.visit()
		})
	case *spec.FilterSelector:
		return w.children(n, func(kid any) error {
			// One evaluation may take long, so the clock is read for each.
			if w.ctx.Err() != nil {
				return w.stopped()
			}
			if s.Eval(kid, w.root) {
				w.out = append(w.out, kid)
			}
			return w.visit()
		})
	default:
		found := sel.Select(n, w.root)
		w.visited += len(found)
		w.out = append(w.out, found...)
		return w.visit()
	}
}

// children calls fn for each member of n, an object's in the order of their names.
func (w *walk) children(n any, fn func(any) error) error {
	switch v := n.(type) {
	case []any:
		for _, kid := range v {
			if err := fn(kid); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if err := fn(v[k]); err != nil {
				return err
			}
		}
	}
	return nil
}
