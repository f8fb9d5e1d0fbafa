package seal

import (
	"cmp"
	"slices"
)

// headerBegins is how an export writes the beginning of a header.
const headerBegins = `{"line":"header",`

// maxTail is how many events without leaves are remembered from part to part: what lies behind the last seal of a part
// is at most what one seal adds.
const maxTail = maxPage

// resume is where a part that was cut goes on: behind its last event, in a selection behind the last one with a proof.
func (v *verifier) resume() int64 {
	if v.part.filtered && len(v.page) > 0 {
		return v.page[0].position - 1
	}
	return v.lastPosition
}

// cut ends a part without its end, since the next one goes on where it stopped. Events whose leaves weren't read wait for
// them; those of a selection come again with their proofs.
func (v *verifier) cut() {
	if v.part.filtered {
		v.report.Events -= int64(len(v.page))
		for _, e := range v.page {
			v.report.Opened -= e.opened
			v.report.OpenedSigned -= e.openedSigned
		}
		v.lastPosition = v.resume()
	} else {
		for _, e := range v.page {
			v.wait(e)
		}
		slices.SortFunc(v.tail, func(a, b pageEvent) int { return cmp.Compare(a.position, b.position) })
	}
	v.page = v.page[:0]
	v.part.open = false
}

// wait keeps an event that nothing proves yet.
func (v *verifier) wait(e pageEvent) {
	if v.report.Unsealed == 0 {
		v.report.UnsealedFrom, v.report.UnsealedSince = e.position, e.at
	}
	v.report.Unsealed++
	if !v.part.filtered && len(v.tail) <= maxTail {
		v.tail = append(v.tail, e)
	}
}

// goOn continues the tree of the part before with the start of this one: events that no seal covered then are in it now,
// and must give the tree that this part begins with.
func (v *verifier) goOn(f *Frontier, signed string) {
	if v.off {
		return
	}
	before := v.stored.size
	gap := f.size - before
	if gap < 0 || gap > int64(len(v.tail)) || len(v.tail) > maxTail {
		v.found(v.line, 0, "this part begins with a tree of %d leaves that isn't the one of the part before, of %d", f.size, before)
		v.off = true
		return
	}
	var head Head
	var key int
	if signed != "" {
		var err error
		if head, key, err = v.openHead(v.line, signed); err != nil {
			return // it is told
		}
	}
	for _, e := range v.tail[:gap] {
		v.report.Sealed++
		v.report.Unsealed--
		v.grow(e.position, e.leaf, e.leaf)
	}
	if v.off {
		return
	}
	switch f.Root() {
	case v.computed.Root():
		v.stored = &Frontier{size: v.computed.size, peaks: v.computed.Peaks()}
	case v.stored.Root():
	default:
		v.found(v.line, 0, "this part begins with a tree of %d leaves that isn't the one that the parts before it give: something before this line was changed", f.size)
		v.off = true
		return
	}
	if head.Number > v.last.Number { // seals that were made since; those between them are in no part, and this one covers them
		if head.Number == v.last.Number+1 {
			v.follows(head, key)
		}
		v.last, v.lastKey = head, key
		if head.Size == f.size {
			v.compare(pendingHead{Head: head, line: v.line, note: signed})
		}
	}
	v.tail = v.tail[gap:]
	for len(v.tail) > 0 && v.tail[0].position <= v.part.seals.Position {
		v.inserted(v.tail[0])
		v.report.Unsealed--
		v.tail = v.tail[1:]
	}
	v.report.UnsealedFrom = 0
	if len(v.tail) > 0 {
		v.report.UnsealedFrom, v.report.UnsealedSince = v.tail[0].position, v.tail[0].at
	}
}
