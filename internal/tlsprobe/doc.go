// Package tlsprobe looks at what a device's TLS server presents to its
// clients. It implements enrol.Prober.
//
// # Where it connects
//
// The endpoint comes from the device, so it is somebody else's word: a device
// in the wrong hands could name any host and port, and learn from how the
// probe ends, and how fast, what the CLM's network holds (server-side request
// forgery). So the host has to be the device's own address, by which the CLM
// has just reached it, and only the port is the device's to choose; no name of
// the device's choice is ever resolved. Other hosts (a gateway in front of the
// device) are for the operator to allow, as networks, addresses or names. An
// endpoint that the operator wrote down needs no permission.
//
// # What counts
//
// The leaf certificate of a finished handshake has the expected SHA-256, or
// that of one in which the server asked for a client certificate: by then it
// has signed with the certificate's key (RFC 8446 section 4.4.3, RFC 5246
// section 7.4.3), whatever it says to a client that has none. Names, dates and
// chains are not judged here: the enrolment has done that. STARTTLS is not
// spoken.
package tlsprobe
