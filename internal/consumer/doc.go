// Package consumer serves the rest of the machine: it puts the device's active
// pair where each of its services looks for it, with the owner and the modes
// that the service needs, and runs the service's hook.
//
// # Layout
//
// The files of one consumer are a set, in a directory of their own:
//
//	<dir>/.v-<fingerprint>/   one version of the set; never changed once complete
//	<dir>/current             symbolic link to the version in use
//	<dir>/cert.pem, ...       symbolic links into current, made once
//
// A version is written beside the one in use, made durable, and then switched
// to by one rename of the link. A reader that resolves current once, and opens
// its files there, therefore never sees the key of one pair and the certificate
// of another, and neither does one that opens combined.pem alone. One that
// opens <dir>/key.pem and <dir>/cert.pem one after the other can meet the
// switch in between; it is told to load again by its hook, which runs after
// the switch. The version before stays until the next switch, so that going
// back to it writes nothing but the link.
//
// The fingerprint is a hash of the content and of how it is to be presented.
// What is there already is not written again, which also makes publishing the
// same as resuming after a crash.
//
// The directory and its versions belong to the agent; only the files in them
// are given away. A consumer could otherwise have an agent that runs as root
// give away any file of the machine.
package consumer
