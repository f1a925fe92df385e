// Package ibc implements the identity-based keys of edgeclm: suite
// edgeclm/v1/bls12381, Cha-Cheon identity-based signatures (ISO/IEC 14888-3,
// IBS-2) over BLS12-381, and the statements that the Private Key Generator
// (PKG) signs with its master secret.
//
// The public key of an identity is a point that anyone computes from the
// identity's name; the matching private key is extracted by the PKG alone. So
// no public key has to be distributed, and the identifier of the PKG's public
// parameters (Params.ID) is the single root of trust.
//
// Sources: J. C. Cha and J. H. Cheon, "An Identity-Based Signature from Gap
// Diffie-Hellman Groups" (PKC 2003); RFC 9380 (hashing to elliptic curves);
// draft-irtf-cfrg-pairing-friendly-curves (the curve, its encodings and its
// security level); D. Boneh, B. Lynn, H. Shacham, "Short Signatures from the
// Weil Pairing" (the PKG statements); A. Shamir, "How to Share a Secret", and
// P. Feldman, "A Practical Scheme for Non-interactive Verifiable Secret Sharing"
// (a master secret in shares, and keys that are made without it).
//
// The package is pure: it reads no clock, file or network, and randomness is
// handed in. Scalar multiplications with secrets are those of
// github.com/cloudflare/circl, which are constant-time.
package ibc

// Suite names the algorithms and encodings of this package; it is part of
// every parameter identifier.
const Suite = "edgeclm/v1/bls12381"

// Sizes of the encodings, in bytes.
const (
	PublicKeySize  = 48 // Q: compressed G1
	PrivateKeySize = 48 // d: compressed G1
	SignatureSize  = 96 // U||V: two compressed G1 points
	StatementSize  = 48 // S: compressed G1
	PpubSize       = 96 // Ppub: compressed G2
	ScalarSize     = 32 // big-endian
	ParamsIDSize   = 32 // SHA-256
)

// Domain separation tags of the three hash functions (RFC 9380 section 3.1).
const (
	dstIdentity  = "EDGECLM-V1-IBS_BLS12381G1_XMD:SHA-256_SSWU_RO_"
	dstChallenge = "EDGECLM-V1-CHALLENGE_XMD:SHA-256_"
	dstStatement = "EDGECLM-V1-PKGSIG_BLS12381G1_XMD:SHA-256_SSWU_RO_"
)
