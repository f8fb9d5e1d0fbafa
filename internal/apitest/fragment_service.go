package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// FragmentFilter chooses a page of a project's fragments.
type FragmentFilter struct {
	Limit int
	After *Cursor
}

// CreateFragment saves a new fragment of a project. Everything that is wrong with it is named in one fault.Invalid. The
// name is unique in the project, whatever its case: fault.Conflict otherwise.
func (s *Service) CreateFragment(ctx context.Context, orgID, projectID uuid.UUID, body json.RawMessage) (f Fragment, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return Fragment{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		list, err := s.lockFragments(ctx, tx, projectID)
		if err != nil {
			return err
		}
		if len(list) >= limits.MaxFragments {
			return fault.New(fault.Conflict, "fragment.too_many", "A project has at most %d fragments.", limits.MaxFragments)
		}
		next := Fragment{ID: s.NewID(), OrgID: orgID, ProjectID: projectID}
		if next.FragmentDefinition, err = s.checkFragment(ctx, tx, next, list, body); err != nil {
			return err
		}
		f, err = s.appendFragment(ctx, tx, next, who, FragmentCreated{ProjectID: projectID, Definition: next.FragmentDefinition})
		return err
	})
	return f, fragmentNameTaken(err)
}

// ReplaceFragment saves a version from a whole body. The same content again changes nothing. A stale expected version is
// fault.Precondition; a change after which tests that use it could not be run, a new name among them, is fault.Conflict and
// names them.
func (s *Service) ReplaceFragment(ctx context.Context, orgID, projectID, id uuid.UUID, body json.RawMessage, expected *int) (Fragment, error) {
	return s.saveFragment(ctx, orgID, projectID, id, expected, func(Fragment) (json.RawMessage, error) { return body, nil })
}

// PatchFragment saves a version from a JSON Merge Patch (RFC 7396) of the body; faults point into the body that it makes.
func (s *Service) PatchFragment(ctx context.Context, orgID, projectID, id uuid.UUID, patch json.RawMessage, expected *int) (Fragment, error) {
	return s.saveFragment(ctx, orgID, projectID, id, expected, func(f Fragment) (json.RawMessage, error) {
		whole, err := json.Marshal(f.FragmentDefinition)
		if err != nil {
			return nil, fmt.Errorf("write fragment: %w", err)
		}
		return merge(whole, patch)
	})
}

func (s *Service) saveFragment(ctx context.Context, orgID, projectID, id uuid.UUID, expected *int, body func(Fragment) (json.RawMessage, error)) (f Fragment, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return Fragment{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		list, old, err := s.lockFragment(ctx, tx, projectID, id, expected)
		if err != nil {
			return err
		}
		news, err := body(old)
		if err != nil {
			return err
		}
		next := old
		if next.FragmentDefinition, err = s.checkFragment(ctx, tx, next, list, news); err != nil {
			return err
		}
		unchanged, err := next.same(old.FragmentDefinition)
		if err != nil || unchanged {
			f = old
			return err
		}
		if err := s.checkUsers(ctx, tx, old, with(list, next), "fragment.breaks_tests", "With this change some could not be run any more: "); err != nil {
			return err
		}
		f, err = s.appendFragment(ctx, tx, next, who, FragmentChanged{Version: old.Version + 1, Definition: next.FragmentDefinition})
		return err
	})
	return f, fragmentNameTaken(err)
}

// DeleteFragment ends a fragment. While tests or other fragments use it that is fault.Conflict, which names them. It
// returns the position of its last event.
func (s *Service) DeleteFragment(ctx context.Context, orgID, projectID, id uuid.UUID, expected *int) (position int64, err error) {
	who, err := auth.Require(ctx, orgID, auth.TestWrite)
	if err != nil {
		return 0, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		list, f, err := s.lockFragment(ctx, tx, projectID, id, expected)
		if err != nil {
			return err
		}
		rest := slices.DeleteFunc(list, func(o Fragment) bool { return o.ID == id })
		if err := s.checkUsers(ctx, tx, f, rest, "fragment.in_use", "The fragment is used: "); err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, fragmentStream(orgID, id), f.Version, who, FragmentDeleted{Name: f.Name})
		position = done.Position
		return err
	})
	return position, err
}

