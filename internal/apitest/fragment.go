package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest/internal/apitestdb"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
)

// FragmentDefinition is the whole content of a fragment, as a user writes it. Every version holds one.
type FragmentDefinition struct {
	Name        string `json:"name"` // by which steps use it
	Description string `json:"description,omitempty"`
	testspec.Fragment
}

// Fragment is a fragment of a project at its last version.
type Fragment struct {
	ID, OrgID, ProjectID uuid.UUID
	FragmentDefinition
	Version              int
	CreatedAt, UpdatedAt time.Time
	Position             int64 // of the last event of the command that returned it; 0 = nothing changed
}

func (d FragmentDefinition) uses() []string { return testspec.Uses(d.Steps) }

// readFragment reads a fragment as the API takes it. Everything that is wrong with it by itself is named in one
// fault.Invalid, with pointers into body; what isn't a JSON object is fault.Malformed.
func readFragment(body []byte, more ...testspec.Option) (FragmentDefinition, error) {
	r := reader{ownFields: []string{"name", "description"}}
	fields, rest, err := r.split(body)
	if err != nil {
		return FragmentDefinition{}, err
	}
	d := FragmentDefinition{Name: r.text(fields, "name"), Description: strings.TrimSpace(r.text(fields, "description"))}
	if !testspec.IsVariableName(d.Name) && !r.has("/name") {
		r.faults.At("/name", "A fragment's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
	}
	switch {
	case utf8.RuneCountInString(d.Description) > limits.MaxDescription:
		r.faults.At("/description", "A description has at most %d characters.", limits.MaxDescription)
	case strings.ContainsRune(d.Description, 0):
		r.faults.At("/description", "A description is text without NUL.")
	}
	// Which secrets there are is looked up later.
	options := []testspec.Option{testspec.WithAnySecret()}
	options = append(options, more...)
	d.Fragment, err = testspec.ReadFragment(rest, options...)
	var f *fault.Error
	switch {
	case errors.As(err, &f) && f.Kind == fault.Invalid:
		r.faults.Fields = append(r.faults.Fields, f.Fields...)
	case err != nil:
		return FragmentDefinition{}, err
	}
	if len(r.faults.Fields) > 0 {
		r.faults.Kind, r.faults.Code, r.faults.Message = fault.Invalid, "fragment.invalid", "The fragment has mistakes."
		return d, &r.faults
	}
	return d, nil
}

// content names what the definition holds: equal definitions have equal content, however they are written.
func (d FragmentDefinition) content() (string, error) {
	steps, err := testspec.Spec{Steps: d.Steps}.Canonical()
	if err != nil {
		return "", err
	}
	d.Steps = nil
	head, err := json.Marshal(d)
	if err != nil {
		return "", fmt.Errorf("write fragment: %w", err)
	}
	return string(head) + string(steps), nil
}

// same says whether two definitions hold the same.
func (d FragmentDefinition) same(o FragmentDefinition) (bool, error) {
	a, err := d.content()
	if err != nil {
		return false, err
	}
	b, err := o.content()
	return a == b, err
}

// byName are fragments as testspec takes them.
func byName(list []Fragment) map[string]testspec.Fragment {
	m := make(map[string]testspec.Fragment, len(list))
	for _, f := range list {
		m[f.Name] = f.Fragment
	}
	return m
}

// with returns list with f in the place of the fragment that has its id, or beside the others.
func with(list []Fragment, f Fragment) []Fragment {
	out := slices.DeleteFunc(slices.Clone(list), func(o Fragment) bool { return o.ID == f.ID })
	return append(out, f)
}

// usersOf returns the names of those of list that use the fragment name, themselves or by others; name itself is among
// them.
func usersOf(list []Fragment, name string) []string {
	names := []string{name}
	for i := 0; i < len(names); i++ {
		for _, f := range list {
			if !slices.Contains(names, f.Name) && slices.Contains(f.uses(), names[i]) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

// planFaults says what is wrong with the fragments that f uses.
func planFaults(f Fragment, list []Fragment) []fault.Field {
	_, faults := testspec.Spec{Steps: f.Steps}.Plan(byName(with(list, f)))
	for i := range faults {
		if faults[i].Pointer == "" {
			faults[i].Pointer = "/steps"
		}
	}
	if len(faults) > 0 {
		return faults
	}
	// That it uses itself shows only from outside.
	whole := testspec.Spec{Steps: []testspec.Step{{Use: f.Name, With: given(f.Parameters)}}}
	if _, faults = whole.Plan(byName(with(list, f))); len(faults) > 0 {
		return []fault.Field{{Pointer: "/steps", Detail: faults[0].Detail}}
	}
	return nil
}

// given are some values for all parameters.
func given(parameters map[string]testspec.Parameter) map[string]string {
	m := make(map[string]string, len(parameters))
	for name := range parameters {
		m[name] = ""
	}
	return m
}

// fragmentFaults adds to found, a fault.Invalid or nil, what is wrong with the fragments that a test uses.
func (s *Service) fragmentFaults(ctx context.Context, tx postgres.OrgTx, p parsed, found error) (faults, err error) {
	if len(p.Uses()) == 0 {
		return found, nil
	}
	rows, err := apitestdb.New(tx).ShareFragments(ctx, apitestdb.ShareFragmentsParams{OrgID: tx.OrgID(), ProjectID: p.projectID})
	if err != nil {
		return nil, fmt.Errorf("read fragments: %w", err)
	}
	list, err := fragmentsOf(rows)
	if err != nil {
		return nil, err
	}
	_, wrong := p.Plan(byName(list))
	for _, f := range wrong {
		found = also(found, f.Pointer, f.Detail)
	}
	if len(wrong) > 0 {
		return found, nil
	}
	return fragmentSecrets(ctx, tx, p, list, found)
}

// fragmentSecrets adds to found the secrets that the fragments of a test need and that there aren't for the test.
func fragmentSecrets(ctx context.Context, tx postgres.OrgTx, p parsed, list []Fragment, found error) (faults, err error) {
	var known map[string]bool
	for _, phase := range []struct {
		at    string
		steps []testspec.Step
	}{{"/setup", p.Setup}, {"/steps", p.Steps}, {"/teardown", p.Teardown}} {
		for i, step := range phase.steps {
			if step.Use == "" {
				continue
			}
			var needed []string
			for _, f := range inside(list, step.Use) {
				needed = append(needed, testspec.SecretNames(f.Fragment)...)
			}
			slices.Sort(needed)
			for _, name := range slices.Compact(needed) {
				if known == nil {
					names, err := secret.NamesTx(ctx, tx, p.projectID, p.EnvironmentID)
					if err != nil {
						return nil, err
					}
					known = setOf(names)
				}
				if !known[name] {
					found = also(found, fmt.Sprintf("%s/%d/use", phase.at, i), "The fragment needs {{secrets."+name+"}}, and this test has no secret of that name.")
				}
			}
		}
	}
	return found, nil
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// inside returns the fragment name and those that it uses, themselves or by others.
func inside(list []Fragment, name string) []Fragment {
	names := []string{name}
	var all []Fragment
	for i := 0; i < len(names); i++ {
		for _, f := range list {
			if f.Name != names[i] {
				continue
			}
			all = append(all, f)
			for _, used := range f.uses() {
				if !slices.Contains(names, used) {
					names = append(names, used)
				}
			}
		}
	}
	return all
}

// FragmentRef says which version of a fragment something was made from.
type FragmentRef struct {
	ID      uuid.UUID `json:"id"`
	Version int       `json:"version"`
}

// PinTx returns, by name, the versions of all fragments that a test's definition uses, themselves or by others, as they
// are now; nil when it uses none. What the definition cannot be executed with is fault.Conflict.
func PinTx(ctx context.Context, tx postgres.OrgTx, projectID uuid.UUID, d Definition) (map[string]FragmentRef, error) {
	names := d.Uses()
	if len(names) == 0 {
		return nil, nil
	}
	rows, err := apitestdb.New(tx).GetFragments(ctx, apitestdb.GetFragmentsParams{OrgID: tx.OrgID(), ProjectID: projectID})
	if err != nil {
		return nil, fmt.Errorf("read fragments: %w", err)
	}
	list, err := fragmentsOf(rows)
	if err != nil {
		return nil, err
	}
	if _, faults := d.Plan(byName(list)); len(faults) > 0 {
		return nil, fault.New(fault.Conflict, "test.fragment_gone", "The test cannot be executed with the fragments of its project: %s", faults[0].Detail)
	}
	pins := map[string]FragmentRef{}
	for i := 0; i < len(names); i++ {
		for _, f := range list {
			if f.Name == names[i] {
				pins[f.Name] = FragmentRef{f.ID, f.Version}
				for _, inner := range f.uses() {
					if !slices.Contains(names, inner) {
						names = append(names, inner)
					}
				}
			}
		}
	}
	return pins, nil
}

// FragmentAt returns what a fragment held at a version of it, deleted or not. It never changes, so it may be kept. tx may
// be a system transaction.
func FragmentAt(ctx context.Context, tx pgx.Tx, store *eventstore.Store, orgID uuid.UUID, ref FragmentRef) (testspec.Fragment, error) {
	events, err := store.Read(ctx, tx, orgID, ref.ID)
	if err != nil {
		return testspec.Fragment{}, err
	}
	for _, e := range events {
		if e.Version != ref.Version {
			continue
		}
		var d FragmentChanged // both types have the field
		if e.Type != TypeFragmentCreated && e.Type != TypeFragmentChanged {
			break
		}
		if err := json.Unmarshal(e.Data, &d); err != nil {
			return testspec.Fragment{}, fmt.Errorf("read fragment %s at version %d: %w", ref.ID, ref.Version, err)
		}
		return d.Definition.Fragment, nil
	}
	return testspec.Fragment{}, fault.New(fault.NotFound, "fragment.not_found", "There is no such fragment.")
}

func fragmentsOf(rows []apitestdb.Fragment) ([]Fragment, error) {
	list := make([]Fragment, len(rows))
	for i, row := range rows {
		f, err := fragmentOf(row)
		if err != nil {
			return nil, err
		}
		list[i] = f
	}
	return list, nil
}

func fragmentOf(r apitestdb.Fragment) (Fragment, error) {
	f := Fragment{ID: r.FragmentID, OrgID: r.OrgID, ProjectID: r.ProjectID, Version: int(r.Version), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt}
	if err := json.Unmarshal(r.Definition, &f.FragmentDefinition); err != nil {
		return Fragment{}, fmt.Errorf("read fragment %s: %w", r.FragmentID, err)
	}
	return f, nil
}
