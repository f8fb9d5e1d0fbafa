package testspec

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theory/jsonpath"

	"github.com/testflow/testflow/internal/limits"
)

const store = `{"store":{"book":[{"category":"reference","author":"N","title":"S","price":8.95},{"category":"fiction","author":"E","title":"W","price":12.99},
 {"category":"fiction","author":"H","title":"M","isbn":"0-553","price":8.99},{"category":"fiction","author":"J","title":"L","isbn":"0-395","price":22.99}],
 "bicycle":{"color":"red","price":399}},"o":{"a":1,"b":{"a":2}},"nested":[[1,[2]],[3]],"uni":"ü","null":null}`

// TestPaths_asTheLibrary: our walk selects what the library's does; its order among an object's members is random, so
// the lists are compared as sets.
func TestPaths_asTheLibrary(t *testing.T) {
	doc, err := decodeJSON([]byte(store))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"$", "$.store.book[*].author", "$..author", "$.store.*", "$.store..price", "$..book[2]", "$..book[-1]", "$..book[0,1]", "$..book[:2]",
		"$..book[?@.isbn]", "$..book[?@.price<10]", "$..*", "$.o[*,*]", "$.o[*]", "$..[0]", "$..a", "$.nested[*][*]", "$.nested..*", "$..[?@.price]",
		"$.store.book[?@.price == $.store.bicycle.price]", "$.store.book[?count(@.*)>4].title", "$.store.book[?match(@.author,'[EH]')].title",
		"$.store.book[?search(@.title,'S')]", "$['store']['book'][0]['title']", "$.store.book[::2].title", "$.store.book[::-1].title", "$.null", "$.none",
		"$.store.book[?!@.isbn && @.category=='fiction'].title", "$[?length(@)>1]", "$..book[?value(@..price)>9].title", "$['uni']", "$.o['a','b']",
	} {
		p, err := compilePath(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		got, err := p.run(context.Background(), doc, 100)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		want := []any(jsonpath.MustParse(path).Select(doc))
		if g, w := texts(got), texts(want); !slices.Equal(g, w) {
			t.Errorf("%s\n got %s\nwant %s", path, g, w)
		}
		again, err := p.run(context.Background(), doc, 100)
		if err != nil || string(encodeJSON(nil, again)) != string(encodeJSON(nil, got)) {
			t.Errorf("%s: another order the second time", path)
		}
	}
}

func texts(list []any) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(encodeJSON(nil, v))
	}
	slices.Sort(out)
	return out
}

// TestPaths_singular: what can select one value at most yields it, everything else a list.
func TestPaths_singular(t *testing.T) {
	for path, singular := range map[string]bool{"$": true, "$.a": true, "$[0]": true, "$[-1]['x']": true, "$.*": false, "$..a": false, "$[0:1]": false, "$[?@.a]": false, "$[0,1]": false} {
		p, err := compilePath(path)
		if err != nil || p.singular != singular {
			t.Errorf("%s: %v %v", path, p, err)
		}
	}
}

func TestFilterLoops(t *testing.T) {
	for path, loops := range map[string]int{
		"$..*..*": 0, "$[?@.a]": 0, "$[?@..a]": 1, "$[?@.*]": 1, "$[?@[1:2]]": 1, "$[?@[?@.a]]": 1, "$[?@[?@..a]]": 2, "$[?$..*..*]": 2, "$[?@['a..*?']]": 0,
		`$[?@["\"*"] == '*']`: 0, "$[?@.a][*]": 0, "$[?count(@..*)>$..a]": 2, "$[?@.a, ?@.b, ?@.*]": 1,
	} {
		if got := filterLoops(path); got != loops {
			t.Errorf("%s: %d, want %d", path, got, loops)
		}
	}
}

