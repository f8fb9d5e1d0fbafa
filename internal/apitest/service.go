package apitest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest/internal/apitestdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
)

// Service changes and reads tests. Every command and every reading checks the caller's permission in the organization;
// what belongs to another organization is not found.
type Service struct {
	DB      *postgres.DB
	Store   *eventstore.Store
	NewID   func() uuid.UUID
	Regions []string // that exist; nil = a test may name any
	// CheckURL refuses URLs that no run may talk to, for a message at saving: netguard's. nil = none is refused here.
	CheckURL func(rawURL string) error
	// Limits is what tests may be here, where that is less than limits.go's constants.
	Limits limits.Tests
	Log    *slog.Logger
}

// Filter chooses tests of a list.
type Filter struct {
	ProjectIDs []uuid.UUID // any of them; none = all
	Tags       []string    // all of them
	Query      string      // part of the name, whatever the case; "" = all
	Limit      int
	After      *Cursor
}

// Cursor is the place in a list of tests after which the next page begins.
type Cursor struct {
	ID uuid.UUID `json:"id"`
}

// RevisionFilter chooses a page of a test's revisions.
type RevisionFilter struct {
	Limit int
	After *RevisionCursor
}

// RevisionCursor is the place in a list of revisions after which the next page begins.
type RevisionCursor struct {
	Number int `json:"number"`
}

// Create saves a new test from a body as api.md shows it; projectId is needed in it. Everything that is wrong with it is
// named in one fault.Invalid. The name is unique in the project, whatever its case: fault.Conflict otherwise.
func (s *Service) Create(ctx context.Context, orgID uuid.UUID, body json.RawMessage) (t Test, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return Test{}, err
	}
	id := s.NewID()
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err := s.check(ctx, tx, body, uuid.Nil)
		if err != nil {
			return err
		}
		n, err := apitestdb.New(tx).CountTests(ctx, apitestdb.CountTestsParams{OrgID: orgID, ProjectID: p.projectID})
		if err != nil {
			return fmt.Errorf("count tests: %w", err)
		}
		if n >= limits.MaxTests {
			return fault.New(fault.Conflict, "test.too_many", "A project has at most %d tests.", limits.MaxTests)
		}
		hash, err := p.ContentHash()
		if err != nil {
			return err
		}
		t, err = s.append(ctx, tx, id, 0, who, Created{ProjectID: p.projectID, Definition: p.Definition, ContentHash: hash})
		return err
	})
	return t, nameTaken(err)
}

// Replace saves a revision from a whole body. The same content again changes nothing and makes no revision. A stale
// expected version is fault.Precondition.
func (s *Service) Replace(ctx context.Context, orgID, id uuid.UUID, body json.RawMessage, expected *int) (Test, error) {
	return s.save(ctx, orgID, id, expected, func(Test) (json.RawMessage, error) { return body, nil })
}

// Patch saves a revision from a JSON Merge Patch (RFC 7396) of the body; faults point into the body that it makes.
func (s *Service) Patch(ctx context.Context, orgID, id uuid.UUID, patch json.RawMessage, expected *int) (Test, error) {
	return s.save(ctx, orgID, id, expected, func(t Test) (json.RawMessage, error) { return merge(t.Definition, patch) })
}

// Restore saves revision n again, as the newest one.
func (s *Service) Restore(ctx context.Context, orgID, id uuid.UUID, n int, expected *int) (t Test, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return Test{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if t, err = s.lock(ctx, tx, id, expected); err != nil {
			return err
		}
		row, err := apitestdb.New(tx).GetRevision(ctx, apitestdb.GetRevisionParams{OrgID: orgID, TestID: id, Revision: int32(n)})
		if err != nil {
			return notFound(err, "revision")
		}
		// What was valid then may not be now: an environment or a region may be gone.
		body, err := show(t.ProjectID, row.Definition)
		if err != nil {
			return err
		}
		p, err := s.check(ctx, tx, body, t.ProjectID)
		if err != nil {
			return err
		}
		t, err = s.revise(ctx, tx, t, p.Definition, n, who)
		return err
	})
	return t, nameTaken(err)
}

// Delete ends a test; its runs and revisions stay. It returns the position of its last event.
func (s *Service) Delete(ctx context.Context, orgID, id uuid.UUID, expected *int) (position int64, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return 0, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		t, err := s.lock(ctx, tx, id, expected)
		if err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, stream(orgID, id), t.Version, who, Deleted{Name: t.Name})
		position = done.Position
		return err
	})
	return position, err
}

