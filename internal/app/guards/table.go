package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Guard is one protection of the product, the attack that it stops, and the test that carries this attack out.
type Guard struct {
	Name    string `yaml:"name"`
	Attack  string `yaml:"attack"` // what goes through without it, in one line
	File    string `yaml:"file"`
	Find    string `yaml:"find"` // stands in File exactly once
	Replace string `yaml:"replace"`
	Also    []Edit `yaml:"also"` // further edits, where two layers stop the same attack
	Package string `yaml:"package"`
	Test    string `yaml:"test"` // TestName or TestName/subtest; a regexp, each part anchored
	Tags    string `yaml:"tags"`

	area string // the file of the table, without its ending
}

// Edit is one textual replacement.
type Edit struct {
	File    string `yaml:"file"`
	Find    string `yaml:"find"`
	Replace string `yaml:"replace"`
}

func (g Guard) edits() []Edit {
	return append([]Edit{{g.File, g.Find, g.Replace}}, g.Also...)
}

// load reads every table in dir. It does not look at the code that the guards name; stale does.
func load(dir string) ([]Guard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []Guard
	var faults []error
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		dec := yaml.NewDecoder(bytes.NewReader(raw))
		dec.KnownFields(true)
		var guards []Guard
		if err := dec.Decode(&guards); err != nil && !errors.Is(err, io.EOF) {
			faults = append(faults, fmt.Errorf("%s: %w", file, err))
			continue
		}
		for i := range guards {
			guards[i].Test = strings.ReplaceAll(guards[i].Test, " ", "_") // as the names of subtests are
			guards[i].area = strings.TrimSuffix(filepath.Base(file), ".yaml")
		}
		all = append(all, guards...)
	}
	seen := map[string]bool{}
	for _, g := range all {
		if seen[g.Name] {
			faults = append(faults, fmt.Errorf("%s: stands twice", g.id()))
		}
		seen[g.Name] = true
		for field, value := range map[string]string{"name": g.Name, "attack": g.Attack, "file": g.File, "find": g.Find, "package": g.Package, "test": g.Test} {
			if value == "" {
				faults = append(faults, fmt.Errorf("%s: %s is missing", g.id(), field))
			}
		}
		if strings.Contains(g.Attack, "\n") {
			faults = append(faults, fmt.Errorf("%s: attack is more than one line", g.id()))
		}
		for part := range strings.SplitSeq(g.Test, "/") {
			if _, err := regexp.Compile(part); err != nil {
				faults = append(faults, fmt.Errorf("%s: test: %w", g.id(), err))
			}
		}
	}
	return all, errors.Join(faults...)
}

func (g Guard) id() string { return g.area + ": " + g.Name }

// run is the test as go test -run wants it.
func (g Guard) run() string {
	parts := strings.Split(g.Test, "/")
	for i, p := range parts {
		parts[i] = "^(" + p + ")$"
	}
	return strings.Join(parts, "/")
}

// without returns the files under root that change when the guard is taken away, by path. An edit whose text isn't
// there exactly once is an error: the code has moved on and the table hasn't.
func (g Guard) without(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range g.edits() {
		path := filepath.Join(root, filepath.FromSlash(e.File))
		src, done := files[path]
		if !done {
			var err error
			if src, err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("%s: stale: %w", g.id(), err)
			}
		}
		if n := bytes.Count(src, []byte(e.Find)); n != 1 {
			return nil, fmt.Errorf("%s: stale: what to find stands %d times in %s, and must stand once", g.id(), n, e.File)
		}
		if e.Find == e.Replace {
			return nil, fmt.Errorf("%s: the replacement changes nothing in %s", g.id(), e.File)
		}
		files[path] = bytes.Replace(src, []byte(e.Find), []byte(e.Replace), 1)
	}
	return files, nil
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// stale returns what the tables name and the tree under root does not have.
func stale(root string, guards []Guard) error {
	var faults []error
	tests := map[string][]string{} // by package
	for _, g := range guards {
		if _, err := g.without(root); err != nil {
			faults = append(faults, err)
		}
		if _, ok := tests[g.Package]; !ok {
			names := map[string]bool{}
			files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(g.Package), "*_test.go"))
			if err != nil {
				return err
			}
			for _, file := range files {
				src, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				for _, m := range testFunc.FindAllSubmatch(src, -1) {
					names[string(m[1])] = true
				}
			}
			tests[g.Package] = slices.Sorted(maps.Keys(names))
		}
		top, _, _ := strings.Cut(g.Test, "/")
		name, err := regexp.Compile("^(" + top + ")$")
		if err != nil || !slices.ContainsFunc(tests[g.Package], name.MatchString) {
			faults = append(faults, fmt.Errorf("%s: stale: %s has no test %s", g.id(), g.Package, g.Test))
		}
	}
	return errors.Join(faults...)
}
