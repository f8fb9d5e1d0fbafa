package seal

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// sealedPrefix begins personal data in its sealed form.
const sealedPrefix = "sealed:"

// event checks what an event says of itself and keeps its leaf.
func (v *verifier) event(o object) error {
	if !v.part.started {
		return v.notExport("a part that doesn't begin at the beginning needs its start")
	}
	v.report.Events++
	v.part.events++
	if v.opts.Progress != nil && v.report.Events%10_000 == 0 {
		v.opts.Progress(v.report)
	}
	position, ok := o.number("position")
	if !ok || position < 1 {
		v.found(v.line, 0, "the event has no position")
		return nil
	}
	if position <= v.lastPosition {
		v.found(v.line, position, "the event stands behind position %d: it was moved or doubled", v.lastPosition)
		return nil
	}
	if position > v.part.upTo {
		v.found(v.line, position, "the event stands behind the end of the export, %d", v.part.upTo)
	}
	v.lastPosition, v.lastEvent = position, position
	version, ok := o.number("version")
	at, err := time.Parse(time.RFC3339Nano, o.text("recordedAt"))
	if !ok || version < 1 || err != nil {
		v.found(v.line, position, "the event's version or time can't be read")
		return nil //nolint:nilerr // it is told
	}
	opened, openedSigned := v.report.Opened, v.report.OpenedSigned
	content, ok := v.content(o, position, version)
	if !ok {
		return nil
	}
	hash, err := content.Hash()
	if err != nil {
		v.found(v.line, position, "the event's content can't be hashed: %v", err)
		return nil
	}
	if told, err := hex.DecodeString(o.text("contentHash")); err != nil || string(told) != string(hash[:]) {
		v.found(v.line, position, "the event's content doesn't give its content hash: data, actor, address, agent, request, type or stream was changed")
	}
	v.version(content.StreamID, version, position)
	e := pageEvent{line: v.line, position: position, leaf: Leaf(position, int(version), at, hash), at: at}
	e.opened, e.openedSigned = v.report.Opened-opened, v.report.OpenedSigned-openedSigned
	if position > v.part.seals.Position { // not sealed: nothing to wait for
		v.unproven(e)
		return nil
	}
	if v.page = append(v.page, e); len(v.page) > maxPage {
		return v.notExport("%d events without a leaf or a proof", maxPage)
	}
	return nil
}

// content is what the event's hash covers, and checks that what stands beside it for people says the same.
func (v *verifier) content(o object, position, version int64) (Content, bool) {
	bad := func(format string, args ...any) (Content, bool) {
		v.found(v.line, position, format, args...)
		return Content{}, false
	}
	if key := o.only("line", "id", "type", "position", "recordedAt", "subject", "version", "actor", "address", "userAgent", "requestId", "contentHash", "data", "stored"); key != "" {
		return bad("the event has a field %q, which no export has: nothing covers it", key)
	}
	kind, id, _ := strings.Cut(o.text("subject"), "/")
	stream, err := uuid.Parse(id)
	if err != nil {
		return bad("the event's subject can't be read")
	}
	stored, err := parseObject(o["stored"])
	if err != nil || stored.only("schema", "meta") != "" {
		return bad("the event's stored form can't be read")
	}
	schema, ok := stored.number("schema")
	meta, err := parseObject(stored["meta"])
	if !ok || err != nil {
		return bad("the event's stored form can't be read")
	}
	data := o["data"] // the one that people read, and no other
	if len(data) == 0 {
		return bad("the event has no data")
	}
	if o.text("id") != stream.String()+"."+strconv.FormatInt(version, 10) {
		v.found(v.line, position, "the event's id isn't its stream and version")
	}
	v.readable(o, meta, position)
	return Content{OrgID: v.report.OrgID, StreamID: stream, Kind: kind, Type: o.text("type"), Schema: int(schema), Meta: stored["meta"], Data: data}, true
}

// readable compares the fields that people read with the stored form. What is sealed there can be readable here, or not.
func (v *verifier) readable(o, meta object, position int64) {
	actor, err := parseObject(o["actor"])
	if err != nil {
		v.found(v.line, position, "the event's actor can't be read")
		return
	}
	kind := meta.text("actorKind")
	if kind == "" {
		kind = "system"
	}
	if actor.text("kind") != kind || actor.text("id") != meta.text("actorId") || actor.only("kind", "id") != "" {
		v.found(v.line, position, "the event shows another actor than it was stored with")
	}
	if o.text("requestId") != meta.text("requestId") {
		v.found(v.line, position, "the event shows another request than it was stored with")
	}
	opened := false
	for field, key := range map[string]string{"address": "address", "userAgent": "agent"} {
		shown, was := o.text(field), meta.text(key)
		switch {
		case shown == was:
		case strings.HasPrefix(was, sealedPrefix):
			opened = true
		default:
			v.found(v.line, position, "the event shows another %s than it was stored with", field)
		}
	}
	switch {
	case opened && v.covered:
		v.report.OpenedSigned++
	case opened:
		v.report.Opened++
	}
}

// version checks that streams count 1, 2, 3 …, of as many streams as memory allows.
func (v *verifier) version(stream uuid.UUID, version, position int64) {
	if v.part.filtered {
		return
	}
	last, known := v.streams[stream]
	switch {
	case known && int(version) != last+1:
		v.found(v.line, position, "behind version %d of stream %s stands version %d: an event is missing, doubled or moved", last, stream, version)
	case !known && version != 1 && !v.forgot && v.report.FirstSize == 0 && v.part.after == 0:
		v.found(v.line, position, "stream %s begins with version %d: an event is missing", stream, version)
	}
	if !known && len(v.streams) >= maxStreams {
		clear(v.streams)
		v.forgot = true
	}
	v.streams[stream] = int(version)
}
