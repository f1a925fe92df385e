//go:build race

package keyfiletest

// Step is how many operations lie between the cuts of a test that pays pairings
// for each; see the other build.
const Step = 7
