// Package tpm keeps private keys in a Trusted Platform Module (TPM 2.0, TCG
// Library Specification, ISO/IEC 11889).
//
// Signing keys are made in the TPM and never exist outside: what is stored is
// encrypted by the TPM to its own storage root key, in the ASN.1 of
// draft-bottomley-tpm2-keys, which OpenSSL's tpm2 provider reads. Other secrets
// of up to MaxSealed bytes are sealed in the same way.
//
// Neither has a password or is bound to measurements of the boot (PCRs), so
// that an update of the firmware strands nobody: whoever has the stored bytes
// and may send commands to this TPM can use them. They are worthless without
// it.
//
// The TPM is opened for each operation and left empty after it, so that it need
// not have a resource manager and others can use it too. All commands that
// carry something of worth run in sessions with HMAC and encrypted parameters
// (Library Specification part 1, clauses 17 and 19), salted by the storage root
// key: a listener on the bus learns nothing. An attacker who changes what the
// bus carries is not kept out.
package tpm
