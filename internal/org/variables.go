package org

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// variableName is what may stand between {{ and }}.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)

// Patch changes what is set; a variable that is nil is removed, those that aren't named stay.
type Patch struct {
	Name      *string
	Variables map[string]*string
}

// Update changes what the patch sets. Who may only write shared variables doesn't rename. expected is the version that the
// caller knows, nil = any; another one is fault.Precondition.
func (s *Service) Update(ctx context.Context, id uuid.UUID, patch Patch, expected *int) (Org, error) {
	need := auth.SharedWrite
	if patch.Name != nil {
		need = auth.OrgManage
	}
	who, err := s.require(ctx, id, need)
	if err == nil && len(patch.Variables) > 0 {
		who, err = s.require(ctx, id, auth.SharedWrite) // a key may have one scope without the other
	}
	if err != nil {
		return Org{}, err
	}
	done, err := s.change(ctx, id, expected, who, need, pure(func(o state) (news []eventstore.Data, err error) {
		if patch.Name != nil {
			if news, err = o.rename(*patch.Name); err != nil {
				return nil, err
			}
		}
		changed, err := o.changeVariables(patch.Variables)
		return append(news, changed...), err
	}))
	if err != nil {
		return Org{}, err
	}
	return s.get(ctx, id, who.Role, done.Position)
}

// Rename is Update of the name alone.
func (s *Service) Rename(ctx context.Context, id uuid.UUID, name string, expected *int) (Org, error) {
	return s.Update(ctx, id, Patch{Name: &name}, expected)
}

// changeVariables decides on a patch of the organization's variables.
func (o state) changeVariables(patch map[string]*string) ([]eventstore.Data, error) {
	var faults fault.Error
	changed := ChangeVariables(&faults, "An organization", o.variables, patch)
	switch {
	case len(faults.Fields) > 0:
		return nil, account.Invalid(faults.Fields)
	case changed == nil:
		return nil, nil
	}
	return []eventstore.Data{*changed}, nil
}

// ChangeVariables decides on a patch of variables: what it sets, and what it removes by nil. Nothing to change is nil. What
// is wrong is added to faults, with pointers below /variables; owner is what has the variables, for the sentence.
func ChangeVariables(faults *fault.Error, owner string, variables map[string]string, patch map[string]*string) *VariablesChanged {
	changed := VariablesChanged{Set: map[string]string{}, Previous: map[string]string{}}
	after := len(variables)
	for _, name := range slices.Sorted(maps.Keys(patch)) {
		value := patch[name]
		old, had := variables[name]
		switch {
		case value == nil && had:
			changed.Removed = append(changed.Removed, name)
			changed.Previous[name] = old
			after--
		case value == nil:
		default:
			checkVariable(faults, name, *value)
			if !had {
				after++
			}
			if !had || old != *value {
				changed.Set[name] = *value
				if had {
					changed.Previous[name] = old
				}
			}
		}
	}
	if len(changed.Set) > 0 {
		checkCount(faults, owner, after)
	}
	if len(changed.Set)+len(changed.Removed) == 0 {
		return nil
	}
	return &changed
}

// CheckVariables adds what is wrong with a whole set of variables to faults.
func CheckVariables(faults *fault.Error, owner string, variables map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		checkVariable(faults, name, variables[name])
	}
	checkCount(faults, owner, len(variables))
}

func checkVariable(faults *fault.Error, name, value string) {
	pointer := "/variables/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	if !variableName.MatchString(name) {
		faults.At(pointer, "A variable's name has letters, digits, _ and -, starts with a letter or _ and has at most 64 characters.")
	}
	if len(value) > limits.MaxVariableValue {
		faults.At(pointer, "A variable's value has at most %d bytes.", limits.MaxVariableValue)
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		faults.At(pointer, "A variable's value is text without NUL.")
	}
}

func checkCount(faults *fault.Error, owner string, n int) {
	if n > limits.MaxVariables {
		faults.At("/variables", "%s has at most %d variables.", owner, limits.MaxVariables)
	}
}

// applyVariables folds a change of variables.
func (o *state) applyVariables(e eventstore.Event) error {
	var d VariablesChanged
	if err := e.Decode(&d); err != nil {
		return err
	}
	if o.variables == nil {
		o.variables = map[string]string{}
	}
	for _, name := range d.Removed {
		delete(o.variables, name)
	}
	maps.Copy(o.variables, d.Set)
	return nil
}

// VariablesAt returns the variables of an organization as they were at a version of it, folded from its stream. What it
// returns never changes, so it may be kept.
func VariablesAt(ctx context.Context, tx pgx.Tx, store *eventstore.Store, id uuid.UUID, version int) (map[string]string, error) {
	events, err := store.Read(ctx, tx, id, id)
	if err != nil {
		return nil, err
	}
	var o state
	for _, e := range events {
		if e.Version > version {
			break
		}
		if e.Type != TypeVariablesChanged {
			continue
		}
		if err := o.applyVariables(e); err != nil {
			return nil, fmt.Errorf("fold organization %s at version %d: %w", id, e.Version, err)
		}
	}
	return o.variables, nil
}

// VariablesVersionTx returns the version that VariablesAt takes for the variables of now, 0 = there never were any.
func VariablesVersionTx(ctx context.Context, tx pgx.Tx, id uuid.UUID) (int, error) {
	version, err := orgdb.New(tx).GetVariablesVersion(ctx, id)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // whether it is there, others ask
		return 0, fmt.Errorf("read the version of an organization's variables: %w", err)
	}
	return int(version), nil
}

func applyVariables(ctx context.Context, q *orgdb.Queries, e eventstore.Event) error {
	var d VariablesChanged
	if err := e.Decode(&d); err != nil {
		return err
	}
	if d.Set == nil {
		d.Set = map[string]string{}
	}
	if d.Removed == nil {
		d.Removed = []string{}
	}
	set, err := json.Marshal(d.Set)
	if err != nil {
		return fmt.Errorf("write variables: %w", err)
	}
	return q.ChangeVariables(ctx, orgdb.ChangeVariablesParams{
		OrgID: e.OrgID, Changed: set, Removed: d.Removed, Version: int32(e.Version), UpdatedAt: e.RecordedAt, //nolint:gosec // versions are int on disk
	})
}
