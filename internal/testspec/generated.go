package testspec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/limits"
)

// GeneratedInfo describes one generated value: `{{$name}}` or `{{$name(arguments)}}` in a template.
type GeneratedInfo struct {
	Name string // with its $
	// Doc is one sentence for documents and messages.
	Doc string
	// Args says in one clause what may stand between the parentheses, "" when it takes none.
	Args    string
	Example string
	// Number says that it becomes a JSON number, Bool a JSON boolean, where it is all of a JSON string.
	Number, Bool bool

	maxArgs int
	check   func(args []string) string // what is wrong with them, "" when nothing is
	make    func(g *Generator, args []string) string
}

const (
	argsOffset = "an offset such as +1d, -2h30m or +1mo (units ms s m h d w mo y)"
	argsLength = "its length, from 1 to 1024"
	argsRange  = "the least and the greatest, both included"
	argsWords  = "how many, from 1 to 100"
)

// generated is the table of generated values. A new one is a new line here: validation, documents and messages follow.
var generated = []GeneratedInfo{
	{
		Name: "$uuid", Doc: "A random UUID (version 4).", Example: "3f2b8c1e-9a7d-4e5f-8b6a-1c2d3e4f5a6b",
		make: func(g *Generator, _ []string) string { return g.uuid() },
	},
	{
		Name: "$now", Doc: "This moment in UTC, as RFC 3339 with seconds unless a format is given.", Example: "2026-11-27T15:45:07Z",
		Args: argsOffset + ", a format such as \"%Y-%m-%d %H:%M:%S\", rfc3339, date, time, http, unix or unixMs, or both", maxArgs: 2,
		check: checkMoment,
		make: func(g *Generator, args []string) string {
			t, format := moment(g.now(), args)
			out, _ := formatMoment(t, format) // checked when it was parsed
			return out
		},
	},
	{
		Name: "$timestamp", Doc: "This moment as seconds since 1970.", Example: "1795794307", Number: true,
		Args: argsOffset, maxArgs: 1, check: checkOffset,
		make: func(g *Generator, args []string) string {
			t, _ := moment(g.now(), args)
			return strconv.FormatInt(t.Unix(), 10)
		},
	},
	{
		Name: "$timestampMs", Doc: "This moment as milliseconds since 1970.", Example: "1795794307123", Number: true,
		Args: argsOffset, maxArgs: 1, check: checkOffset,
		make: func(g *Generator, args []string) string {
			t, _ := moment(g.now(), args)
			return strconv.FormatInt(t.UnixMilli(), 10)
		},
	},
	{
		Name: "$isoDate", Doc: "Today's date in UTC.", Example: "2026-11-27", Args: argsOffset, maxArgs: 1, check: checkOffset,
		make: func(g *Generator, args []string) string {
			t, _ := moment(g.now(), args)
			return t.Format(time.DateOnly)
		},
	},
	{
		Name: "$randomInt", Doc: "A random whole number, from 0 to 1000000 unless said.", Example: "40213", Number: true,
		Args: argsRange, maxArgs: 2, check: checkIntRange,
		make: func(g *Generator, args []string) string {
			low, high, _ := intRange(args)
			return strconv.FormatInt(g.between(low, high), 10)
		},
	},
	{
		Name: "$randomFloat", Doc: "A random number with at most six decimal places, from 0 to 1 unless said.", Example: "0.483921", Number: true,
		Args: argsRange, maxArgs: 2, check: checkFloatRange,
		make: func(g *Generator, args []string) string {
			low, high, _ := floatRange(args)
			f := min(max(low+g.random().Float64()*(high-low), low), high)
			if r := math.Round(f*1e6) / 1e6; r >= low && r <= high {
				f = r
			}
			return strconv.FormatFloat(f, 'f', -1, 64)
		},
	},
	{
		Name: "$boolean", Doc: "true or false.", Example: "true", Bool: true,
		make: func(g *Generator, _ []string) string { return strconv.FormatBool(g.random().IntN(2) == 0) },
	},
	{
		Name: "$randomString", Doc: "Random letters and digits, 16 unless said.", Example: "q7RkV0bTz3XcLw9P", Args: argsLength, maxArgs: 1, check: checkLength,
		make: func(g *Generator, args []string) string { return g.letters(alphanumeric, lengthOr(args, 16)) },
	},
	{
		Name: "$randomHex", Doc: "Random hexadecimal digits, 16 unless said.", Example: "9f86d081884c7d65", Args: argsLength, maxArgs: 1, check: checkLength,
		make: func(g *Generator, args []string) string { return g.letters(hexDigits, lengthOr(args, 16)) },
	},
	{
		Name: "$email", Doc: "An e-mail address that nobody has (RFC 2606), new each time.", Example: "ada.lovelace.5c1f09a2@example.com",
		make: func(g *Generator, _ []string) string {
			return strings.ToLower(g.pick(firstNames)+"."+g.pick(lastNames)) + "." + g.letters(hexDigits, 8) + "@example.com"
		},
	},
	{
		Name: "$userName", Doc: "A name to sign in with, new each time.", Example: "ada5c1f09a2",
		make: func(g *Generator, _ []string) string {
			return strings.ToLower(g.pick(firstNames)) + g.letters(hexDigits, 8)
		},
	},
	{
		Name: "$firstName", Doc: "A person's first name.", Example: "Ada",
		make: func(g *Generator, _ []string) string { return g.pick(firstNames) },
	},
	{
		Name: "$lastName", Doc: "A person's last name.", Example: "Lovelace",
		make: func(g *Generator, _ []string) string { return g.pick(lastNames) },
	},
	{
		Name: "$fullName", Doc: "A person's first and last name.", Example: "Ada Lovelace",
		make: func(g *Generator, _ []string) string { return g.pick(firstNames) + " " + g.pick(lastNames) },
	},
	{
		Name: "$phone", Doc: "A telephone number that nobody has (E.164, 555-01xx).", Example: "+12025550143",
		make: func(g *Generator, _ []string) string {
			return "+1" + g.pick(areaCodes) + "55501" + g.letters(digits, 2)
		},
	},
	{
		Name: "$word", Doc: "An English word.", Example: "river",
		make: func(g *Generator, _ []string) string { return g.pick(words) },
	},
	{
		Name: "$words", Doc: "English words with spaces between, 3 unless said.", Example: "river stone cloud", Args: argsWords, maxArgs: 1, check: checkWords,
		make: func(g *Generator, args []string) string {
			list := make([]string, lengthOr(args, 3))
			for i := range list {
				list[i] = g.pick(words)
			}
			return strings.Join(list, " ")
		},
	},
	{
		Name: "$city", Doc: "A city.", Example: "Lisbon",
		make: func(g *Generator, _ []string) string { return g.pick(cities) },
	},
	{
		Name: "$country", Doc: "A country's code (ISO 3166-1 alpha-2).", Example: "PT",
		make: func(g *Generator, _ []string) string { return g.pick(countries) },
	},
	{
		Name: "$ipv4", Doc: "An IPv4 address of those kept for examples (RFC 5737).", Example: "203.0.113.17",
		make: func(g *Generator, _ []string) string {
			return g.pick(exampleNetworks) + strconv.FormatInt(g.between(1, 254), 10)
		},
	},
}

