package config

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// Variable is one variable of the environment, as its tags describe it.
type Variable struct {
	Name    string // JWT_SECRET
	Group   string // Server, Database, …: the struct that it stands in
	Default string // empty = none
	Doc     string // one or two sentences
	Secret  bool   // never printed; Name_FILE names a file that holds it

	field string
	index []int
}

// Variables returns every variable in the order of the reference.
func Variables() []Variable {
	var all []Variable
	groups := reflect.TypeFor[Config]()
	for i := range groups.NumField() {
		group := groups.Field(i)
		if group.Type.Kind() != reflect.Struct {
			continue
		}
		for j := range group.Type.NumField() {
			f := group.Type.Field(j)
			all = append(all, Variable{
				Name: f.Tag.Get("env"), Group: group.Name, Default: f.Tag.Get("default"), Doc: f.Tag.Get("doc"),
				Secret: f.Tag.Get("secret") == "true", field: f.Name, index: []int{i, j},
			})
		}
	}
	return all
}

// WriteReference prints every variable with its default and its meaning, and, when c isn't nil, the value that holds now
// where that differs; of secrets only whether they are set.
func WriteReference(w io.Writer, c *Config) error {
	out := bufio.NewWriter(w)
	group := ""
	for _, v := range Variables() {
		if v.Group != group {
			if group != "" {
				fmt.Fprintln(out)
			}
			group = v.Group
			fmt.Fprintf(out, "# %s\n", group)
		}
		fmt.Fprintf(out, "%s\n", v.head(c))
		fmt.Fprintf(out, "    %s\n", v.Doc)
	}
	fmt.Fprintf(out, "\nEach secret can also come from a file: set its name with _FILE behind it to the file's path.\n")
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print the reference: %w", err)
	}
	return nil
}

// head is the line of a variable: name, default, and the value that holds.
func (v Variable) head(c *Config) string {
	var b strings.Builder
	b.WriteString(v.Name)
	if v.Default != "" {
		b.WriteString(" (default " + v.Default + ")")
	}
	if v.Secret {
		b.WriteString(" [secret]")
	}
	if c == nil {
		return b.String()
	}
	value := reflect.ValueOf(c).Elem().FieldByIndex(v.index)
	switch {
	case v.unset(value):
	case v.Secret:
		b.WriteString(" = •••")
	default:
		now := fmt.Sprint(value.Interface())
		if now != "[]" && !sameAsDefault(now, v.Default) {
			b.WriteString(" = " + now)
		}
	}
	return b.String()
}

// unset reports whether the variable has no value. 0 is one where there is a default: it switches a limit off.
func (v Variable) unset(value reflect.Value) bool {
	return value.IsZero() && (v.Default == "" || value.Kind() == reflect.String || value.Kind() == reflect.Slice)
}

// sameAsDefault compares what is meant, since 60s prints as 1m0s and info as INFO.
func sameAsDefault(now, def string) bool {
	a, errA := time.ParseDuration(now)
	b, errB := time.ParseDuration(def)
	if errA == nil && errB == nil {
		return a == b
	}
	return strings.EqualFold(now, def)
}

// Settings returns every setting of a server that has a value, by name, as text; of a secret, what fingerprint makes of it.
// How a command signs in is none of them.
func (c *Config) Settings(fingerprint func(secret string) string) map[string]string {
	all := map[string]string{}
	for _, v := range Variables() {
		value := reflect.ValueOf(c).Elem().FieldByIndex(v.index)
		if v.Group == "Client" || v.unset(value) || value.Kind() == reflect.Slice && value.Len() == 0 {
			continue
		}
		text := fmt.Sprint(value.Interface())
		if v.Secret {
			text = fingerprint(text)
		}
		all[v.Name] = text
	}
	return all
}
