// Package scep is a SCEP client (RFC 8894) that enrols on behalf of others: it
// signs requests for CSRs whose keys it does not own with a registration
// authority (RA) key of its own, and implements enrol.CA.
//
// Beyond what SCEP libraries check, an answer counts only if it has exactly one
// signature, by the pinned CA or RA, and returns our nonce and transaction ID.
// Whatever misses one of these may come from anybody who sits on the path, so
// nothing is concluded from it.
package scep

import "github.com/edgeclm/edgeclm/internal/pkimessage"

// Configure sets the algorithms of the PKCS#7 library, which are variables of
// the process, to AES and SHA-256. Main calls it once; New refuses to work
// without.
func Configure() error { return pkimessage.Configure() }