var generatedByName = indexBy(generated, func(g *GeneratedInfo) string { return g.Name })

// indexReference is the iteration's index; it is no generated value but looks like one.
const indexReference = "$index"

// GeneratedValues lists every generated value in the order of the documents.
func GeneratedValues() []GeneratedInfo { return append([]GeneratedInfo(nil), generated...) }

// GeneratedNames lists their names.
func GeneratedNames() []string {
	return namesOf(generated, func(g *GeneratedInfo) string { return g.Name })
}

// Generator makes the generated values of one attempt. The same seed gives the same values in the same order. Not safe
// for concurrent use.
type Generator struct {
	seed   string
	source *rand.Rand // made when the first value is
	now    func() time.Time
}

// NewGenerator returns a Generator whose values follow from seed (any text) and, for times, from the clock now.
func NewGenerator(seed string, now func() time.Time) *Generator {
	return &Generator{seed: seed, now: now}
}

func (g *Generator) random() *rand.Rand {
	if g.source == nil {
		g.source = rand.New(rand.NewChaCha8(sha256.Sum256([]byte("testflow generated values\n" + g.seed))))
	}
	return g.source
}

// GeneratorSeed returns the seed of an attempt: the spec's own, which gives the same values in every run, or else one
// that follows from what names the attempt.
func (s Spec) GeneratorSeed(runID string, attempt int) string {
	if s.Seed != nil {
		return "seed " + strconv.Itoa(*s.Seed)
	}
	return runID + " " + strconv.Itoa(attempt)
}

