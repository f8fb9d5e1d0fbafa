// Package project holds projects, the folders of tests, and their environments: named sets of variables.
//
// It decides what may be called what and keeps the tables that others read at once. It knows no test and no run: tests
// disappear with their project by a foreign key, runs keep the names that they were started with. Secrets are not here, but in secret.
package project

import (
	"maps"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org"
)

// Project is a folder of tests.
type Project struct {
	ID, OrgID            uuid.UUID
	Name, Description    string
	Variables            map[string]string
	VariablesVersion     int // of the project's stream at their last change, 0 = there never were any; what a run records
	Version              int
	CreatedAt, UpdatedAt time.Time
	Position             int64 // of the last event of the command that returned it; 0 = nothing changed
}

// Draft is what a new project is made of.
type Draft struct{ Name, Description string }

// Patch changes what is set; a variable that is nil is removed, those that aren't named stay.
type Patch struct {
	Name, Description *string
	Variables         map[string]*string
}

// Environment is a named set of variables.
type Environment struct {
	ID, OrgID, ProjectID uuid.UUID
	Name, Description    string
	Variables            map[string]string
	Version              int
	CreatedAt, UpdatedAt time.Time
	Position             int64 // of the last event of the command that returned it; 0 = nothing changed
}

// EnvironmentDraft is what a new environment is made of.
type EnvironmentDraft struct {
	Name, Description string
	Variables         map[string]string
}

// EnvironmentPatch changes what is set. In Variables a nil value removes the variable, and what isn't named stays.
type EnvironmentPatch struct {
	Name, Description *string
	Variables         map[string]*string
}

// create decides on a new project.
func create(d Draft) (Created, error) {
	var faults fault.Error
	out := Created{Name: cleanName(&faults, d.Name), Description: cleanDescription(&faults, d.Description)}
	return out, invalid("project.invalid", &faults)
}

// change decides on a patch; nothing to change is no event.
func (p Project) change(patch Patch) (news []eventstore.Data, err error) {
	var faults fault.Error
	if patch.Name != nil {
		if to := cleanName(&faults, *patch.Name); to != p.Name {
			news = append(news, Renamed{From: p.Name, To: to})
		}
	}
	if patch.Description != nil {
		if d := cleanDescription(&faults, *patch.Description); d != p.Description {
			news = append(news, Described{From: p.Description, Description: d})
		}
	}
	if changed := org.ChangeVariables(&faults, "A project", p.Variables, patch.Variables); changed != nil {
		news = append(news, SharedVariablesChanged(*changed))
	}
	return news, invalid("project.invalid", &faults)
}

// createEnvironment decides on a new environment.
func createEnvironment(projectID uuid.UUID, d EnvironmentDraft) (EnvironmentCreated, error) {
	var faults fault.Error
	out := EnvironmentCreated{
		ProjectID: projectID, Name: cleanName(&faults, d.Name), Description: cleanDescription(&faults, d.Description), Variables: d.Variables,
	}
	org.CheckVariables(&faults, "An environment", d.Variables)
	return out, invalid("environment.invalid", &faults)
}

// change decides on a patch; nothing to change is no event.
func (e Environment) change(patch EnvironmentPatch) (news []eventstore.Data, err error) {
	var faults fault.Error
	if patch.Name != nil {
		if to := cleanName(&faults, *patch.Name); to != e.Name {
			news = append(news, EnvironmentRenamed{From: e.Name, To: to})
		}
	}
	if patch.Description != nil {
		if d := cleanDescription(&faults, *patch.Description); d != e.Description {
			news = append(news, EnvironmentDescribed{From: e.Description, Description: d})
		}
	}
	if changed := org.ChangeVariables(&faults, "An environment", e.Variables, patch.Variables); changed != nil {
		news = append(news, VariablesChanged(*changed))
	}
	return news, invalid("environment.invalid", &faults)
}

// apply folds one event into the environment.
func (e *Environment) apply(ev eventstore.Event) error {
	switch ev.Type {
	case TypeEnvironmentCreated:
		var d EnvironmentCreated
		if err := ev.Decode(&d); err != nil {
			return err
		}
		e.ID, e.OrgID, e.ProjectID, e.Name, e.Description = ev.StreamID, ev.OrgID, d.ProjectID, d.Name, d.Description
		e.Variables = maps.Clone(d.Variables)
		if e.Variables == nil {
			e.Variables = map[string]string{}
		}
		e.CreatedAt = ev.RecordedAt
	case TypeEnvironmentRenamed:
		var d EnvironmentRenamed
		if err := ev.Decode(&d); err != nil {
			return err
		}
		e.Name = d.To
	case TypeEnvironmentDescribed:
		var d EnvironmentDescribed
		if err := ev.Decode(&d); err != nil {
			return err
		}
		e.Description = d.Description
	case TypeVariablesChanged:
		var d VariablesChanged
		if err := ev.Decode(&d); err != nil {
			return err
		}
		for _, name := range d.Removed {
			delete(e.Variables, name)
		}
		maps.Copy(e.Variables, d.Set)
	}
	e.Version, e.UpdatedAt = ev.Version, ev.RecordedAt
	return nil
}

func cleanName(faults *fault.Error, name string) string {
	name = strings.TrimSpace(name)
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		faults.At("/name", "A name is needed.")
	case n > limits.MaxProjectName:
		faults.At("/name", "A name has at most %d characters.", limits.MaxProjectName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		faults.At("/name", "A name has no control characters.")
	}
	return name
}

func cleanDescription(faults *fault.Error, text string) string {
	switch {
	case utf8.RuneCountInString(text) > limits.MaxDescription:
		faults.At("/description", "A description has at most %d characters.", limits.MaxDescription)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		faults.At("/description", "A description is text without NUL.")
	}
	return strings.TrimSpace(text)
}

// invalid returns the collected faults as one error, nil when there are none.
func invalid(code string, faults *fault.Error) error {
	if len(faults.Fields) == 0 {
		return nil
	}
	faults.Kind, faults.Code, faults.Message = fault.Invalid, code, "Some fields are not valid."
	return faults
}
