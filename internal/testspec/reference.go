package testspec

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/testflow/testflow/internal/limits"
)

// intro is what people read before the tables. A line <!-- name --> stands where a table comes.
//
//go:embed reference.md
var intro string

//go:generate go run ./reference -o ../../docs/test-language.md

// Reference returns docs/test-language.md: the introduction with the tables of sources, filters, operators and the rest.
func Reference() string {
	out := "<!-- Written by `make generate` from internal/testspec. Change reference.md or the tables there. -->\n\n" + intro
	for name, table := range map[string]func() string{
		"sources": sourceTable, "parts": partTables, "filters": filterTable, "operators": operatorTable,
		"others": otherTable, "generated": generatedTable, "auth": authTable, "limits": judgingLimits,
		"expressionNames": expressionNameTable, "expressionFunctions": func() string { return codes(ExpressionFunctions()) + "\n\n" },
	} {
		out = strings.Replace(out, "<!-- "+name+" -->\n", table(), 1)
	}
	return out
}

// table writes a table of Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for _, c := range cells {
			b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
		}
		b.WriteString("|\n")
	}
	line(head)
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, r := range rows {
		line(r)
	}
	return b.String()
}

func code(s string) string { return "`" + s + "`" }

func codes(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "` `") + "`"
}

func sourceTable() string {
	var rows [][]string
	for i := range sources {
		s := &sources[i]
		rows = append(rows, []string{code(s.Name), s.Property, s.Yields.names(), s.Doc})
	}
	return table([]string{"source", "property", "yields", "is"}, rows)
}

func partTables() string {
	var b strings.Builder
	for i := range sources {
		s := &sources[i]
		if s.parts == nil {
			continue
		}
		var rows [][]string
		for _, p := range s.parts {
			rows = append(rows, []string{code(p.name), p.yields.names(), p.doc})
		}
		b.WriteString("\n`" + s.Name + "`:\n\n" + table([]string{"property", "yields", "is"}, rows))
	}
	return b.String()
}

func filterTable() string {
	var rows [][]string
	for i := range filters {
		f := &filters[i]
		members := "each member"
		if f.whole {
			members = "the list itself"
		}
		rows = append(rows, []string{code(f.Name), string(f.Argument), f.Takes.names(), f.Yields.names(), members, f.Doc})
	}
	return table([]string{"filter", "argument", "takes", "yields", "of a list takes", "makes"}, rows)
}

func operatorTable() string {
	var rows [][]string
	for i := range operators {
		o := &operators[i]
		rows = append(rows, []string{code(o.Name), o.Expected.doc(), o.Takes.names(), o.Doc})
	}
	return table([]string{"operator", "expects", "takes", "holds when the value"}, rows)
}

// otherTable says what the words of other tools are here.
func otherTable() string {
	return table([]string{"tool", "its word", "here"}, [][]string{
		{"Hurl", "`jsonpath \"$.x\" count == 3`", "`{source: jsonpath, property: \"$.x\", filters: [{count: true}], operator: equals, expected: 3}`"},
		{"Hurl", "`==` `!=` `>` `>=` `<` `<=`", "`equals`, `equals` with `not`, `greaterThan` `greaterOrEqual` `lessThan` `lessOrEqual`"},
		{"Hurl", "`isCollection`", "`isList`, `isObject`"},
		{"Hurl", "`isDate`", "`isIsoDate`; a value of the filter `toDate` is one"},
		{"Hurl", "`includes`", "`contains`"},
		{"Hurl", "`ip`, `version`, `duration`, `bytes count`", "`remoteIp`, `httpVersion`, `responseTime`, `bodySize`"},
		{"Hurl", "`rawbytes`", "`bytes`"},
		{"Hurl", "`certificate \"Expire-Date\"` and so on", "`certificate` with `notAfter`, `notBefore`, `subject`, `issuer`, `serial`, `sans`, `pem`"},
		{"Hurl", "`dateFormat`, `format`", "`formatDate`"},
		{"Hurl", "`charsetDecode`", "`decode`"},
		{"Hurl", "`count` of bytes or nodes", "`count`; `length` counts characters"},
		{"Hurl", "the other filters", "have the same names"},
		{"Checkly", "`STATUS_CODE` `HEADERS` `JSON_BODY` `TEXT_BODY` `RESPONSE_TIME`", "`status` `header` `jsonpath` `body` `responseTime`"},
		{"Checkly", "`NOT_EQUALS` `NOT_CONTAINS` `NOT_EMPTY` `NOT_NULL` `NOT_HAS_KEY` `NOT_HAS_VALUE`", "the operator with `not: true`"},
		{"Datadog", "`is` `isNot` `lessThan` `moreThan`", "`equals`, `equals` with `not`, `lessThan`, `greaterThan`"},
		{"Datadog", "`validatesJSONPath` `validatesXPath` `validatesJSONSchema`", "the sources `jsonpath` and `xpath`; the operator `matchesSchema`"},
		{"Datadog", "`atLeastOneElementMatches` `everyElementMatches`", "`quantifier: any`, `quantifier: all`"},
		{"Datadog", "`isInMoreThan` days (certificate)", "`{source: certificate, property: daysUntilExpiry, operator: greaterThan, expected: 14}`"},
		{"Datadog", "`isUndefined`", "`exists` with `not`"},
		{"Datadog", "`md5`", "the source `md5`"},
		{"Gatus", "`[STATUS]` `[BODY].x` `[RESPONSE_TIME]` `[IP]` `[CERTIFICATE_EXPIRATION]`", "`status` `jsonpath` `responseTime` `remoteIp` `certificate`"},
		{"Gatus", "`len()` `has()` `any()` `pat()`", "the filter `length`, the operators `exists`, `in`, `matches`"},
		{"Venom", "`ShouldEqual` `ShouldAlmostEqual` `ShouldContainSubstring` `ShouldHappenBefore` `ShouldJSONContain`", "`equals` `approximately` `contains` `before` `containsSubset`"},
	})
}