// Variables returns vars with their generated values made, in the order of their names, so that one can stand in many
// places. The error is Expand's, with the variable's name before it.
func (g *Generator) Variables(vars map[string]string) (map[string]string, error) {
	var out map[string]string
	scope := &Scope{generator: g}
	for _, name := range sorted(vars) {
		if !strings.Contains(vars[name], "{{") {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(vars))
			for k, v := range vars {
				out[k] = v
			}
		}
		text, err := scope.Expand(vars[name], limits.MaxVariableValue)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
		out[name] = text
	}
	if out == nil {
		return vars, nil
	}
	return out, nil
}

// SetGenerator says what makes the values of references that begin with $.
func (s *Scope) SetGenerator(g *Generator) { s.generator = g }

// generate makes the value of a well-formed reference that begins with $.
func (s *Scope) generate(ref string) (text string, raw json.RawMessage, ok bool) {
	if ref == indexReference {
		if s.iteration == nil {
			return "", nil, false
		}
		text = strconv.Itoa(s.iteration.index)
		return text, json.RawMessage(text), true
	}
	name, args, why := parseGenerated(ref)
	info := generatedByName[name]
	if why != "" || info == nil || s.generator == nil {
		return "", nil, false
	}
	text = info.make(s.generator, args)
	if info.Number || info.Bool {
		raw = json.RawMessage(text)
	}
	return text, raw, true
}

// parseGenerated takes a reference such as $randomInt(1, 10) apart; why is a clause that says what is wrong.
func parseGenerated(ref string) (name string, args []string, why string) {
	name, rest, called := strings.Cut(ref, "(")
	name = strings.TrimSpace(name)
	if name == indexReference {
		if called {
			return name, nil, "$index takes no arguments"
		}
		return name, nil, ""
	}
	info, known := generatedByName[name]
	if !known {
		why = "there is no generated value " + shorten(name, 40)
		if meant := closestGenerated(name); meant != "" {
			return name, nil, why + "; perhaps " + meant + " is meant"
		}
		return name, nil, why + "; there are " + strings.Join(GeneratedNames(), ", ")
	}
	if !called {
		return name, nil, ""
	}
	inner, closed := strings.CutSuffix(strings.TrimSpace(rest), ")")
	if !closed {
		return name, nil, name + "( has no ) at its end"
	}
	if args, why = splitArguments(inner); why != "" {
		return name, nil, name + ": " + why
	}
	switch {
	case len(args) > 0 && info.Args == "":
		return name, nil, name + " takes no arguments"
	case len(args) > info.maxArgs:
		return name, nil, fmt.Sprintf("%s takes at most %d arguments: %s", name, info.maxArgs, info.Args)
	case len(args) > 0:
		if why = info.check(args); why != "" {
			return name, nil, name + ": " + why
		}
	}
	return name, args, ""
}

