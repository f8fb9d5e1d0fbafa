package testspec_test

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// TestOpenAPI_isTheTables: the enumerations and limits in the contract are those of the tables and of limits.go.
func TestOpenAPI_isTheTables(t *testing.T) {
	data, err := os.ReadFile("../../openapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Enum       []string          `yaml:"enum"`
		MaxItems   int               `yaml:"maxItems"`
		MaxLength  int               `yaml:"maxLength"`
		Maximum    int               `yaml:"maximum"`
		Default    any               `yaml:"default"`
		Properties map[string]schema `yaml:"properties"`
	}
	var doc struct {
		Components struct {
			Schemas map[string]schema `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	s := doc.Components.Schemas
	request := s["StepRequest"].Properties
	auth := s["StepAuth"].Properties
	var authTypes []string
	for _, a := range testspec.AuthTypes() {
		authTypes = append(authTypes, string(a.Type))
	}
	var filters []string
	for name := range s["FilterRule"].Properties {
		filters = append(filters, name)
	}
	slices.Sort(filters)
	for name, c := range map[string]struct{ got, want any }{
		"filters":      {filters, slices.Sorted(slices.Values(testspec.FilterNames()))},
		"filter count": {s["FilterRules"].MaxItems, limits.MaxFilters},
		"quantifiers":  {s["Quantifier"].Enum, testspec.Quantifiers()},
		"sources":      {s["Source"].Enum, testspec.SourceNames()},
		"operators":    {s["Operator"].Enum, testspec.OperatorNames()},
		"severities":   {s["Assertion"].Properties["severity"].Enum, testspec.Severities()},
		"versions":     {request["httpVersion"].Enum, testspec.HTTPVersions()},
		"steps":        {s["Steps"].MaxItems, limits.MaxSteps},
		"assertions":   {s["Step"].Properties["assertions"].MaxItems, limits.MaxAssertions},
		"captures":     {s["Step"].Properties["captures"].MaxItems, limits.MaxCaptures},
		"url":          {request["url"].MaxLength, limits.MaxURL},
		"maxRedirects": {request["maxRedirects"].Maximum, limits.MaxRedirects},
		"redirects":    {request["maxRedirects"].Default, limits.DefaultMaxRedirects},
		"property":     {s["Assertion"].Properties["property"].MaxLength, limits.MaxProperty},
		"auth types":   {auth["type"].Enum, authTypes},
		"algorithms":   {auth["algorithm"].Enum, testspec.JWTAlgorithms()},
		"credential":   {auth["password"].MaxLength, limits.MaxCredential},
		"parts":        {s["StepBodyRule"].Properties["multipart"].MaxItems, limits.MaxParts},
		"content type": {s["StepBodyRule"].Properties["contentType"].MaxLength, limits.MaxContentType},
		"capture name": {s["CaptureRule"].Properties["name"].MaxLength, limits.MaxVariableName},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-ours +openapi.yaml):\n%s", name, diff)
		}
	}
}
