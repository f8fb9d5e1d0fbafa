package app

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// demoTickName is the name of the first of the demo's tests, which runs every few seconds.
const demoTickName = "List pets"

// demoTests returns the tests that the demo project starts with as POST /api/tests takes them.
func demoTests(projectID, environmentID uuid.UUID) []json.RawMessage {
	home := fmt.Sprintf(`{"projectId": %q, "environmentId": %q,`, projectID, environmentID)
	bodies := make([]json.RawMessage, 0, len(demoBodies))
	for _, b := range demoBodies {
		bodies = append(bodies, json.RawMessage(home+strings.TrimPrefix(b, "{")))
	}
	return bodies
}

// demoBodies are the demo's tests less project and environment, one for each kind of result.
var demoBodies = []string{
	`{
  "name": "List pets",
  "tags": ["smoke", "fast"],
  "steps": [{
    "name": "list",
    "request": {"method": "GET", "url": "{{base}}/pets", "headers": {"Accept": "application/json"}},
    "assertions": [
      {"source": "status", "operator": "equals", "expected": 200},
      {"source": "header", "property": "content-type", "operator": "contains", "expected": "json"},
      {"source": "jsonpath", "property": "$.total", "operator": "equals", "expected": 3},
      {"source": "responseTime", "operator": "lessThan", "expected": 500, "severity": "soft"}
    ]
  }]
}`,
	`{
  "name": "Sign in and read the profile",
  "tags": ["smoke"],
  "variables": {"user": "ada"},
  "steps": [{
    "name": "sign in",
    "request": {"method": "POST", "url": "{{base}}/login", "body": {"json": {"user": "{{user}}"}}},
    "assertions": [{"source": "status", "operator": "equals", "expected": 201}],
    "captures": [{"name": "token", "source": "jsonpath", "property": "$.token"}]
  }, {
    "name": "read the profile",
    "request": {"method": "GET", "url": "{{base}}/profile", "headers": {"Authorization": "Bearer {{token}}"}},
    "assertions": [
      {"source": "status", "operator": "equals", "expected": 200},
      {"source": "jsonpath", "property": "$.user", "operator": "equals", "expected": "{{user}}"}
    ]
  }]
}`,
	`{
  "name": "Slow endpoint",
  "tags": ["slow"],
  "steps": [{
    "name": "wait for it",
    "request": {"method": "GET", "url": "{{base}}/slow"},
    "assertions": [
      {"source": "status", "operator": "equals", "expected": 200},
      {"source": "responseTime", "operator": "lessThan", "expected": 3000}
    ]
  }]
}`,
	`{
  "name": "Flaky endpoint (every third call fails)",
  "tags": ["flaky"],
  "steps": [{
    "name": "ask",
    "request": {"method": "GET", "url": "{{base}}/flaky"},
    "assertions": [
      {"source": "status", "operator": "equals", "expected": 200},
      {"source": "jsonpath", "property": "$.status", "operator": "equals", "expected": "up"}
    ]
  }]
}`,
	`{
  "name": "Broken endpoint (always fails)",
  "tags": ["broken"],
  "steps": [{
    "name": "ask",
    "request": {"method": "GET", "url": "{{base}}/broken"},
    "assertions": [
      {"source": "status", "operator": "equals", "expected": 200},
      {"source": "body", "operator": "contains", "expected": "fine"}
    ]
  }]
}`,
	`{
  "name": "Old address redirects to the new one",
  "tags": ["smoke"],
  "steps": [{
    "name": "follow",
    "request": {"method": "GET", "url": "{{base}}/old-pets", "query": {"kind": "cat"}, "followRedirects": true},
    "assertions": [{"source": "status", "operator": "equals", "expected": 200}]
  }]
}`,
	`{
  "name": "Unknown host (cannot be reached)",
  "tags": ["broken"],
  "steps": [{
    "name": "ask",
    "request": {"method": "GET", "url": "http://nobody.invalid/"},
    "assertions": [{"source": "status", "operator": "equals", "expected": 200}]
  }]
}`,
}
