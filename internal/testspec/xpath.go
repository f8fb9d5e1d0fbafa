package testspec

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/antchfx/htmlquery"
	"github.com/antchfx/xmlquery"
	"github.com/antchfx/xpath"

	"github.com/testflow/testflow/internal/limits"
)

// kindsOfXPath is what an XPath yields: a node set's texts, a number, text, true or false.
const kindsOfXPath = KindText | KindNumber | KindList | KindJSON

// scanXML reads XML token by token before anything is built, so that depth is known and what cannot be read is told.
func scanXML(ctx context.Context, body []byte, charset func(string, io.Reader) (io.Reader, error)) string {
	d := xml.NewDecoder(ctxReader{ctx, strings.NewReader(string(body))})
	d.CharsetReader = charset
	depth, elements := 0, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if elements == 0 {
				return "the body is not XML: it has no element"
			}
			return ""
		}
		if err != nil {
			var syntax *xml.SyntaxError
			switch {
			case ctx.Err() != nil:
				return "the body takes too long to read as XML"
			case errors.As(err, &syntax) && strings.HasPrefix(syntax.Msg, "invalid character entity"):
				return fmt.Sprintf("the body is XML with an entity of its own (line %d), and such entities are not expanded", syntax.Line)
			case errors.As(err, &syntax):
				return fmt.Sprintf("the body is not XML (line %d)", syntax.Line)
			}
			return "the body is not XML"
		}
		switch token.(type) {
		case xml.StartElement:
			elements++
			if depth++; depth > limits.MaxMarkupDepth {
				return fmt.Sprintf("the body nests deeper than %d elements", limits.MaxMarkupDepth)
			}
		case xml.EndElement:
			depth--
		}
	}
}

// compileXPath parses an XPath. The library's queries carry state, so that each use needs one of its own.
func compileXPath(path string) (expr *xpath.Expr, err error) {
	defer func() {
		if p := recover(); p != nil {
			expr, err = nil, errors.New("this is not an XPath 1.0")
		}
	}()
	if len(path) > limits.MaxProperty {
		return nil, fmt.Errorf("an XPath has at most %d bytes", limits.MaxProperty)
	}
	if strings.Contains(path, "processing-instruction(") {
		return nil, errors.New("processing instructions cannot be selected")
	}
	expr, err = xpath.Compile(path)
	if err != nil {
		why := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "xpath: "), path+" ")
		why = strings.Replace(why, "not yet support this function", "not supported is the function", 1)
		return nil, fmt.Errorf("this is not an XPath 1.0: %s", shorten(strings.ToValidUTF8(why, "\ufffd"), 200))
	}
	return expr, nil
}

func checkXPath(path string) string {
	if _, err := compileXPath(path); err != nil {
		return sentence(err.Error()) + "."
	}
	return ""
}

// steps counts what one evaluation of an XPath does, for all cursors of it.
type steps struct {
	ctx  context.Context //nolint:containedctx // lives as long as one evaluation
	done int
}

// tooManySteps is thrown through the library, which knows no other way to be stopped, and caught by selectXPath.
type tooManySteps struct{ why string }

func (s *steps) take(n int) {
	before := s.done
	s.done += n
	if s.done > limits.MaxVisited {
		panic(tooManySteps{"the XPath takes too long in a body of this size"})
	}
	if before>>8 != s.done>>8 && s.ctx.Err() != nil {
		why := "the XPath takes too long in a body of this size"
		if !errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
			why = "the run was stopped"
		}
		panic(tooManySteps{why})
	}
}

// cursor is a cursor of the library whose moves are counted.
type cursor struct {
	xpath.NodeNavigator
	steps *steps
}

func (c *cursor) Value() string {
	v := c.NodeNavigator.Value()
	c.steps.take(1 + len(v)/16)
	return v
}

func (c *cursor) Copy() xpath.NodeNavigator {
	c.steps.take(1)
	return &cursor{c.NodeNavigator.Copy(), c.steps}
}

func (c *cursor) MoveTo(o xpath.NodeNavigator) bool {
	if other, ok := o.(*cursor); ok {
		o = other.NodeNavigator
	}
	c.steps.take(1)
	return c.NodeNavigator.MoveTo(o)
}

func (c *cursor) MoveToParent() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToParent()
}

func (c *cursor) MoveToNextAttribute() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToNextAttribute()
}

func (c *cursor) MoveToChild() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToChild()
}

func (c *cursor) MoveToFirst() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToFirst()
}

func (c *cursor) MoveToNext() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToNext()
}

func (c *cursor) MoveToPrevious() bool {
	c.steps.take(1)
	return c.NodeNavigator.MoveToPrevious()
}

