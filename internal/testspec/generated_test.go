package testspec_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/testspec"
)

// noon is the clock of these tests: 2026-02-28T12:00:00.123456Z, told in another zone.
func noon() time.Time {
	return time.Date(2026, 2, 28, 12, 0, 0, 123_456_000, time.UTC).In(time.FixedZone("X", 3*3600))
}

func generating(seed string) *testspec.Scope {
	s := testspec.NewScope()
	s.SetGenerator(testspec.NewGenerator(seed, noon))
	return s
}

// TestGenerated_forms: each generated value has the form that its row promises, as its example has.
func TestGenerated_forms(t *testing.T) {
	t.Parallel()
	forms := map[string]string{
		"$uuid": `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, "$now": `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`,
		"$timestamp": `^\d{10}$`, "$timestampMs": `^\d{13}$`, "$isoDate": `^\d{4}-\d\d-\d\d$`, "$randomInt": `^(\d{1,6}|1000000)$`,
		"$randomFloat": `^(0(\.\d{1,6})?|1)$`, "$boolean": `^(true|false)$`, "$randomString": `^[A-Za-z0-9]{16}$`, "$randomHex": `^[0-9a-f]{16}$`,
		"$email": `^[a-z]+\.[a-z]+\.[0-9a-f]{8}@example\.com$`, "$userName": `^[a-z]+[0-9a-f]{8}$`, "$firstName": `^[A-Z][a-z]+$`,
		"$lastName": `^[A-Z][a-z]+$`, "$fullName": `^[A-Z][a-z]+ [A-Z][a-z]+$`, "$phone": `^\+1\d{3}55501\d\d$`, "$word": `^[a-z]+$`,
		"$words": `^[a-z]+ [a-z]+ [a-z]+$`, "$city": `^[A-Z][a-z]+$`, "$country": `^[A-Z]{2}$`,
		"$ipv4": `^(192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}$`,
	}
	scope := generating("forms")
	for _, info := range testspec.GeneratedValues() {
		form := regexp.MustCompile(forms[info.Name])
		if forms[info.Name] == "" {
			t.Errorf("%s has no form in this test", info.Name)
		}
		if !form.MatchString(info.Example) {
			t.Errorf("%s: the example %q has another form", info.Name, info.Example)
		}
		for range 200 {
			if got, err := scope.Expand("{{"+info.Name+"}}", 1000); err != nil || !form.MatchString(got) {
				t.Fatalf("%s = %q, %v", info.Name, got, err)
			}
		}
	}
}

// TestGenerated_arguments: offsets, formats, ranges and lengths.
func TestGenerated_arguments(t *testing.T) {
	t.Parallel()
	scope := generating("arguments")
	for template, want := range map[string]string{
		`{{$now}}`:            `^2026-02-28T12:00:00Z$`,
		`{{ $now( +1d ) }}`:   `^2026-03-01T12:00:00Z$`,
		`{{$now(-2h30m)}}`:    `^2026-02-28T09:30:00Z$`,
		`{{$now(+1mo)}}`:      `^2026-03-28T12:00:00Z$`,
		`{{$now(-1y)}}`:       `^2025-02-28T12:00:00Z$`,
		`{{$now(+1w, date)}}`: `^2026-03-07$`,
		`{{$now("%d.%m.%Y, %H:%M:%S.%L %%", -1s)}}`:  `^28\.02\.2026, 11:59:59\.123 %$`,
		`{{$now('%A %e %B %j %f')}}`:                 `^Saturday 28 February 059 123456$`,
		`{{$now(http)}}`:                             `^Sat, 28 Feb 2026 12:00:00 GMT$`,
		`{{$now(unix)}}`:                             `^1772280000$`,
		`{{$now(unixMs)}}`:                           `^1772280000123$`,
		`{{$now(time)}}`:                             `^12:00:00$`,
		`{{$timestamp(+1h)}}`:                        `^1772283600$`,
		`{{$timestampMs(+500ms)}}`:                   `^1772280000623$`,
		`{{$isoDate(+1d)}}`:                          `^2026-03-01$`,
		`{{$randomInt(5,5)}}`:                        `^5$`,
		`{{$randomInt(-3, -1)}}`:                     `^-[123]$`,
		`{{$randomFloat(1.5, 1.75)}}`:                `^1\.(5|6|7)\d{0,5}$`,
		`{{$randomFloat(2,2)}}`:                      `^2$`,
		`{{$randomString(3)}}`:                       `^\w{3}$`,
		`{{$randomString(1024)}}`:                    `^\w+$`,
		`{{$randomHex(1)}}`:                          `^[0-9a-f]$`,
		`{{$words(1)}}`:                              `^[a-z]+$`,
		`{{$uuid()}}`:                                `^.{36}$`,
		`a {{{{ {{$boolean}} }} {{$randomInt(1,1)}}`: `^a {{ (true|false) }} 1$`,
	} {
		if got, err := scope.Expand(template, 2000); err != nil || !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s = %q (%v), want %s", template, got, err, want)
		}
	}
	var least, most bool
	for range 500 {
		got, err := scope.Expand("{{$randomInt(1,10)}}", 10)
		if err != nil || !regexp.MustCompile(`^([1-9]|10)$`).MatchString(got) {
			t.Fatalf("%q, %v", got, err)
		}
		least, most = least || got == "1", most || got == "10"
	}
	if !least || !most {
		t.Error("a bound of $randomInt(1,10) never comes")
	}
	if _, err := scope.Expand(`{{$randomInt(-9223372036854775808, 9223372036854775807)}}`, 100); err != nil {
		t.Error(err)
	}
}

// TestGenerated_refused: a mistake in a reference is told when the test is saved, with the name that was meant.
func TestGenerated_refused(t *testing.T) {
	t.Parallel()
	for reference, want := range map[string]string{
		`$uid`: "perhaps $uuid is meant", `$randomint`: "perhaps $randomInt is meant", `$int`: "perhaps $randomInt is meant", `$timestampMS`: "$timestampMs",
		`$quxquux`: "there are $uuid, $now", `$`: "no generated value $", `$uuid(1)`: "takes no arguments", `$now(+1d, +1d)`: "one offset and one format",
		`$now(1d)`: "no format 1d", `$now(+d)`: "an offset is", `$now(+1)`: "an offset is", `$now(+1q)`: "an offset is", `$now(+1000y)`: "200 years",
		`$now(+99999999999999999999d)`: "an offset is", `$now(%Q)`: "no directive %Q", `$now("%")`: "lone %", `$now("a)`: "a quote has no end",
		`$now(date, time, http)`: "at most 2", `$now("date"x)`: "a comma belongs", `$randomInt(1)`: "both", `$randomInt(2,1)`: "two whole numbers",
		`$randomInt(a,b)`: "two whole numbers", `$randomInt(1,2,3)`: "at most 2", `$randomInt(1,)`: "empty", `$randomInt(,1)`: "empty",
		`$randomInt(1`: "no )", `$randomFloat(1e400,2e400)`: "1e15", `$randomFloat(x,1)`: "two numbers", `$randomString(0)`: "1 to 1024",
		`$randomString(1025)`: "1 to 1024", `$words(x)`: "1 to 100", `$index(1)`: "no arguments", `$index`: "only within repeat and forEach",
		`$timestamp(date)`: "an offset", `$isoDate(+1mo1)`: "an offset is",
	} {
		spec := testspec.Spec{Steps: []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/{{" + reference + "}}"}}}}
		faults := testspec.Validate(spec)
		if len(faults) != 1 || faults[0].Pointer != "/steps/0/request/url" || !strings.Contains(faults[0].Detail, want) {
			t.Errorf("%s: %v, want %q", reference, faults, want)
		}
	}
}

// TestGenerator_seed: one seed gives the same values in the same order, another seed others; each occurrence is new.
func TestGenerator_seed(t *testing.T) {
	t.Parallel()
	all := "{{" + strings.Join(testspec.GeneratedNames(), "}} {{") + "}} {{$uuid}}"
	draw := func(seed string) string {
		s := generating(seed)
		out, err := s.Expand(all, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if a, b := draw("one"), draw("one"); a != b {
		t.Errorf("one seed, two outcomes:\n%s\n%s", a, b)
	}
	if draw("one") == draw("two") {
		t.Error("two seeds, one outcome")
	}
	if f := strings.Fields(draw("one")); f[0] == f[len(f)-1] {
		t.Error("two occurrences have one value")
	}
	seven := 7
	id := uuid.NewString()
	if s := (testspec.Spec{Seed: &seven}); s.GeneratorSeed(id, 1) != s.GeneratorSeed("other", 2) {
		t.Error("a spec's seed depends on the run")
	}
	if s := (testspec.Spec{}); s.GeneratorSeed(id, 1) == s.GeneratorSeed(id, 2) || s.GeneratorSeed(id, 1) == s.GeneratorSeed(uuid.NewString(), 1) {
		t.Error("the seed isn't the attempt's")
	}
}

// TestGenerated_stable: what a seed gives today it gives tomorrow; somebody's recorded responses rest on it.
func TestGenerated_stable(t *testing.T) {
	t.Parallel()
	got, err := generating("seed 42").Expand("{{$uuid}} {{$randomInt}} {{$randomFloat}} {{$randomString}} {{$email}} {{$phone}} {{$words}}", 1000)
	const want = `2c7c5997-6c4e-4ee4-9a64-dbaeceaab8e0 880391 0.279995 CvkcIvaohkUEQeNh fatima.nguyen.686f747a@example.com +16175550142 wonder lemon quiet`
	if err != nil || got != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
}

// TestExpandJSON_generated: alone in its string a number becomes a number, and true or false becomes that.
func TestExpandJSON_generated(t *testing.T) {
	t.Parallel()
	scope := generating("json")
	if err := scope.Iterate(3, nil); err != nil {
		t.Fatal(err)
	}
	out, err := scope.ExpandJSON(json.RawMessage(`{"a":"{{$randomInt(7,7)}}","b":"{{$boolean}}","c":"{{$uuid}}","d":"n{{$randomInt(7,7)}}","e":"{{$index}}","f":["{{$timestamp}}"],"g":"{{$randomString(4)}}"}`), 1000)
	if err != nil || !regexp.MustCompile(`^{"a":7,"b":(true|false),"c":"[^"]{36}","d":"n7","e":3,"f":\[1772280000\],"g":"\w{4}"}$`).Match(out) {
		t.Errorf("%s, %v", out, err)
	}
	scope.EndIteration()
	if _, err := scope.Expand("{{$index}}", 10); err == nil {
		t.Error("an index outside of an iteration")
	}
}

// TestGenerator_variables: a variable's generated value is made once, so that it is the same wherever it stands.
func TestGenerator_variables(t *testing.T) {
	t.Parallel()
	g := testspec.NewGenerator("v", noon)
	vars := map[string]string{"b": "{{$uuid}}", "a": "u-{{$randomHex(4)}}", "plain": "x }}"}
	out, err := g.Variables(vars)
	if err != nil || vars["b"] != "{{$uuid}}" || out["plain"] != "x }}" || len(out["b"]) != 36 || len(out["a"]) != 6 {
		t.Errorf("%v, %v", out, err)
	}
	again, err := testspec.NewGenerator("v", noon).Variables(vars)
	if err != nil || again["a"] != out["a"] || again["b"] != out["b"] {
		t.Errorf("another order: %v, %v", again, err)
	}
	faults := testspec.Validate(testspec.Spec{
		Variables: map[string]string{"ok": "{{$uuid}}", "escaped": "{{{{x", "other": "{{ok}}", "open": "{{", "index": "{{$index}}", "bad": "{{$nope}}"},
		Steps:     []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/{{ok}}"}}},
	})
	var at []string
	for _, f := range faults {
		at = append(at, f.Pointer)
	}
	if !slices.Equal(at, []string{"/variables/bad", "/variables/index", "/variables/open", "/variables/other"}) {
		t.Errorf("%v", faults)
	}
}