// splitArguments splits at commas; an argument may stand in single or double quotes, which hide commas.
func splitArguments(s string) (args []string, why string) {
	if strings.TrimSpace(s) == "" {
		return nil, ""
	}
	for {
		s = strings.TrimLeft(s, " ")
		var arg string
		if s != "" && (s[0] == '"' || s[0] == '\'') {
			end := strings.IndexByte(s[1:], s[0])
			if end < 0 {
				return nil, "a quote has no end"
			}
			arg, s = s[1:1+end], strings.TrimLeft(s[end+2:], " ")
			if s != "" && s[0] != ',' {
				return nil, "a comma belongs between arguments"
			}
		} else {
			end := strings.IndexByte(s, ',')
			if end < 0 {
				end = len(s)
			}
			arg, s = strings.TrimRight(s[:end], " "), s[end:]
			if arg == "" {
				return nil, "an argument is empty"
			}
		}
		args = append(args, arg)
		if s == "" {
			return args, ""
		}
		s = s[1:]
	}
}

// closestGenerated returns the name that was probably meant, "" when none is near.
func closestGenerated(name string) string {
	low := strings.ToLower(name)
	for _, n := range GeneratedNames() {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	for _, n := range GeneratedNames() {
		l := strings.ToLower(n)
		if len(low) > 4 && (strings.HasPrefix(l, low) || strings.HasPrefix(low, l)) || l == "$random"+strings.TrimPrefix(low, "$") {
			return n
		}
	}
	best, meant := 1+len(name)/3, ""
	for _, n := range GeneratedNames() {
		if d := editDistance(low, strings.ToLower(n)); d < best && len(name) <= 40 {
			best, meant = d, n
		}
	}
	return meant
}

// editDistance is how many characters must be put in, taken out or changed to make a into b.
func editDistance(a, b string) int {
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
		}
		last = row
	}
	return last[len(b)]
}

func (g *Generator) pick(list []string) string { return list[g.random().IntN(len(list))] }

// between returns a number from low to high, both included.
func (g *Generator) between(low, high int64) int64 {
	span := uint64(high) - uint64(low) //nolint:gosec // wraps around to the distance, whatever the signs
	if span == math.MaxUint64 {
		return int64(g.random().Uint64()) //nolint:gosec // any of them
	}
	return int64(uint64(low) + g.random().Uint64N(span+1)) //nolint:gosec // wraps around back into low to high
}

func (g *Generator) letters(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[g.random().IntN(len(alphabet))]
	}
	return string(b)
}

