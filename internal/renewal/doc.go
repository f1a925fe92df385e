// Package renewal is the loop that keeps a fleet's certificates alive: who is
// worked on next, how fast the CA is asked, how long the fleet lasts without
// it. It belongs to the core: it does no I/O, and its clock is handed in.
//
// A Scheduler (scheduler.go) decides and knows nothing of goroutines: it is
// offered the devices that are due and asked for the next one. The loop
// (loop.go) drives it with real time and real devices; the forecast
// (runway.go) drives the same one with a clock of its own.
package renewal
