package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// strictObjects refuses a token whose header or claims two readers could read differently: with a name twice, of which one
// reader takes the first and another the last, or with one of ours in another case, which encoding/json takes for ours.
// We write neither, so this costs nobody a token.
func strictObjects(token string) error {
	parts := strings.SplitN(token, ".", 3)
	if len(parts) != 3 {
		return errors.New("not a token of three parts")
	}
	for i, names := range [][]string{{"alg", "typ", "kid"}, {"iss", "aud", "sub", "sid", "org", "iat", "exp", "nbf", "jti"}} {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
		if err := strictObject(raw, names); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
	}
	return nil
}

func strictObject(raw []byte, names []string) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errors.New("not an object")
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		name, _ := token.(string)
		if seen[name] {
			return errors.New("a name stands twice")
		}
		seen[name] = true
		for _, ours := range names {
			if name != ours && strings.EqualFold(name, ours) {
				return errors.New("a name in another case")
			}
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
	}
	return nil
}
