package seal

import (
	"errors"

	"golang.org/x/mod/sumdb/tlog"
)

// headLine takes a head; it is compared with the tree once the leaves are there.
func (v *verifier) headLine(o object) error {
	signed := o.text("note")
	if signed == "" || v.part.filtered {
		return v.notExport("a head where none can be")
	}
	if !v.part.started {
		return v.notExport("a part that doesn't begin at the beginning needs its start")
	}
	h, key, err := v.openHead(v.line, signed)
	if err != nil {
		// Its number and size can't be believed; the next one will miss it, which says where it stood.
		return nil //nolint:nilerr // it is told
	}
	v.follows(h, key)
	v.last, v.lastKey = h, key
	v.report.Heads++
	if v.off {
		return nil
	}
	if h.Size < v.stored.size {
		v.found(v.line, 0, "seal %d is of %d events and stands behind %d", h.Number, h.Size, v.stored.size)
		return nil
	}
	if len(v.heads) > 0 && h.Size < v.heads[len(v.heads)-1].Size {
		return nil // follows has told
	}
	p := pendingHead{Head: h, line: v.line, note: signed}
	if h.Size == v.stored.size && len(v.heads) == 0 {
		v.compare(p)
		return nil
	}
	v.heads = append(v.heads, p)
	return nil
}

// follows checks the chain of heads.
func (v *verifier) follows(h Head, key int) {
	last := v.last
	if last.Number == 0 {
		if h.Number != 1 && v.report.FirstSize == 0 {
			v.found(v.line, 0, "the seals before number %d are missing", h.Number)
		} else if h.Number == 1 && h.Previous != (Hash{}) {
			v.found(v.line, 0, "the first seal names one before it")
		}
		return
	}
	switch {
	case h.Number <= last.Number:
		v.found(v.line, 0, "seal %d stands behind seal %d", h.Number, last.Number)
	case h.Number > last.Number+1:
		v.found(v.line, 0, "seal %d to %d are missing or were replaced: behind seal %d stands seal %d", last.Number+1, h.Number-1, last.Number, h.Number)
	case h.Previous != last.Hash():
		v.found(v.line, 0, "seal %d follows another seal %d than the one that stands here: one of them was replaced", h.Number, last.Number)
	case h.Size < last.Size || h.Position < last.Position:
		v.found(v.line, 0, "seal %d covers %d events, fewer than seal %d with %d", h.Number, h.Size, last.Number, last.Size)
	case h.Size == last.Size && h.Root != last.Root:
		v.found(v.line, 0, "seals %d and %d say different trees of the same %d events", last.Number, h.Number, h.Size)
	case h.Time.Before(last.Time):
		v.found(v.line, 0, "seal %d was made before seal %d", h.Number, last.Number)
	case key < v.lastKey:
		v.found(v.line, 0, "seal %d is signed with sealing key %d, though key %d was in use by then", h.Number, key, v.lastKey)
	}
}

// leaves matches the page's events with what the sealer stored, and grows both trees.
func (v *verifier) leaves(o object) error {
	var l Leaves
	if v.part.filtered {
		return v.notExport("leaves in a selection")
	}
	if !v.part.started {
		return v.notExport("a part that doesn't begin at the beginning needs its start")
	}
	if err := errors.Join(o.into("first", &l.First), o.into("positions", &l.Positions), o.into("hashes", &l.Hashes)); err != nil {
		return v.notExport("%v", err)
	}
	if len(l.Positions) != len(l.Hashes) {
		return v.notExport("%d positions and %d hashes", len(l.Positions), len(l.Hashes))
	}
	v.bridge(l.First, firstOf(l.Positions, v.part.seals.Position+1))
	if l.First != v.stored.size && !v.off {
		v.found(v.line, 0, "the leaves go on at %d, and there were %d before: some were taken away or doubled", l.First, v.stored.size)
		v.off = true
	}
	if v.doubtsFrom == 0 {
		v.doubtsFrom = v.line
	}
	i := 0
	for n, position := range l.Positions {
		for i < len(v.page) && v.page[i].position < position {
			v.inserted(v.page[i])
			i++
		}
		stored, computed := l.Hashes[n], l.Hashes[n]
		if i < len(v.page) && v.page[i].position == position {
			e := v.page[i]
			i++
			v.report.Sealed++
			if computed = e.leaf; computed != stored && len(v.doubts) < maxFindings {
				v.doubts = append(v.doubts, Finding{Line: e.line, Position: position})
			}
		} else {
			v.found(0, position, "the event is gone: it was sealed as number %d of the history", l.First+int64(n)+1)
		}
		v.grow(position, stored, computed)
	}
	v.page = v.page[:copy(v.page, v.page[i:])]
	return nil
}

// bridge puts the events themselves where the sealer's store has a gap of just as many leaves: up to leaf number next,
// from events before a position.
func (v *verifier) bridge(next, before int64) {
	gap := next - v.stored.size
	if v.off || gap <= 0 {
		return
	}
	n := 0
	for n < len(v.page) && v.page[n].position < before {
		n++
	}
	if int64(n) != gap {
		return
	}
	for _, e := range v.page[:n] {
		v.found(e.line, e.position, "the hash that the sealer stored of the event was taken away")
		v.report.Sealed++
		v.grow(e.position, e.leaf, e.leaf)
	}
	v.page = v.page[:copy(v.page, v.page[n:])]
}

