// Command testflow is the platform in one binary.
package main

func main() {}
