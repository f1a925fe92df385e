// Package agent is the device's side of a delegated enrolment: it makes and
// keeps the private key of the device's certificate, answers the requests of
// the Certificate Lifecycle Management (CLM) side, and switches the device to
// a new certificate.
//
// # State directory
//
// One directory, 0700, all files 0600, one agent at a time:
//
//	recipient.key, identity.json
//	                who the device is; see package provision
//	peers.json      highest (epoch, generation) of each CLM, verified bindings
//	state.json      which pair is pending, active, previous; pinned anchors
//	pairs/<id>/     one pair per enrolment: key.pem, cert.pem, chain.pem, ca.pem
//	active          symbolic link to the active pair
//	first-boot.json what FirstBoot has accepted and not yet wiped
//	reset           a Reset was begun
//
// Every change is one atomic rename: of state.json, which says what each pair
// is, or of cert.pem, whose presence says that a pair is complete. The link
// follows state.json and is repaired at each start, so that whoever reads
// active/key.pem and active/cert.pem finds one complete, matching pair whatever
// moment the power failed at. What no file refers to is swept.
//
// # Services
//
// CSR and Verify are the paper's CSR_generation_request and verify_certificate
// (section IV.B); Activate, Confirm, Rollback and Status surround them. They
// may be repeated with the same arguments. Refusals are *enrol.DeviceError; any
// other error says that the device itself failed.
package agent
