// Package app wires the rooms together: it is the only one that may see all of them. It holds what each command runs and
// the tests of the whole program, and decides nothing that a room could decide.
package app
