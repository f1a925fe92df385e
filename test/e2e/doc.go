// Package e2e tests the whole of edgeclm on its real parts, in one process: the
// core's runner with the SQLite inventory, the DTLS channel on loopback, the
// device's agent on a disk, the SCEP client, and the lab CA.
//
// The commands themselves are tested in internal/cli and by the demonstration.
package e2e
