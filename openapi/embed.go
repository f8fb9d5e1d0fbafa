// Package openapi holds the contract of the REST API. The document is written by hand and comes first; code and docs
// follow it. The package serves nothing and interprets nothing.
package openapi

import _ "embed"

// YAML is openapi.yaml, an OpenAPI 3.1 document.
//
//go:embed openapi.yaml
var YAML []byte
