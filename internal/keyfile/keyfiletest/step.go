//go:build !race

package keyfiletest

// Step is how many operations lie between the cuts of a test that pays pairings
// for each: 1, and more under the race detector, where a pairing costs ten times
// as much. scripts/test.sh runs such tests without it as well.
const Step = 1