// options are what a definition is held to here.
func (s *Service) options() []testspec.Option {
	options := []testspec.Option{testspec.WithLimits(s.Limits)}
	if s.CheckURL != nil {
		options = append(options, testspec.WithURLCheck(s.CheckURL))
	}
	return options
}

// Validate says what is wrong with a body, in one fault.Invalid, and saves nothing. Project and environment may be left
// out; when they are there they must exist.
func (s *Service) Validate(ctx context.Context, orgID uuid.UUID, body json.RawMessage) error {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return err
	}
	return s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err := read(body, s.Regions, s.options()...)
		var f *fault.Error
		if err != nil && !(errors.As(err, &f) && f.Kind == fault.Invalid) {
			return err
		}
		if p.projectID == uuid.Nil {
			return err
		}
		return s.references(ctx, tx, p, err)
	})
}

// Get returns one test with its definition.
func (s *Service) Get(ctx context.Context, orgID, id uuid.UUID) (t Test, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return Test{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		t, err = getTx(ctx, tx, id)
		return err
	})
	return t, err
}

// List returns a page of tests, newest first, and the cursor of the next page, nil when there is none.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, f Filter) (items []Test, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return nil, nil, err
	}
	params := apitestdb.ListTestsParams{
		OrgID: orgID, ProjectIds: orEmpty(f.ProjectIDs), Tags: orEmpty(f.Tags), Query: f.Query, MaxRows: int32(f.Limit + 1),
	}
	if f.After != nil {
		params.After = &f.After.ID
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := apitestdb.New(tx).ListTests(ctx, params)
		if err != nil {
			return fmt.Errorf("list tests: %w", err)
		}
		for _, row := range rows {
			t, err := testOf(row.Test, row.Definition)
			if err != nil {
				return err
			}
			items = append(items, t)
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &Cursor{ID: items[len(items)-1].ID}
	}
	return items, next, err
}

// save is Replace and Patch: body makes the new body from the test as it is.
func (s *Service) save(ctx context.Context, orgID, id uuid.UUID, expected *int, body func(Test) (json.RawMessage, error)) (t Test, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return Test{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if t, err = s.lock(ctx, tx, id, expected); err != nil {
			return err
		}
		news, err := body(t)
		if err != nil {
			return err
		}
		p, err := s.check(ctx, tx, news, t.ProjectID)
		if err != nil {
			return err
		}
		t, err = s.revise(ctx, tx, t, p.Definition, 0, who)
		return err
	})
	return t, nameTaken(err)
}

// check reads a body and looks up what it names. home is the project that the test is in, uuid.Nil for a new test.
func (s *Service) check(ctx context.Context, tx postgres.OrgTx, body []byte, home uuid.UUID) (parsed, error) {
	p, err := read(body, s.Regions, s.options()...)
	var f *fault.Error
	if err != nil && !(errors.As(err, &f) && f.Kind == fault.Invalid) {
		return parsed{}, err
	}
	if home != uuid.Nil {
		if p.projectID != uuid.Nil && p.projectID != home {
			err = also(err, "/projectId", "A test stays in its project.")
		}
		p.projectID = home
	} else if p.projectID == uuid.Nil && (f == nil || !hasField(f, "/projectId")) {
		return parsed{}, also(err, "/projectId", "A test needs a project.")
	}
	if p.projectID == uuid.Nil {
		return parsed{}, err
	}
	return p, s.references(ctx, tx, p, err)
}

// references adds to err what is wrong with the things that a body names.
func (s *Service) references(ctx context.Context, tx postgres.OrgTx, p parsed, err error) error {
	_, lookup := project.GetTx(ctx, tx, p.projectID)
	switch {
	case fault.KindOf(lookup) == fault.NotFound:
		return also(err, "/projectId", "There is no such project.")
	case lookup != nil:
		return lookup
	}
	if err, lookup = s.fragmentFaults(ctx, tx, p, err); lookup != nil {
		return lookup
	}
	if p.EnvironmentID == uuid.Nil {
		return s.secrets(ctx, tx, p, err)
	}
	env, lookup := project.GetEnvironmentTx(ctx, tx, p.EnvironmentID)
	switch {
	case fault.KindOf(lookup) == fault.NotFound, lookup == nil && env.ProjectID != p.projectID:
		return also(err, "/environmentId", "The project has no such environment.")
	case lookup != nil:
		return lookup
	}
	return s.secrets(ctx, tx, p, err)
}

