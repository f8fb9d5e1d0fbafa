package testspec

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// SecretScope is what the names of secrets begin with in references and in the layers of a Scope.
const SecretScope = "secrets."

// WithSecrets makes Validate accept references to these secrets.
func WithSecrets(names ...string) Option {
	return func(v *validator) {
		for _, n := range names {
			v.known[SecretScope+n] = true
		}
	}
}

// WithAnySecret makes Validate accept a reference to a secret of any name; that there is one is then seen at run time.
func WithAnySecret() Option { return func(v *validator) { v.anySecret = true } }

// SecretNames returns the names of the secrets that a Spec, or a Fragment, refers to anywhere, sorted, without the scope.
func SecretNames(v any) []string {
	raw, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(raw), SecretScope) {
		return nil
	}
	tree, _, err := readTree(raw, len(raw))
	if err != nil {
		return nil
	}
	found := map[string]bool{}
	tree.secrets(found)
	return slices.Sorted(maps.Keys(found))
}

func (n *node) secrets(found map[string]bool) {
	for _, kid := range n.kids {
		kid.secrets(found)
	}
	if n.kind != 's' {
		return
	}
	// A text that is no template as a whole still counts by what looks like a reference in it.
	for text := n.text; ; {
		_, after, ok := strings.Cut(text, "{{")
		if !ok {
			return
		}
		reference, _, ok := strings.Cut(after, "}}")
		if name, is := strings.CutPrefix(strings.Trim(strings.TrimLeft(reference, "{"), " "), SecretScope); ok && is && IsVariableName(name) {
			found[name] = true
		}
		text = after
	}
}
