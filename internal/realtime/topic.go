package realtime

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// The kinds of topics.
const (
	topicOrganization = "organization"
	topicIncidents    = "incidents"
	topicSystem       = "system"
	topicProject      = "project"
	topicTest         = "test"
	topicRun          = "run"
)

// topic is something one can listen to: organization, incidents, system, or one project, test or run.
type topic struct {
	kind string
	id   uuid.UUID // uuid.Nil where there is one of its kind
}

// parseTopic reads a topic as clients write it.
func parseTopic(text string) (topic, bool) {
	kind, id, hasID := strings.Cut(text, ":")
	switch kind {
	case topicOrganization, topicIncidents, topicSystem:
		return topic{kind: kind}, !hasID
	case topicProject, topicTest, topicRun:
		u, err := uuid.Parse(id)
		return topic{kind: kind, id: u}, err == nil && len(id) == 36 && u != uuid.Nil
	}
	return topic{}, false
}

func (t topic) String() string {
	if t.id == uuid.Nil {
		return t.kind
	}
	return t.kind + ":" + t.id.String()
}

type topics map[topic]struct{}

// names returns the topics as clients write them, sorted.
func (ts topics) names() []string {
	names := make([]string, 0, len(ts))
	for t := range ts {
		names = append(names, t.String())
	}
	slices.Sort(names)
	return names
}

// item is an event on its way to connections.
type item struct {
	eventstore.Event
	visibility    eventstore.Visibility
	project, test uuid.UUID
	account       uuid.UUID // whom an event of the organization is about; uuid.Nil = all
	encoded       []byte    // as JSON, made when first wanted; guarded by Server.mu
}

// newItem finds out what the event belongs to.
func newItem(e eventstore.Event, v eventstore.Visibility) *item {
	it := &item{Event: e, visibility: v, project: e.ProjectID, test: e.TestID}
	if e.Lane == eventstore.Runs || v == eventstore.VisibleNever {
		return it
	}
	// An event of configuration says in its data what it belongs to; one that doesn't goes to the organization alone.
	var belongs struct{ ProjectID, TestID, AccountID uuid.UUID }
	_ = json.Unmarshal(e.Data, &belongs) // data of another shape belongs nowhere
	it.project, it.test, it.account = belongs.ProjectID, belongs.TestID, belongs.AccountID
	switch e.Kind {
	case topicProject:
		it.project = e.StreamID
	case topicTest:
		it.test = e.StreamID
	}
	return it
}

// each calls fn with every topic that the event belongs to.
func (it *item) each(fn func(topic)) {
	if it.visibility == eventstore.VisibleOrganization || it.visibility == eventstore.VisibleAudit {
		fn(topic{kind: topicOrganization})
	}
	if it.visibility != eventstore.VisibleOrganization && it.visibility != eventstore.VisibleDetail {
		return // what only auditors may see travels on the organization's topic alone
	}
	if it.Kind == "incident" {
		fn(topic{kind: topicIncidents})
	}
	if it.project != uuid.Nil {
		fn(topic{kind: topicProject, id: it.project})
	}
	if it.test != uuid.Nil {
		fn(topic{kind: topicTest, id: it.test})
	}
	if it.Lane == eventstore.Runs {
		fn(topic{kind: topicRun, id: it.StreamID})
	}
}

// wanted reports whether a connection with the topics gets the event; audit is whether it may read the audit log.
func (it *item) wanted(ts topics, audit bool) bool {
	if it.visibility == eventstore.VisibleAudit && !audit {
		return false
	}
	found := false
	it.each(func(t topic) {
		_, ok := ts[t]
		found = found || ok
	})
	return found
}
