package testspec

import (
	"fmt"
	"slices"
	"strings"
)

// unknownName says that there is no name of this sort, which one was probably meant, and which there are.
func unknownName(sort, name string, names []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "There is no such %s", sort)
	if meant := closest(name, names); meant != "" {
		fmt.Fprintf(&b, "; did you mean %s?", meant)
	} else {
		b.WriteByte('.')
	}
	return b.String() + " There are " + strings.Join(names, ", ") + "."
}

// synonyms are the names that other tools and people's habits have for ours.
var synonyms = map[string]string{
	"==": "equals", "eq": "equals", "equal": "equals", "is": "equals", "lt": "lessThan", "<": "lessThan", "gt": "greaterThan",
	">": "greaterThan", "lte": "lessOrEqual", "<=": "lessOrEqual", "gte": "greaterOrEqual", ">=": "greaterOrEqual", "regex": "matches",
	"match": "matches", "includes": "contains", "iscollection": "isList", "isarray": "isList", "istext": "isString",
	"isbool": "isBoolean", "oneof": "in", "haskeys": "hasKey", "jsonbody": "jsonpath", "text_body": "body", "textbody": "body",
	"statuscode": "status", "status_code": "status", "headers": "header", "duration": "responseTime", "latency": "responseTime",
	"ip": "remoteIp", "size": "bodySize", "bytescount": "bodySize", "dateformat": "formatDate", "format": "formatDate",
	"charsetdecode": "decode", "len": "length", "tolower": "lower", "lowercase": "lower", "toupper": "upper", "uppercase": "upper",
	"isdate": "isIsoDate", "subset": "containsSubset", "unordered": "equalsUnordered", "almostequals": "approximately",
	"closeto": "approximately", "size_of": "hasLength", "protocol": "httpVersion", "version": "httpVersion", "cookies": "cookie",
}

// closest returns the one of names that name was probably meant to be, "" when none is near.
func closest(name string, names []string) string {
	low := strings.ToLower(name)
	if s, ok := synonyms[low]; ok && slices.Contains(names, s) {
		return s
	}
	if len(name) > 40 {
		return ""
	}
	best, meant := 1+len(name)/3, ""
	for _, n := range names {
		if d := distance(low, strings.ToLower(n)); d < best {
			best, meant = d, n
		}
	}
	return meant
}

// distance is how many characters must be put in, taken out, changed or swapped with their neighbour to make a into b.
func distance(a, b string) int {
	var before, last, row []int
	for j := range len(b) + 1 {
		last = append(last, j)
	}
	for i := 1; i <= len(a); i++ {
		row = append([]int(nil), i)
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			row = append(row, d)
		}
		before, last = last, row
	}
	return last[len(b)]
}