// secrets adds to err the references to secrets that there aren't: in the test's environment, or when it names none in any
// of the project's, in the project and in the organization. A secret is set before a test that uses it is saved.
func (s *Service) secrets(ctx context.Context, tx postgres.OrgTx, p parsed, err error) error {
	if len(testspec.SecretNames(p.Spec)) == 0 {
		return err
	}
	names, lookup := secret.NamesTx(ctx, tx, p.projectID, p.EnvironmentID)
	if lookup != nil {
		return lookup
	}
	for _, f := range testspec.Validate(p.Spec, testspec.WithAnyName(), testspec.WithSecrets(names...)) {
		var before *fault.Error
		if strings.Contains(f.Detail, testspec.SecretScope) && (!errors.As(err, &before) || !hasField(before, f.Pointer)) {
			err = also(err, f.Pointer, f.Detail)
		}
	}
	return err
}

// also returns err, a fault.Invalid or nil, with one more place.
func also(err error, pointer, detail string) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		f = fault.New(fault.Invalid, "test.invalid", "The test has mistakes.")
	}
	return f.At(pointer, "%s", detail)
}

func hasField(f *fault.Error, pointer string) bool {
	for _, field := range f.Fields {
		if field.Pointer == pointer {
			return true
		}
	}
	return false
}

func (s *Service) revise(ctx context.Context, tx postgres.OrgTx, t Test, d Definition, restoredFrom int, who eventstore.Actor) (Test, error) {
	news, err := t.revise(d, restoredFrom)
	if err != nil || news == nil {
		return t, err
	}
	return s.append(ctx, tx, t.ID, t.Version, who, *news)
}

func (s *Service) lock(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, expected *int) (Test, error) {
	if _, err := apitestdb.New(tx).LockTest(ctx, apitestdb.LockTestParams{OrgID: tx.OrgID(), TestID: id}); err != nil {
		return Test{}, notFound(err, "test")
	}
	t, err := getTx(ctx, tx, id)
	if err != nil {
		return Test{}, err
	}
	return t, checkVersion(t.Version, expected)
}

func (s *Service) append(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, version int, who eventstore.Actor, news eventstore.Data) (Test, error) {
	done, err := s.Store.Append(ctx, tx, stream(tx.OrgID(), id), version, who, news)
	if err != nil {
		return Test{}, err
	}
	t, err := getTx(ctx, tx, id)
	t.Position = done.Position
	return t, err
}

func getTx(ctx context.Context, tx postgres.OrgTx, id uuid.UUID) (Test, error) {
	row, err := apitestdb.New(tx).GetTest(ctx, apitestdb.GetTestParams{OrgID: tx.OrgID(), TestID: id})
	if err != nil {
		return Test{}, notFound(err, "test")
	}
	return testOf(row.Test, row.Definition)
}

func stream(orgID, id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: orgID, ID: id, Kind: Kind}
}

// headOf is a test without its definition.
func headOf(r apitestdb.Test) Test {
	t := Test{
		ID: r.TestID, OrgID: r.OrgID, ProjectID: r.ProjectID, Name: r.Name, Regions: r.Regions, Tags: r.Tags,
		Revision: int(r.Revision), Version: int(r.Revision), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
		hash: hex.EncodeToString(r.ContentHash),
	}
	t.EnvironmentID = orNil(r.EnvironmentID)
	return t
}

func testOf(r apitestdb.Test, definition []byte) (t Test, err error) {
	t = headOf(r)
	t.Definition, err = show(r.ProjectID, definition)
	return t, err
}

// notFound turns "no rows" into a fault; other errors are wrapped.
func notFound(err error, noun string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, "test."+map[string]string{"test": "not_found", "revision": "no_such_revision"}[noun], "There is no such %s.", noun)
	}
	return fmt.Errorf("read %s: %w", noun, err)
}

// nameTaken turns the violation of the unique name into a fault.
func nameTaken(err error) error {
	if postgres.IsUniqueViolation(err, "tests_name") {
		return fault.New(fault.Conflict, "test.name_taken", "Another test of the project has that name.").At("/name", "This name is taken.").Because(err)
	}
	return err
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