func firstOf(positions []int64, otherwise int64) int64 {
	if len(positions) == 0 {
		return otherwise
	}
	return positions[0]
}

// inserted reports an event that stands among sealed ones and was never sealed.
func (v *verifier) inserted(e pageEvent) {
	v.found(e.line, e.position, "the event isn't in the sealed history, though later ones are: it was inserted afterwards")
}

// grow adds a leaf to both trees and compares the heads that end with it.
func (v *verifier) grow(position int64, stored, computed Hash) {
	if v.off {
		return
	}
	v.stored.Add(stored, nil)
	v.computed.Add(computed, nil)
	for len(v.heads) > 0 && v.heads[0].Size == v.stored.size && !v.off {
		h := v.heads[0]
		v.heads = v.heads[1:]
		if h.Position != position {
			v.found(h.line, position, "seal %d ends with position %d, and its last event stands at %d", h.Number, h.Position, position)
		}
		v.compare(h)
	}
	v.compareKept()
}

// compare holds a head against the trees. When the events give its root they are genuine, whatever the sealer's store
// says; when the store does, the store is, and the events that differ from it were changed.
func (v *verifier) compare(h pendingHead) {
	switch h.Root {
	case v.computed.Root():
		for _, d := range v.doubts {
			v.found(d.Line, d.Position, "the event is as it was sealed, but the hash that the sealer stored of it was changed")
		}
		v.stored = &Frontier{size: v.computed.size, peaks: v.computed.Peaks()}
	case v.stored.Root():
		v.tellDoubts()
		v.computed = &Frontier{size: v.stored.size, peaks: v.stored.Peaks()}
	default:
		v.tellDoubts()
		v.found(h.line, 0, "the %d events up to position %d do not give the tree of seal %d (%s): something between line %d and line %d was changed together with its stored hash, or the seal was replaced; what comes behind can't be held against its seals",
			h.Size, h.Position, h.Number, stamp(h.Time), v.doubtsFrom, h.line)
		v.off = true
		return
	}
	v.doubts, v.doubtsFrom = v.doubts[:0], 0
	v.report.Last, v.report.Note = h.Head, h.note
	v.compareKept()
}

// tellDoubts reports the events that differ from their leaves.
func (v *verifier) tellDoubts() {
	for _, d := range v.doubts {
		v.found(d.Line, d.Position, "the event isn't what was sealed: its content, type, actor, time, version or position was changed afterwards")
	}
	v.doubts = v.doubts[:0]
}

// compareKept holds the tree against heads that the auditor kept.
func (v *verifier) compareKept() {
	for len(v.kept) > 0 && v.kept[0].Size == v.stored.size {
		k := v.kept[0]
		v.kept = v.kept[1:]
		if k.Root != v.computed.Root() && k.Root != v.stored.Root() {
			v.found(0, k.Position, "the seal that you kept (number %d, of %s) says another tree of the first %d events: the history was rewritten", k.Number, stamp(k.Time), k.Size)
			continue
		}
		v.report.KeptChecked++
	}
}

// proof holds the next event of a selection against the head.
func (v *verifier) proof(o object) error {
	var p Proof
	if !v.part.filtered {
		return v.notExport("a proof of one event in a whole log")
	}
	if err := errors.Join(o.into("position", &p.Position), o.into("leaf", &p.Leaf), o.into("hashes", &p.Hashes)); err != nil {
		return v.notExport("%v", err)
	}
	for len(v.page) > 0 && v.page[0].position < p.Position {
		v.unproven(v.page[0])
		v.page = v.page[1:]
	}
	if len(v.page) == 0 || v.page[0].position != p.Position {
		v.found(v.line, p.Position, "there is a proof of this event, and no event")
		return nil
	}
	e := v.page[0]
	v.page = v.page[1:]
	if tlog.CheckRecord(p.Hashes, v.part.head.Size, v.part.head.Root, p.Leaf, e.leaf) != nil {
		v.found(e.line, e.position, "the event isn't what was sealed, or its proof was changed: the proof doesn't lead to seal %d", v.part.head.Number)
		return nil //nolint:nilerr // it is told
	}
	v.report.Sealed++
	return nil
}

// unproven is an event without a leaf or a proof: not sealed yet, or never.
func (v *verifier) unproven(e pageEvent) {
	if e.position <= v.part.seals.Position {
		if v.part.filtered {
			v.found(e.line, e.position, "the event has no place in the sealed history, though later ones have: it was inserted afterwards")
		} else {
			v.inserted(e)
		}
		return
	}
	v.wait(e)
}

// settle handles what waits for leaves or proofs when no more of them come.
func (v *verifier) settle() error {
	for _, e := range v.page {
		v.unproven(e)
	}
	v.page = v.page[:0]
	if len(v.doubts) > 0 && !v.off { // no head came behind them
		v.tellDoubts()
	}
	return nil
}
