// Command reference writes docs/test-language.md from the tables of testspec. make generate calls it.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/testflow/testflow/internal/testspec"
)

func main() {
	out := flag.String("o", "docs/test-language.md", "the file that is written")
	flag.Parse()
	if err := os.WriteFile(*out, []byte(testspec.Reference()), 0o644); err != nil { //nolint:gosec // a document for everybody
		log.Fatal(err)
	}
}
