// Package openapi holds the contracts of the REST API and of the live stream. They are written by hand and come first; code and docs
// follow it. The package serves nothing and interprets nothing.
package openapi

import _ "embed"

// YAML is openapi.yaml, an OpenAPI 3.1 document.
//
//go:embed openapi.yaml
var YAML []byte

// AsyncYAML is asyncapi.yaml, the contract of the live stream, an AsyncAPI 3.0 document.
//
//go:embed asyncapi.yaml
var AsyncYAML []byte