// TestPaths_endSoon: none of these ends by itself in a minute.
func TestPaths_endSoon(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	wide := []byte("[" + strings.TrimSuffix(strings.Repeat(`{"a":[1,2,3],"b":{"c":"x"}},`, 30_000), ",") + "]")
	deep := bytes.NewBufferString("")
	for range 60 {
		deep.WriteString(`{"a":[1,2,3,4,5],"n":`)
	}
	deep.WriteString("1" + strings.Repeat("}", 60))
	for _, body := range [][]byte{wide, deep.Bytes()} {
		for _, path := range []string{
			"$..*..*..*", "$..*..*..*..*..*..*", "$[?@..*..*]", "$..[?$..*]", "$..[?$..*..*]", "$..[?@[?@[?@..a]]]", "$..[?count($..*)>5]",
			"$[*,*,*,*,*,*,*,*][*,*,*,*,*,*,*,*][*,*,*,*]", "$..[?search(@.c,'(a*)*$')]", "$..['a','a','a','a']..*",
		} {
			s := &Subject{Body: body}
			started := time.Now()
			v := s.Judge(context.Background(), Assertion{Source: "jsonpath", Property: path, Operator: "exists", Expected: nil})
			if took := time.Since(started); took > 4*limits.SelectorTime {
				t.Errorf("%s in %d bytes took %s", path, len(body), took)
			}
			if v.Message == "" || strings.Contains(v.Message, "holds more than") {
				t.Errorf("%s: %+v", path, v)
			}
		}
	}
}

// TestPaths_functionsOfNothing: arguments that select nothing, or the wrong type.
func TestPaths_functionsOfNothing(t *testing.T) {
	for _, path := range []string{
		"$[?match(@.x,'a')]", "$[?search(@.x,'a')]", "$[?match('a',@.x)]", "$[?length(@.x)>1]", "$[?value(@.x)>1]", "$[?count(@.x)>1]",
		"$[?search(@,@)]", "$[?match(@.x,@.x)]", "$[?length(value(@.x))>1]", "$[?match(value(@..*),'a')]",
	} {
		s := &Subject{Body: []byte(`[1,"a",{},{"x":null},{"x":1},{"x":[1]},null]`)}
		if v := s.Judge(context.Background(), Assertion{Source: "jsonpath", Property: path, Operator: "isList"}); !v.Pass {
			t.Errorf("%s: %s", path, v.Message)
		}
	}
}

// TestPaths_budgets: each of the three ends a path by itself.
func TestPaths_budgets(t *testing.T) {
	list := func(n int) []byte { return []byte("[" + strings.Repeat("1,", n-1) + "1]") }
	for name, c := range map[string]struct {
		body       []byte
		path, word string
	}{
		"selected":      {list(limits.MaxSelected + 1), "$[*]", "selects more than"},
		"just selected": {list(limits.MaxSelected), "$[*]", `it is "[1,1,1`},
		"visited":       {list(200_000), "$[" + strings.TrimSuffix(strings.Repeat("?@>1,", 100), ",") + "]", "takes too long"},
		"filter":        {list(10_000), "$[?@[?$..a]]", "too costly"},
	} {
		v := (&Subject{Body: c.body}).Judge(context.Background(), Assertion{Source: "jsonpath", Property: c.path, Operator: "exists"})
		if !strings.Contains(v.Message, c.word) {
			t.Errorf("%s: %.300s", name, v.Message)
		}
	}
}

func TestPaths_stopWithTheRun(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	s := &Subject{Body: []byte("[" + strings.Repeat("1,", 100_000) + "1]")}
	v := s.Judge(ctx, Assertion{Source: "jsonpath", Property: "$..*", Operator: "exists"})
	if v.Pass || !strings.Contains(v.Message, "stopped") {
		t.Errorf("%+v", v)
	}
}

func TestDocument_limits(t *testing.T) {
	for name, c := range map[string]struct{ body, why string }{
		"empty":      {"", "empty"},
		"deep":       {strings.Repeat("[", 65) + strings.Repeat("]", 65), "deeper"},
		"many":       {"[" + strings.Repeat("1,", limits.MaxResponseNodes) + "1]", "more than"},
		"not JSON":   {"<html>", "not JSON"},
		"cut":        {`{"a":`, "not JSON"},
		"two values": {`{} {}`, "not JSON"},
		"tricky":     {`{"[[[[":"]]{{\"[["}`, ""},
		"blanks":     {" {} \n", ""},
		"bom":        {"\ufeff{}", "not JSON"},
	} {
		_, _, why := readDocument([]byte(c.body))
		if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q", name, why)
		}
	}
}