// NamespaceURL is asked for by namespace-uri().
func (c *cursor) NamespaceURL() string {
	if n, ok := c.NodeNavigator.(interface{ NamespaceURL() string }); ok {
		return n.NamespaceURL()
	}
	return ""
}

// selectXPath evaluates an XPath over m.
func (m *markup) selectXPath(ctx context.Context, path string) (v value) {
	if m.why != "" {
		return unreadable(m.why)
	}
	expr, err := compileXPath(path)
	if err != nil {
		return unreadable(err.Error())
	}
	ctx, stop := context.WithTimeout(ctx, selectorTime(ctx))
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			v = unreadable("the XPath cannot be evaluated: a function in it does not fit what it is given")
			if t, ok := p.(tooManySteps); ok {
				v = unreadable(t.why)
			}
		}
	}()
	counted := &steps{ctx: ctx}
	switch got := expr.Evaluate(&cursor{m.navigator(), counted}).(type) {
	case bool:
		return value{v: got}
	case float64:
		if math.IsNaN(got) || math.IsInf(got, 0) {
			return unreadable("the XPath yields something that is not a number")
		}
		return value{v: jsonNumber(strconv.FormatFloat(got, 'f', -1, 64))}
	case string:
		return value{v: got, wire: true}
	case *xpath.NodeIterator:
		var found []foundNode
		seen := map[nodeID]bool{} // a node set holds a node once; the library's may not
		for got.MoveNext() {
			id := nodeOf(got.Current())
			if seen[id] {
				continue
			}
			seen[id] = true
			if len(found) == limits.MaxSelected {
				return unreadable(fmt.Sprintf("the XPath selects more than %d nodes", limits.MaxSelected))
			}
			found = append(found, foundNode{id, got.Current().Value()})
		}
		if len(found) > 1 && mayLeaveOrder(path) {
			inOrder(found, &cursor{m.navigator(), counted})
		}
		list := make([]any, len(found))
		for i, n := range found {
			list[i] = n.text
		}
		return value{v: list, list: true, nodes: true, wire: true}
	default:
		return unreadable("the XPath yields something that is no value")
	}
}

// nodeID is what a node is: an element, a text or a comment by its place in memory, an attribute by that of its element
// and its name.
type nodeID struct {
	node      any
	attribute string
}

type foundNode struct {
	id   nodeID
	text string
}

// mayLeaveOrder says whether the library may find nodes of path in another order than the document's.
func mayLeaveOrder(path string) bool {
	for _, sign := range []string{"|", "..", "parent::", "ancestor", "preceding", "following"} {
		if strings.Contains(path, sign) {
			return true
		}
	}
	return false
}

// inOrder sorts nodes as the document has them, an element before its attributes. root is at the document's root.
func inOrder(nodes []foundNode, root *cursor) {
	place := make(map[any]int, len(nodes))
	for _, n := range nodes {
		place[n.id.node] = 0
	}
	next := 0
	for at := root; ; {
		next++
		if id := nodeOf(at); id.attribute == "" {
			if _, wanted := place[id.node]; wanted {
				place[id.node] = next
			}
		}
		if at.MoveToChild() {
			continue
		}
		for !at.MoveToNext() {
			if !at.MoveToParent() {
				slices.SortStableFunc(nodes, func(a, b foundNode) int {
					return cmp.Or(cmp.Compare(place[a.id.node], place[b.id.node]), cmp.Compare(min(len(a.id.attribute), 1), min(len(b.id.attribute), 1)))
				})
				return
			}
		}
	}
}

func nodeOf(n xpath.NodeNavigator) (id nodeID) {
	if c, ok := n.(*cursor); ok {
		n = c.NodeNavigator
	}
	switch x := n.(type) {
	case *xmlquery.NodeNavigator:
		id.node = x.Current()
	case *htmlquery.NodeNavigator:
		id.node = x.Current()
	}
	if n.NodeType() == xpath.AttributeNode {
		id.attribute = n.Prefix() + ":" + n.LocalName()
	}
	return id
}

func readXPath(ctx context.Context, s *Subject, path string) value {
	return s.markupOf(ctx).selectXPath(ctx, path)
}

func filterXPath(f *filtering, v value, argument any) value {
	text, ok := v.v.(string)
	if !ok {
		return notText(v)
	}
	path, _ := argument.(string)
	return inText(readMarkup(f.ctx, []byte(text), "", isXML("", []byte(text)))).selectXPath(f.ctx, path)
}

// inText words m's refusal for text that is not the body.
func inText(m *markup) *markup {
	m.why = strings.Replace(m.why, "the body", "this text", 1)
	return m
}