// GetFragment returns one fragment.
func (s *Service) GetFragment(ctx context.Context, orgID, projectID, id uuid.UUID) (f Fragment, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return Fragment{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		f, err = getFragment(ctx, tx, projectID, id)
		return err
	})
	return f, err
}

// ListFragments returns a page of a project's fragments, newest first, and the cursor of the next page.
func (s *Service) ListFragments(ctx context.Context, orgID, projectID uuid.UUID, filter FragmentFilter) (items []Fragment, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return nil, nil, err
	}
	params := apitestdb.ListFragmentsParams{OrgID: orgID, ProjectID: projectID, MaxRows: int32(filter.Limit + 1)}
	if filter.After != nil {
		params.After = &filter.After.ID
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if _, err := project.GetTx(ctx, tx, projectID); err != nil {
			return err
		}
		rows, err := apitestdb.New(tx).ListFragments(ctx, params)
		if err != nil {
			return fmt.Errorf("list fragments: %w", err)
		}
		items, err = fragmentsOf(rows)
		return err
	})
	if err == nil && len(items) > filter.Limit {
		items = items[:filter.Limit]
		next = &Cursor{ID: items[len(items)-1].ID}
	}
	return items, next, err
}

// FragmentFaults says what is wrong with a body by itself, in one fault.Invalid.
func (s *Service) FragmentFaults(body json.RawMessage) error {
	_, err := readFragment(body, s.options()...)
	return err
}

// checkFragment reads a body and checks it with the project's other fragments and secrets. A secret of one environment will
// do: whether a test has it is seen with the test.
func (s *Service) checkFragment(ctx context.Context, tx postgres.OrgTx, f Fragment, list []Fragment, body json.RawMessage) (FragmentDefinition, error) {
	d, err := readFragment(body, s.options()...)
	if err != nil {
		return FragmentDefinition{}, err
	}
	f.FragmentDefinition = d
	faults := planFaults(f, list)
	if len(testspec.SecretNames(d.Fragment)) > 0 {
		names, err := secret.NamesTx(ctx, tx, f.ProjectID, uuid.Nil)
		if err != nil {
			return FragmentDefinition{}, err
		}
		for _, field := range testspec.Validate(testspec.Spec{Steps: d.Steps}, testspec.WithAnyName(), testspec.WithSecrets(names...)) {
			if strings.Contains(field.Detail, testspec.SecretScope) {
				faults = append(faults, field)
			}
		}
	}
	if len(faults) > 0 {
		wrong := fault.New(fault.Invalid, "fragment.invalid", "The fragment has mistakes.")
		wrong.Fields = faults
		return FragmentDefinition{}, wrong
	}
	return d, nil
}

// maxNamed is how many users of a fragment a refusal names.
const maxNamed = 10

// checkUsers refuses a command on f after which, with list as the project's fragments, tests or fragments that use f could
// not be executed, and names them.
func (s *Service) checkUsers(ctx context.Context, tx postgres.OrgTx, f Fragment, list []Fragment, code, begin string) error {
	affected := usersOf(list, f.Name)
	var named []string
	for _, user := range list {
		if user.ID != f.ID && slices.Contains(affected, user.Name) && len(planFaults(user, list)) > 0 {
			named = append(named, "the fragment "+user.Name)
		}
	}
	rows, err := apitestdb.New(tx).ListUsers(ctx, apitestdb.ListUsersParams{OrgID: tx.OrgID(), ProjectID: f.ProjectID, Names: affected})
	if err != nil {
		return fmt.Errorf("list the tests that use fragment %s: %w", f.ID, err)
	}
	fragments := byName(list)
	added := addedSecrets(f, fragments)
	for _, row := range rows {
		var spec testspec.Spec
		if err := json.Unmarshal(row.Definition, &spec); err != nil {
			return fmt.Errorf("read test %s: %w", row.TestID, err)
		}
		if _, faults := spec.Plan(fragments); len(faults) > 0 {
			named = append(named, "the test "+row.Name)
			continue
		}
		for _, name := range added {
			known, err := secret.NamesTx(ctx, tx, f.ProjectID, orNil(row.EnvironmentID))
			if err != nil {
				return err
			}
			if !slices.Contains(known, name) {
				named = append(named, "the test "+row.Name+", which has no secret "+name)
				break
			}
		}
	}
	if len(named) == 0 {
		return nil
	}
	text := strings.Join(named[:min(len(named), maxNamed)], ", ")
	if len(named) > maxNamed {
		text += fmt.Sprintf(" and %d more", len(named)-maxNamed)
	}
	return fault.New(fault.Conflict, code, "%s%s.", begin, text)
}

