// Package pkimessage encodes and decodes the pkiMessage of SCEP (RFC 8894
// section 3): signed data around enveloped data, with the attributes of the
// protocol. Client and lab CA share it.
//
// It stands on github.com/smallstep/pkcs7 directly, because
// github.com/smallstep/scep makes transaction IDs that some CAs refuse, knows
// no CertPoll, and takes the first of several signers or attributes. What that
// library reads is bounded and its structure checked beforehand, and a panic in
// it is an error here.
package pkimessage

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// Errors of this package.
var (
	// ErrMalformed: the message is not what RFC 8894 says.
	ErrMalformed = errors.New("malformed SCEP message")
	// ErrSignature: the message is not signed by whom it should be.
	ErrSignature = errors.New("SCEP message not signed as it should be")
	// ErrEnvelope: the content cannot be decrypted. The reason is never told:
	// it would make an oracle (RFC 3218).
	ErrEnvelope = errors.New("the content of the SCEP message cannot be decrypted")
	// ErrConfiguration: Configure has not been called.
	ErrConfiguration = errors.New("the algorithms of the PKCS#7 library are not configured")
)

// MaxMessage bounds a message in bytes.
const MaxMessage = 128 << 10

// Configure sets the algorithms of the PKCS#7 library, which are variables of
// the process: AES-128-CBC, the one that the capabilities AES and SCEPStandard
// stand for (RFC 8894 section 3.5.2), and SHA-256. The library's own defaults
// are DES and SHA-1. Call it once, before anything else runs.
func Configure() error {
	if err := pkcs7.SetDefaultDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256); err != nil {
		return fmt.Errorf("configure PKCS#7: %w", err)
	}
	if Configured() {
		return nil
	}
	pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES128CBC
	pkcs7.KeyEncryptionAlgorithm = pkcs7.OIDEncryptionAlgorithmRSA
	pkcs7.KeyEncryptionHash = crypto.SHA256
	return nil
}

// Configured reports whether Configure has been called and nobody has changed
// the algorithms since.
func Configured() bool {
	return pkcs7.ContentEncryptionAlgorithm == pkcs7.EncryptionAlgorithmAES128CBC &&
		pkcs7.KeyEncryptionAlgorithm.Equal(pkcs7.OIDEncryptionAlgorithmRSA) &&
		pkcs7.KeyEncryptionHash == crypto.SHA256
}

// errPanic: the PKCS#7 library panicked.
var errPanic = fmt.Errorf("%w: the PKCS#7 library panicked", ErrMalformed)

// guard turns a panic of the PKCS#7 library into an error.
func guard(err *error, as error) {
	if recover() != nil {
		*err = as
	}
}
