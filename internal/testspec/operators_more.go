package testspec

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// expectedBytes reads bytes from an expected text: base64, or hex: and hexadecimal digits.
func expectedBytes(expected any) (b binary, cannot string) {
	text, ok := expected.(string)
	if !ok {
		return nil, "bytes cannot be compared with " + typeName(expected)
	}
	if digits, isHex := strings.CutPrefix(text, "hex:"); isHex {
		raw, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			return nil, "what is expected is not hexadecimal"
		}
		return raw, ""
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, "what is expected is neither base64 nor hex: and digits"
	}
	return raw, ""
}

// hasMember says whether list, which is a's, has a member that equals expected.
func hasMember(a value, list []any, expected any) bool {
	for _, e := range list {
		if deepEqual(e, expected) {
			return true
		}
		if a.nodes {
			if holds, cannot := evalEquals(value{v: e, wire: a.wire, date: a.date}, expected); holds && cannot == "" {
				return true
			}
		}
	}
	return false
}

// subsetLooks bounds the looks of one containsSubset at members: lists within lists multiply. A thousand members in any
// order take half a million at most.
const subsetLooks = 1_000_000

func evalContainsSubset(a value, expected any) (bool, string) {
	if typeName(a.v) != typeName(expected) {
		return false, fmt.Sprintf("%s cannot be compared with %s", typeName(a.v), typeName(expected))
	}
	looks := subsetLooks
	holds := containsSubset(a.v, expected, &looks)
	if looks <= 0 {
		return false, "there are too many ways to compare the lists"
	}
	return holds, ""
}

func containsSubset(v, part any, looks *int) bool {
	if *looks--; *looks <= 0 {
		return false
	}
	switch p := part.(type) {
	case map[string]any:
		object, ok := v.(map[string]any)
		if !ok {
			return false
		}
		for k, want := range p {
			have, ok := object[k]
			if !ok || !containsSubset(have, want, looks) {
				return false
			}
		}
		return true
	case []any:
		list, ok := v.([]any)
		return ok && len(p) <= len(list) && matchMembers(list, p, looks)
	default:
		return deepEqual(v, part)
	}
}

// matchMembers says whether each of parts has a member of list of its own that contains it (a matching in a graph,
// found by augmenting paths, since the first member that fits may be the only one for another).
func matchMembers(list, parts []any, looks *int) bool {
	const free = -1
	owner := make([]int, len(list)) // of each member, the part that has it
	for i := range owner {
		owner[i] = free
	}
	var place func(part int, tried []bool) bool
	place = func(part int, tried []bool) bool {
		for _, taken := range []bool{false, true} { // a free one needs nobody to move
			for k := range list {
				i := (part + k) % len(list) // most lists are in the same order
				if *looks--; *looks <= 0 {
					return false
				}
				if tried[i] || (owner[i] != free) != taken || !containsSubset(list[i], parts[part], looks) {
					continue
				}
				tried[i] = true
				if !taken || place(owner[i], tried) {
					owner[i] = part
					return true
				}
			}
		}
		return false
	}
	for p := range parts {
		if !place(p, make([]bool, len(list))) {
			return false
		}
	}
	return true
}

func evalEqualsUnordered(a value, expected any) (bool, string) {
	list, ok := a.v.([]any)
	if !ok {
		return false, typeName(a.v) + " is not a list"
	}
	want, ok := expected.([]any)
	if !ok {
		return false, "the expected value is not a list"
	}
	if len(list) != len(want) {
		return false, ""
	}
	times := make(map[string]int, len(want))
	for _, e := range want {
		times[canonicalKey(e)]++
	}
	for _, e := range list {
		key := canonicalKey(e)
		if n, ok := e.(string); ok && a.wire && times[key] == 0 {
			key = canonicalKey(json.Number(strings.TrimSpace(n))) // text off the wire, where a number is expected
		}
		if times[key]--; times[key] < 0 {
			return false, ""
		}
	}
	return true, ""
}

// exact returns a number as a fraction; cannot is a clause. Numbers with an exponent that no sum could hold are refused.
func exact(s string) (r *big.Rat, cannot string) {
	if storableNumber(s) != "" {
		return nil, "this number is too long, or its exponent too large, to be calculated with"
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, "this is not a number"
	}
	return r, ""
}

func evalApproximately(a value, expected any) (bool, string) {
	object, _ := expected.(map[string]any)
	around, ok1 := object["value"].(json.Number)
	tolerance, ok2 := object["tolerance"].(json.Number)
	if !ok1 || !ok2 {
		return false, "the expected value is not an object with the numbers value and tolerance"
	}
	n, ok := a.number()
	if !ok {
		return false, notANumber(a)
	}
	var sum [3]*big.Rat
	for i, s := range []string{n, around.String(), tolerance.String()} {
		var cannot string
		if sum[i], cannot = exact(s); cannot != "" {
			return false, cannot
		}
	}
	distance := sum[0].Sub(sum[0], sum[1])
	return distance.Abs(distance).Cmp(sum[2]) <= 0, ""
}

func dated(name, phrase, doc string, holds func(c int) bool) OperatorInfo {
	return OperatorInfo{
		Name: name, Takes: KindText | KindJSON | KindDate, Expected: ExpectDate, phrase: phrase, Doc: doc,
		evalIn: func(_ context.Context, s *Subject, a value, expected any) (bool, string) {
			c, cannot := orderDates(a.v, expected, s.Now)
			return cannot == "" && holds(c), cannot
		},
	}
}

// orderDates compares two dates. The text now stands for now, unless that is zero.
func orderDates(v, expected any, now time.Time) (int, string) {
	t, cannot := asDate(v)
	if cannot != "" {
		return 0, cannot
	}
	if expected == "now" && !now.IsZero() {
		return t.Compare(now), ""
	}
	bound, cannot := asDate(expected)
	if cannot != "" {
		return 0, "what is expected is not a date"
	}
	return t.Compare(bound), ""
}