// addedSecrets are the secrets that the fragment of f's name needs and f doesn't.
func addedSecrets(f Fragment, fragments map[string]testspec.Fragment) []string {
	next, ok := fragments[f.Name]
	if !ok {
		return nil
	}
	before := testspec.SecretNames(f.Fragment)
	return slices.DeleteFunc(testspec.SecretNames(next), func(name string) bool { return slices.Contains(before, name) })
}

// lockFragments serializes the commands on a project's fragments and returns them all.
func (s *Service) lockFragments(ctx context.Context, tx postgres.OrgTx, projectID uuid.UUID) ([]Fragment, error) {
	if _, err := project.GetTx(ctx, tx, projectID); err != nil {
		return nil, err
	}
	rows, err := apitestdb.New(tx).LockFragments(ctx, apitestdb.LockFragmentsParams{OrgID: tx.OrgID(), ProjectID: projectID})
	if err != nil {
		return nil, fmt.Errorf("lock fragments: %w", err)
	}
	return fragmentsOf(rows)
}

func (s *Service) lockFragment(ctx context.Context, tx postgres.OrgTx, projectID, id uuid.UUID, expected *int) (list []Fragment, f Fragment, err error) {
	if list, err = s.lockFragments(ctx, tx, projectID); err != nil {
		return nil, Fragment{}, err
	}
	i := slices.IndexFunc(list, func(o Fragment) bool { return o.ID == id })
	if i < 0 {
		return nil, Fragment{}, noFragment()
	}
	if f = list[i]; expected != nil && *expected != f.Version {
		return nil, Fragment{}, fault.New(fault.Precondition, "precondition.failed", "The fragment is at version %d by now: read it again.", f.Version)
	}
	return list, f, nil
}

func (s *Service) appendFragment(ctx context.Context, tx postgres.OrgTx, f Fragment, who eventstore.Actor, news eventstore.Data) (Fragment, error) {
	done, err := s.Store.Append(ctx, tx, fragmentStream(tx.OrgID(), f.ID), f.Version, who, news)
	if err != nil {
		return Fragment{}, err
	}
	f, err = getFragment(ctx, tx, f.ProjectID, f.ID)
	f.Position = done.Position
	return f, err
}

func getFragment(ctx context.Context, tx postgres.OrgTx, projectID, id uuid.UUID) (Fragment, error) {
	row, err := apitestdb.New(tx).GetFragment(ctx, apitestdb.GetFragmentParams{OrgID: tx.OrgID(), ProjectID: projectID, FragmentID: id})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Fragment{}, noFragment()
	case err != nil:
		return Fragment{}, fmt.Errorf("read fragment: %w", err)
	}
	return fragmentOf(row)
}

func noFragment() error {
	return fault.New(fault.NotFound, "fragment.not_found", "There is no such fragment.")
}

func fragmentStream(orgID, id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: orgID, ID: id, Kind: FragmentKind}
}

// fragmentNameTaken turns the violation of the unique name into a fault.
func fragmentNameTaken(err error) error {
	if postgres.IsUniqueViolation(err, "fragments_name") {
		return fault.New(fault.Conflict, "fragment.name_taken", "Another fragment of the project has that name.").At("/name", "This name is taken.").Because(err)
	}
	return err
}
