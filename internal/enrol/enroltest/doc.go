// Package enroltest is a plant without network and disk, for tests of what
// stands on package enrol: devices and a CA as their specifications have them,
// a store in memory, and faults to inject into each. An enrolment costs about
// a millisecond, so that a test may make tens of thousands.
//
// The devices of a Plant sign their statements with a stand-in for identity-based
// signatures (Stamp), which proves nothing and costs nothing.
package enroltest