func (g *Generator) uuid() string {
	var b [16]byte
	for i := 0; i < 16; i += 8 {
		u := g.random().Uint64()
		for j := range 8 {
			b[i+j] = byte(u >> (8 * j)) //nolint:gosec // one byte of eight
		}
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func intRange(args []string) (low, high int64, why string) {
	low, high = 0, 1_000_000
	var err1, err2 error
	switch len(args) {
	case 0:
	case 1:
		return 0, 0, "give both " + argsRange
	default:
		low, err1 = strconv.ParseInt(args[0], 10, 64)
		high, err2 = strconv.ParseInt(args[1], 10, 64)
	}
	if err1 != nil || err2 != nil || low > high {
		return 0, 0, "it takes two whole numbers: " + argsRange
	}
	return low, high, ""
}

func checkIntRange(args []string) string {
	_, _, why := intRange(args)
	return why
}

func floatRange(args []string) (low, high float64, why string) {
	low, high = 0, 1
	switch len(args) {
	case 0:
		return low, high, ""
	case 1:
		return 0, 0, "give both " + argsRange
	}
	for i, p := range []*float64{&low, &high} {
		if _, ok := parseDecimal(args[i]); !ok {
			return 0, 0, "it takes two numbers: " + argsRange
		}
		*p, _ = strconv.ParseFloat(args[i], 64) // out of range is too much anyway
	}
	if low > high || math.Abs(low) > 1e15 || math.Abs(high) > 1e15 {
		return 0, 0, "it takes two numbers up to 1e15: " + argsRange
	}
	return low, high, ""
}

func checkFloatRange(args []string) string {
	_, _, why := floatRange(args)
	return why
}

func checkLength(args []string) string {
	if n, err := strconv.Atoi(args[0]); err != nil || n < 1 || n > 1024 {
		return "it takes " + argsLength
	}
	return ""
}

func checkWords(args []string) string {
	if n, err := strconv.Atoi(args[0]); err != nil || n < 1 || n > 100 {
		return "it takes " + argsWords
	}
	return ""
}

func lengthOr(args []string, otherwise int) int {
	if len(args) == 0 {
		return otherwise
	}
	n, _ := strconv.Atoi(args[0]) // checked when it was parsed
	return n
}

const (
	digits       = "0123456789"
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

var (
	firstNames = []string{
		"Ada", "Alan", "Amara", "Anita", "Barbara", "Carlos", "Chen", "Dana", "Edgar", "Elena", "Emil", "Fatima", "Frida", "Grace",
		"Hedy", "Ines", "Ivan", "Jamal", "Joan", "Kenji", "Lars", "Leila", "Linus", "Mae", "Margaret", "Mateo", "Mei", "Nadia",
		"Niklaus", "Noor", "Olga", "Omar", "Priya", "Radia", "Rosa", "Samir", "Sofia", "Tim", "Yuki", "Zoe",
	}
	lastNames = []string{
		"Adams", "Allen", "Backus", "Bauer", "Berg", "Borg", "Conway", "Costa", "Diaz", "Dubois", "Eriksen", "Fischer", "Garcia",
		"Goldberg", "Hamilton", "Hansen", "Hopper", "Ito", "Jensen", "Kahn", "Keller", "Khan", "Kim", "Lamport", "Larsen", "Liskov",
		"Lovelace", "Meyer", "Moreau", "Nguyen", "Novak", "Okafor", "Perlman", "Rossi", "Sato", "Silva", "Singh", "Turing", "Weber", "Wirth",
	}
	words = []string{
		"anchor", "apple", "autumn", "bridge", "bright", "butter", "candle", "castle", "cloud", "copper", "cotton", "desert", "dragon",
		"ember", "engine", "falcon", "field", "forest", "garden", "glass", "harbor", "honey", "island", "jacket", "kettle", "lantern",
		"lemon", "marble", "meadow", "mirror", "mountain", "night", "ocean", "orange", "paper", "pebble", "planet", "pocket", "quiet",
		"river", "rocket", "saddle", "shadow", "silver", "spring", "stone", "summer", "thunder", "valley", "velvet", "violet", "window",
		"winter", "wonder",
	}
	cities = []string{
		"Accra", "Athens", "Bergen", "Berlin", "Bogota", "Boston", "Cairo", "Dakar", "Delhi", "Dublin", "Geneva", "Hanoi", "Kyoto",
		"Lagos", "Lima", "Lisbon", "London", "Madrid", "Manila", "Nairobi", "Oslo", "Paris", "Porto", "Quito", "Rome", "Seoul",
		"Sydney", "Toronto", "Vienna", "Zagreb",
	}
	countries = []string{
		"AR", "AT", "AU", "BE", "BR", "CA", "CH", "CL", "CO", "CZ", "DE", "DK", "EG", "ES", "FI", "FR", "GB", "GH", "GR", "IE", "IN",
		"IT", "JP", "KE", "KR", "MX", "NG", "NL", "NO", "NZ", "PE", "PL", "PT", "SE", "US", "ZA",
	}
	areaCodes       = []string{"201", "202", "206", "212", "303", "305", "312", "404", "415", "512", "617", "702"}
	exampleNetworks = []string{"192.0.2.", "198.51.100.", "203.0.113."}
)
