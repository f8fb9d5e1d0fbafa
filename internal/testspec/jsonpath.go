package testspec

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// boundedRegistry is RFC 9535's functions, with match and search under the limits of patterns: their pattern and their
// input can both come from a response.
func boundedRegistry() *registry.Registry {
	reg := registry.New()
	for _, name := range []string{"match", "search"} {
		fn := reg.Get(name)
		orig := *fn
		*fn = *spec.Extension(name, orig.ReturnType(), orig.Validate, func(args []spec.PathValue) spec.PathValue {
			text, pattern := textOf(args[0]), textOf(args[1])
			if text == nil || pattern == nil || len(*text) > limits.MaxMatchInput || len(*pattern) > limits.MaxPattern {
				return spec.LogicalFalse
			}
			return orig.Evaluate(args)
		})
	}
	return reg
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
		ctx, stop = context.WithTimeout(ctx, limits.SelectorTime)
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
