package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// MaxSealed bounds a sealed secret in bytes (MAX_SYM_DATA, Library
// Specification part 2, annex A).
const MaxSealed = 128

// Seal encrypts a secret so that only this TPM gives it back, to whoever asks.
// What is returned is the content of a PEM block of PEMType.
func (t *TPM) Seal(secret []byte) (sealed []byte, err error) {
	if len(secret) == 0 || len(secret) > MaxSealed {
		return nil, fmt.Errorf("a TPM seals 1 to %d bytes, not %d", MaxSealed, len(secret))
	}
	template := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
	}
	err = t.with(srkHandle, func(r *root) error {
		made, err := r.create(template, tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		})
		if err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		sealed, err = encode(oidSealed(), r.stored, made.OutPublic, made.OutPrivate)
		return err
	})
	return sealed, err
}

// Unseal returns a secret that Seal sealed. Errors wrap ErrFormat, ErrOther or
// ErrUnavailable.
func (t *TPM) Unseal(sealed []byte) (secret []byte, err error) {
	l, err := decode(sealed, oidSealed())
	if err != nil {
		return nil, err
	}
	err = t.with(l.parent, func(r *root) error {
		return r.load(l, func(handle tpm2.TPMHandle, name tpm2.TPM2BName) error {
			unsealed, err := tpm2.Unseal{
				ItemHandle: tpm2.AuthHandle{Handle: handle, Name: name, Auth: r.session(out())},
			}.Execute(r.c)
			if err != nil {
				return fmt.Errorf("unseal: %w", err)
			}
			secret = unsealed.OutData.Buffer
			return nil
		})
	})
	return secret, err
}
