package testspec

import (
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// violation is one place where a value doesn't follow its schema.
type violation struct {
	at      string // pointer into the value, "" for all of it
	keyword string // of the schema
	message string // a clause
}

// shownViolations is how many of them a sentence names.
const shownViolations = 3

// describeViolations writes the first violations, a clause.
func describeViolations(list []violation) string {
	var b strings.Builder
	for i, v := range list {
		if i == shownViolations {
			fmt.Fprintf(&b, "; and %d more", len(list)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		at := "it"
		if v.at != "" {
			at = shorten(v.at, 120)
		}
		b.WriteString(at + ": " + v.message)
		if v.keyword != "" {
			b.WriteString(" (" + v.keyword + ")")
		}
	}
	return b.String()
}

// violationsOf takes the library's tree apart into its leaves. What is below anyOf, oneOf and contains is not told: it
// says why each alternative doesn't fit, and only that none does is wrong.
func violationsOf(e *jsonschema.ValidationError) []violation {
	var list []violation
	seen := map[violation]bool{}
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if e.ErrorKind == nil || len(list) > 1000 {
			return
		}
		switch e.ErrorKind.(type) {
		case *kind.AnyOf, *kind.OneOf, *kind.Contains, *kind.MinContains, *kind.PropertyNames:
		default:
			if len(e.Causes) > 0 {
				for _, c := range e.Causes {
					walk(c)
				}
				return
			}
		}
		v := violation{at: pointerOf(e.InstanceLocation), keyword: keywordOf(e), message: violationMessage(e)}
		if !seen[v] {
			seen[v] = true
			list = append(list, v)
		}
	}
	walk(e)
	slices.SortStableFunc(list, func(a, b violation) int {
		if c := strings.Compare(a.at, b.at); c != 0 {
			return c
		}
		return strings.Compare(a.keyword+a.message, b.keyword+b.message)
	})
	if len(list) == 0 {
		list = []violation{{message: "it is not valid"}}
	}
	return list
}

func pointerOf(tokens []string) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString("/" + escapePointer(t))
	}
	return b.String()
}

func keywordOf(e *jsonschema.ValidationError) string {
	switch e.ErrorKind.(type) {
	case *kind.Not:
		return "not"
	case *kind.FalseSchema:
		// The keyword that the schema false stands under.
		_, fragment, _ := strings.Cut(e.SchemaURL, "#")
		tokens := strings.Split(fragment, "/")
		for i := len(tokens) - 1; i > 0; i-- {
			switch tokens[i] {
			case "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "items", "additionalItems", "properties", "prefixItems",
				"patternProperties", "propertyNames", "contains", "then", "else":
				return tokens[i]
			}
		}
		return ""
	}
	path := e.ErrorKind.KeywordPath()
	if len(path) == 0 {
		return ""
	}
	return path[0]
}

var english = message.NewPrinter(language.English)

// violationMessage says what is wrong, a clause without the library's quoting of what may be long.
func violationMessage(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		return "it is " + withArticle(k.Got) + ", not " + withArticle(strings.Join(k.Want, " or "))
	case *kind.Required:
		if len(k.Missing) == 1 {
			return "the property " + shorten(k.Missing[0], 60) + " is missing"
		}
		return "the properties " + shorten(strings.Join(k.Missing, ", "), 120) + " are missing"
	case *kind.AdditionalProperties:
		props := slices.Sorted(slices.Values(k.Properties))
		return "it may not have " + shorten(strings.Join(props, ", "), 120)
	case *kind.Enum:
		return "it is none of the allowed values"
	case *kind.Const:
		return "it is not the only allowed value"
	case *kind.Not:
		return "it follows the schema that it must not follow"
	case *kind.AnyOf:
		return "it follows none of the alternatives"
	case *kind.OneOf:
		if len(k.Subschemas) == 2 {
			return fmt.Sprintf("it follows alternatives %d and %d, where only one may be", k.Subschemas[0], k.Subschemas[1])
		}
		return "it follows none of the alternatives"
	case *kind.FalseSchema:
		return "nothing may be here"
	case *kind.Contains:
		return "no member is as it must contain"
	case *kind.MinContains:
		return fmt.Sprintf("%d members are as it must contain at least %d times", len(k.Got), k.Want)
	case *kind.MaxContains:
		return fmt.Sprintf("%d members are as it may contain at most %d times", len(k.Got), k.Want)
	case *kind.Pattern:
		return "it does not match " + shorten(k.Want, 80)
	case *kind.PropertyNames:
		return "the name " + shorten(k.Property, 60) + " is not allowed"
	case *kind.UniqueItems:
		return fmt.Sprintf("members %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.RefCycle:
		return "the schema refers to itself without an end"
	}
	return boundMessage(e.ErrorKind)
}