func generatedTable() string {
	var rows [][]string
	for i := range generated {
		g := &generated[i]
		rows = append(rows, []string{code("{{" + g.Name + "}}"), g.Args, g.Doc, code(g.Example)})
	}
	return table([]string{"value", "in parentheses", "is", "such as"}, rows)
}

func expressionNameTable() string {
	var rows [][]string
	for _, n := range expressionNames {
		rows = append(rows, []string{code(n.Name), n.Doc})
	}
	return table([]string{"name", "is"}, rows) + "\n"
}

func authTable() string {
	var rows [][]string
	for _, a := range AuthTypes() {
		rows = append(rows, []string{code(string(a.Type)), codes(a.Required), a.Doc})
	}
	return table([]string{"type", "needs", "is"}, rows)
}

func judgingLimits() string {
	row := func(what string, n any) []string { return []string{what, fmt.Sprint(n)} }
	return table([]string{"what", "at most"}, [][]string{
		row("assertions of a step", limits.MaxAssertions),
		row("captures of a step", limits.MaxCaptures),
		row("filters of an assertion or a capture", limits.MaxFilters),
		row("bytes of a property, so of a JSONPath, an XPath, a selector", limits.MaxProperty),
		row("bytes of a regular expression", limits.MaxPattern),
		row("bytes of text that a regular expression is run over", limits.MaxMatchInput),
		row("values that a path or a selector selects", limits.MaxSelected),
		row("JSON values in a response, and levels deep", fmt.Sprintf("%d, %d", limits.MaxResponseNodes, limits.MaxResponseDepth)),
		row("bytes of XML or HTML, elements or attributes, and elements deep", fmt.Sprintf("%d, %d, %d", limits.MaxMarkupBytes, limits.MaxMarkupNodes, limits.MaxMarkupDepth)),
		row("time of one path or selector", limits.SelectorTime),
		row("bytes of an expression, and its time", fmt.Sprintf("%d, %s", limits.MaxExpression, limits.ExpressionTime)),
		row("values that an expression looks at or makes, and bytes of text", fmt.Sprintf("%d, %d", limits.MaxExpressionWork, limits.MaxExpressionText)),
		row("schemas of a test, bytes of one, and of all", fmt.Sprintf("%d, %d, %d", limits.MaxSchemas, limits.MaxSchemaBytes, limits.MaxSchemasBytes)),
		row("JSON values of a schema, and subschemas that it reaches", fmt.Sprintf("%d, %d", limits.MaxSchemaValues, limits.MaxSchemaNodes)),
		row("steps of judging by a schema, and its time", fmt.Sprintf("%d, %s", limits.MaxSchemaSteps, limits.SchemaTime)),
		row("time of all assertions and captures of a step together", limits.JudgeTime),
		row("bytes of an actual or expected value in a result; of a longer one the beginning and its length are told", limits.MaxActual),
	})
}
