// Package tui is the dashboard of clmctl watch: what the fleet is doing, on one
// screen that may stay open for weeks.
//
// The dashboard reads the inventory through a Source, page by page and in the
// background, and changes it through Actions; both stand in source.go and are
// implemented by who wires it. The model (model.go) knows nothing of terminals:
// keys, ticks and answers arrive as messages, and a view is a pure function of
// what has arrived. Text from outside passes through clean (text.go) before it
// is shown, so that no device can write to the terminal.
package tui