// boundMessage is violationMessage of keywords that name a number.
func boundMessage(e jsonschema.ErrorKind) string {
	switch k := e.(type) {
	case *kind.MultipleOf:
		return "it is " + ratText(k.Got) + ", which is not a multiple of " + ratText(k.Want)
	case *kind.Minimum:
		return "it is " + ratText(k.Got) + ", which is less than " + ratText(k.Want)
	case *kind.Maximum:
		return "it is " + ratText(k.Got) + ", which is more than " + ratText(k.Want)
	case *kind.ExclusiveMinimum:
		return "it is " + ratText(k.Got) + ", which is not more than " + ratText(k.Want)
	case *kind.ExclusiveMaximum:
		return "it is " + ratText(k.Got) + ", which is not less than " + ratText(k.Want)
	case *kind.MinLength:
		return fmt.Sprintf("its length is %d, and at least %d is needed", k.Got, k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("its length is %d, and at most %d is allowed", k.Got, k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("the number of its members is %d, and at least %d is needed", k.Got, k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("the number of its members is %d, and at most %d is allowed", k.Got, k.Want)
	case *kind.MinProperties:
		return fmt.Sprintf("the number of its properties is %d, and at least %d is needed", k.Got, k.Want)
	case *kind.MaxProperties:
		return fmt.Sprintf("the number of its properties is %d, and at most %d is allowed", k.Got, k.Want)
	default:
		return shorten(e.LocalizedString(english), 120)
	}
}

// ratText writes a number for people: the nearest of 64 bits, however many digits it has.
func ratText(n *big.Rat) string {
	f, _ := n.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func withArticle(types string) string {
	switch types {
	case "null":
		return types
	case "array", "integer", "object":
		return "an " + types
	}
	return "a " + types
}

// schemaFaultOf takes an error of the library's compiler apart: where, and a clause.
func schemaFaultOf(err error) schemaFault {
	var f schemaFault
	at := func(rawURL string) { f.name, f.pointer = schemaPlace(rawURL) }
	var (
		invalid   *jsonschema.SchemaValidationError
		regex     *jsonschema.InvalidRegexError
		load      *jsonschema.LoadURLError
		anchor    *jsonschema.AnchorNotFoundError
		pointer   *jsonschema.JSONPointerNotFoundError
		malformed *jsonschema.InvalidJsonPointerError
		badURL    *jsonschema.ParseURLError
		sameID    *jsonschema.DuplicateIDError
		sameName  *jsonschema.DuplicateAnchorError
		badID     *jsonschema.ParseIDError
		badAnchor *jsonschema.ParseAnchorError
		vocab     *jsonschema.UnsupportedVocabularyError
		draft     *jsonschema.UnsupportedDraftError
		cycle     *jsonschema.MetaSchemaCycleError
		metaURL   *jsonschema.InvalidMetaSchemaURLError
		foreign   errNotCarried
	)
	switch {
	case errors.As(err, &invalid):
		at(invalid.URL)
		var tree *jsonschema.ValidationError
		if errors.As(invalid.Err, &tree) {
			list := violationsOf(tree)
			// The deepest place says most.
			first := slices.MaxFunc(list, func(a, b violation) int { return strings.Count(a.at, "/") - strings.Count(b.at, "/") })
			f.pointer += first.at
			switch f.why = first.message; {
			case hasFormat(tree, "regex"):
				f.why = "this is not a regular expression that RE2 can run (it knows neither lookaround nor backreferences)"
			case strings.HasSuffix(f.pointer, "/type"):
				f.why = "a type is one of array, boolean, integer, null, number, object and string, or a list of them"
			case first.keyword != "":
				f.why += " (" + first.keyword + " of the metaschema)"
			}
		}
	case errors.As(err, &regex):
		at(regex.URL)
		f.why = regex.Err.Error()
	case errors.As(err, &foreign):
		f.why = foreign.Error()
	case errors.As(err, &load):
		f.why = "the test carries no schema " + shorten(load.URL, 120) + "; add it to the test's schemas"
	case errors.As(err, &anchor):
		f.why = "there is no anchor " + shorten(anchor.Reference, 120)
	case errors.As(err, &pointer):
		f.why = "there is nothing at " + shorten(shownReference(pointer.URL), 120)
	case errors.As(err, &malformed):
		f.why = "this is no JSON Pointer: " + shorten(shownReference(malformed.URL), 120)
	case errors.As(err, &badURL):
		f.why = "this is no URI reference: " + shorten(badURL.URL, 120)
	case errors.As(err, &sameID):
		at(sameID.URL + "#" + sameID.Ptr1)
		f.why = "two schemas have the $id " + shorten(sameID.ID, 120)
	case errors.As(err, &sameName):
		at(sameName.URL + "#" + sameName.Ptr1)
		f.why = "two schemas have the anchor " + shorten(sameName.Anchor, 120)
	case errors.As(err, &badID):
		at(badID.URL)
		f.why = "its $id is no URI reference"
	case errors.As(err, &badAnchor):
		at(badAnchor.URL)
		f.why = "its anchor cannot be read"
	case errors.As(err, &vocab):
		f.why = "the vocabulary " + shorten(vocab.Vocabulary, 120) + " is not known"
	case errors.As(err, &draft):
		f.why = "the draft " + shorten(draft.URL, 120) + " is not known; there are 2020-12 (the default), 2019-09, 07, 06 and 04"
	case errors.As(err, &cycle):
		f.why = "its $schema leads back to itself"
	case errors.As(err, &metaURL):
		f.why = "its $schema is no URI"
	default:
		f.why = "this schema cannot be read: " + shorten(strings.ReplaceAll(err.Error(), schemaBase, ""), 160)
	}
	if f.why == "" {
		f.why = "this is not a schema"
	}
	return f
}

// hasFormat says whether a format is what is wrong somewhere in e.
func hasFormat(e *jsonschema.ValidationError, name string) bool {
	if k, ok := e.ErrorKind.(*kind.Format); ok && k.Want == name {
		return true
	}
	return slices.ContainsFunc(e.Causes, func(c *jsonschema.ValidationError) bool { return hasFormat(c, name) })
}

func shownReference(rawURL string) string { return strings.TrimPrefix(rawURL, schemaURL) }

// schemaPlace takes the library's location of a subschema apart.
func schemaPlace(rawURL string) (name, pointer string) {
	base, fragment, _ := strings.Cut(rawURL, "#")
	if plain, err := url.PathUnescape(fragment); err == nil && (plain == "" || strings.HasPrefix(plain, "/")) {
		pointer = plain
	}
	switch {
	case base == schemaURL:
		return "", pointer
	case strings.HasPrefix(base, schemaNamed):
		return strings.TrimPrefix(base, schemaNamed), pointer
	default:
		return base, pointer
	}
}

// ecmaClasses are what ECMA-262 means by an escape or a dot, written for RE2 within a class.
const (
	ecmaSpace = `\t\n\v\f\r \x{a0}\x{feff}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}`
	ecmaLines = `\n\r\x{2028}\x{2029}`
)

// ecmaProperties are the long names of Unicode's general categories that people use.
var ecmaProperties = map[string]string{
	"Letter": "L", "Lowercase_Letter": "Ll", "Uppercase_Letter": "Lu", "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo",
	"Mark": "M", "Number": "N", "Decimal_Number": "Nd", "digit": "Nd", "Punctuation": "P", "punct": "P", "Symbol": "S", "Separator": "Z",
	"Space_Separator": "Zs", "Other": "C", "Control": "Cc", "cntrl": "Cc",
}

// fromECMA writes a regular expression of ECMA-262 for RE2: what both know stays, what RE2 writes in another way is
// translated, and what it cannot do is left for it to refuse.
func fromECMA(p string) string {
	var b strings.Builder
	inClass := false
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '\\' && i+1 < len(p):
			n := ecmaEscape(&b, p[i:], inClass)
			i += n - 1
		case inClass:
			inClass = c != ']'
			if c == '[' {
				b.WriteByte('\\') // RE2 would take [: for the beginning of a POSIX class
			}
			b.WriteByte(c)
		case c == '[' && strings.HasPrefix(p[i:], "[^]"):
			b.WriteString(`[\x{0}-\x{10ffff}]`)
			i += 2
		case c == '[' && strings.HasPrefix(p[i:], "[]"):
			b.WriteString(`[^\x{0}-\x{10ffff}]`)
			i++
		case c == '[':
			inClass = true
			b.WriteByte(c)
			if i+1 < len(p) && p[i+1] == '^' {
				b.WriteByte('^')
				i++
			}
		case c == '.':
			b.WriteString("[^" + ecmaLines + "]")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ecmaEscape translates the escape at the beginning of p and returns its length.
func ecmaEscape(b *strings.Builder, p string, inClass bool) int {
	class := func(negated bool) {
		switch {
		case inClass && negated:
			b.WriteString(`\S`) // RE2 has no complement within a class; its own \S differs in rare spaces
		case inClass:
			b.WriteString(ecmaSpace)
		case negated:
			b.WriteString("[^" + ecmaSpace + "]")
		default:
			b.WriteString("[" + ecmaSpace + "]")
		}
	}
	switch p[1] {
	case 's', 'S':
		class(p[1] == 'S')
		return 2
	case 'u':
		if code, n := ecmaCodePoint(p); n > 0 {
			fmt.Fprintf(b, `\x{%x}`, code)
			return n
		}
	case 'c':
		if len(p) > 2 && (p[2]|0x20 >= 'a' && p[2]|0x20 <= 'z') {
			fmt.Fprintf(b, `\x{%x}`, p[2]&0x1f)
			return 3
		}
	case 'p', 'P':
		if end := strings.IndexByte(p, '}'); end > 3 && p[2] == '{' {
			name := p[3:end]
			for _, prefix := range []string{"General_Category=", "gc=", "Script=", "sc="} {
				name = strings.TrimPrefix(name, prefix)
			}
			if short, ok := ecmaProperties[name]; ok {
				name = short
			}
			b.WriteString(p[:3] + name + "}")
			return end + 1
		}
	case '0':
		if len(p) == 2 || p[2] < '0' || p[2] > '9' {
			b.WriteString(`\x{0}`)
			return 2
		}
	case 'A', 'z', 'Q', 'E', 'C', 'a':
		// RE2 knows these, ECMA-262 takes them for the letter.
		b.WriteByte(p[1])
		return 2
	}
	b.WriteString(p[:2])
	return 2
}

// ecmaCodePoint reads \uXXXX, a pair of surrogates of that form, or \u{X…}; n is 0 when it is none.
func ecmaCodePoint(p string) (code rune, n int) {
	hex4 := func(s string) (rune, bool) {
		if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
			return 0, false
		}
		return hexRune(s[2:6])
	}
	if strings.HasPrefix(p, `\u{`) {
		end := strings.IndexByte(p, '}')
		if end < 4 || end > 9 {
			return 0, 0
		}
		code, ok := hexRune(p[3:end])
		if !ok || code > 0x10ffff {
			return 0, 0
		}
		return code, end + 1
	}
	high, ok := hex4(p)
	if !ok {
		return 0, 0
	}
	if high >= 0xd800 && high <= 0xdbff {
		if low, ok := hex4(p[6:]); ok && low >= 0xdc00 && low <= 0xdfff {
			return 0x10000 + (high-0xd800)<<10 + (low - 0xdc00), 12
		}
	}
	return high, 6
}

func hexRune(s string) (rune, bool) {
	var r rune
	for i := range len(s) {
		c := s[i] | 0x20
		switch {
		case s[i] >= '0' && s[i] <= '9':
			r = r<<4 | rune(s[i]-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
