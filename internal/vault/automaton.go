package vault

import (
	"slices"
	"unicode/utf8"
)

// formDepth is how many bytes of a form the automaton knows; what is longer is compared from there on. So a key of
// 64 KiB costs no more than a token, and a text that holds this much of its beginning is hidden as far as it goes.
const formDepth = 64

// automaton finds many forms in one pass (Aho and Corasick, 1975).
type automaton struct {
	forms []form
	nodes []node
	root  [256]int32 // the first step from the root, which is nearly always where a text is
}

// node is a beginning of forms. Most have one way on, which stands in it.
type node struct {
	edge  byte
	next  int32 // behind edge, 0 = none
	more  map[byte]int32
	fail  int32 // the longest other beginning that this one ends with
	depth int32
	ends  []int32 // forms that end here, or go on behind formDepth
	also  int32   // the nearest node on the way of fails that has ends, 0 = none
}

func newAutomaton(forms []form) *automaton {
	a := &automaton{forms: forms, nodes: make([]node, 1, 1+len(forms)*16)}
	for i, f := range forms {
		at := int32(0)
		for j := range min(len(f.text), formDepth) {
			at = a.grow(at, f.text[j])
		}
		a.nodes[at].ends = append(a.nodes[at].ends, int32(i))
	}
	a.link()
	return a
}

// grow returns the node behind at by c, a new one if need be.
func (a *automaton) grow(at int32, c byte) int32 {
	if next := a.step(at, c); next != 0 {
		return next
	}
	next := int32(len(a.nodes)) //nolint:gosec // at most formDepth a form
	a.nodes = append(a.nodes, node{depth: a.nodes[at].depth + 1})
	switch n := &a.nodes[at]; {
	case at == 0:
		a.root[c] = next
	case n.next == 0:
		n.edge, n.next = c, next
	default:
		if n.more == nil {
			n.more = map[byte]int32{}
		}
		n.more[c] = next
	}
	return next
}

// step is one way on, 0 = none.
func (a *automaton) step(at int32, c byte) int32 {
	if at == 0 {
		return a.root[c]
	}
	n := &a.nodes[at]
	if n.next != 0 && n.edge == c {
		return n.next
	}
	return n.more[c]
}

// walk is step with the ways of fail.
func (a *automaton) walk(at int32, c byte) int32 {
	for {
		if next := a.step(at, c); next != 0 || at == 0 {
			return next
		}
		at = a.nodes[at].fail
	}
}

// link sets fail and also, breadth first.
func (a *automaton) link() {
	queue := make([]int32, 0, len(a.nodes))
	for _, kid := range a.root {
		if kid != 0 {
			queue = append(queue, kid)
		}
	}
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		kid := func(c byte, next int32) {
			fail := a.walk(a.nodes[at].fail, c)
			a.nodes[next].fail = fail
			if a.nodes[next].also = a.nodes[fail].also; len(a.nodes[fail].ends) > 0 {
				a.nodes[next].also = fail
			}
			queue = append(queue, next)
		}
		if n := a.nodes[at]; n.next != 0 {
			kid(n.edge, n.next)
			for c, next := range n.more {
				kid(c, next)
			}
		}
	}
}

// scan returns where forms stand in text, and with cut where one may begin that was cut off.
func (a *automaton) scan(text []byte, cut bool) (found []span) {
	at := int32(0)
	// Comparing long forms costs what they have in common with the text, again at each place. A text that is made to cost
	// much by this is hidden from there on.
	budget := 8*len(text) + 1024
	for i, c := range text {
		if cut && c == ellipsis[0] && i+len(ellipsis) <= len(text) && string(text[i:i+len(ellipsis)]) == ellipsis {
			found = a.beginning(found, at, i)
		}
		at = a.walk(at, c)
		if at == 0 {
			continue
		}
		for n := at; n != 0; n = a.nodes[n].also {
			for _, f := range a.nodes[n].ends {
				s, ok, cost := a.match(text, i+1-int(a.nodes[n].depth), a.forms[f])
				if budget -= cost; budget < 0 {
					return append(found, span{i + 1 - int(a.nodes[at].depth), len(text)})
				}
				if ok {
					found = append(found, s)
				}
			}
		}
	}
	if cut {
		found = a.beginning(found, at, len(text))
	}
	return found
}

// beginning adds what of the text before end may be the beginning of a form.
func (a *automaton) beginning(found []span, at int32, end int) []span {
	if depth := int(a.nodes[at].depth); depth > 0 {
		found = append(found, span{end - depth, end})
	}
	return found
}

// match returns what a form covers that stands at from, as far as the automaton knows it.
func (a *automaton) match(text []byte, from int, f form) (s span, ok bool, cost int) {
	to := from + min(len(f.text), formDepth)
	for to-from < len(f.text) && to < len(text) && text[to] == f.text[to-from] {
		to++
	}
	cost = to - from - min(len(f.text), formDepth)
	if f.alone && (from > 0 && isWordByte(text[from-1]) || to < len(text) && isWordByte(text[to])) {
		return span{}, false, cost
	}
	return span{max(0, from-f.before), min(len(text), to+f.after)}, true, cost
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// viewDepth is how many encodings, one in the other, are undone.
const viewDepth = 2

// view is a text with one encoding undone. from[i] is where byte i came from, and from[len(text)] the end.
type view struct {
	text []byte
	from []int32
}

// findAll returns where forms stand in text and in what it says when encodings are undone.
func findAll(a *automaton, text []byte, cut bool) []span {
	found := a.scan(text, cut)
	return append(found, findDecoded(a, text, cut, viewDepth)...)
}

func findDecoded(a *automaton, text []byte, cut bool, depth int) (found []span) {
	if depth == 0 {
		return nil
	}
	for _, decode := range decoders {
		v, ok := decode(text)
		if !ok {
			continue
		}
		inside := append(a.scan(v.text, cut), findDecoded(a, v.text, cut, depth-1)...)
		for _, s := range inside {
			found = append(found, span{int(v.from[s.from]), int(v.from[s.to])})
		}
	}
	return slices.Clip(found)
}
