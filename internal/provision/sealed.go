package provision

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Sealer keeps small secrets so that only this machine opens them: a TPM.
type Sealer interface {
	Name() string                         // what the file says sealed it
	Seal(secret []byte) ([]byte, error)   // 32 bytes at the most
	Unseal(sealed []byte) ([]byte, error) // what Seal sealed
}

// ErrSealed is wrapped when a file is sealed and there is no Sealer of its kind.
var ErrSealed = errors.New("sealed, and there is nothing here to open it with")

// envelope is a sealed file. What is in it is encrypted by AES-256-GCM, with the
// file's name as additional data, and a key that is fresh at each write and is
// itself sealed: a TPM takes no more than 128 bytes, and what is beside the
// identity-based key is not to be changed by others either.
type envelope struct {
	Version int    `json:"version"`
	By      string `json:"sealed_by"`
	Key     []byte `json:"sealed_key"`
	Data    []byte `json:"data"` // nonce, ciphertext, tag
}

const (
	// sealedVersion is one that releases before it refuse in identity.json.
	sealedVersion = 2
	// sealedFactor is how much longer than its content an envelope may be, the
	// sealed key aside.
	sealedFactor = 2
	maxSealedKey = 8 << 10 // bytes
)

// asEnvelope reports whether a file is sealed.
func asEnvelope(data []byte) (envelope, bool) {
	var e envelope
	err := json.Unmarshal(data, &e)
	return e, err == nil && e.By != ""
}

// Sealed reports whether what is provisioned is sealed: one of the files is.
func (s Store) Sealed() (bool, error) {
	for _, name := range names() {
		_, sealed, err := s.stored(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || sealed {
			return sealed, err
		}
	}
	return false, nil
}

func names() []string { return []string{RecipientFile, IdentityFile} }

func bound(name string) int64 {
	if name == RecipientFile {
		return maxRecipient
	}
	return maxIdentity
}

// stored reads a file as it is. The caller clears it.
func (s Store) stored(name string) (data []byte, sealed bool, err error) {
	data, err = keyfile.ReadSecret(s.path(name), sealedFactor*bound(name)+maxSealedKey)
	if err != nil {
		return nil, false, err
	}
	_, sealed = asEnvelope(data)
	return data, sealed, nil
}

// read returns the content of a file, sealed or not. The caller clears it.
func (s Store) read(name string) ([]byte, error) {
	data, sealed, err := s.stored(name)
	if err != nil {
		return nil, err
	}
	if sealed {
		e, _ := asEnvelope(data)
		if data, err = s.unseal(name, e); err != nil {
			return nil, err
		}
	}
	if int64(len(data)) > bound(name) {
		clear(data)
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFile, bound(name))
	}
	return data, nil
}

func (s Store) unseal(name string, e envelope) ([]byte, error) {
	switch {
	case e.Version != sealedVersion:
		return nil, fmt.Errorf("%w: version %d, this release reads %d", ErrFile, e.Version, sealedVersion)
	case len(e.Key) > maxSealedKey:
		return nil, fmt.Errorf("%w: a sealed key of %d bytes", ErrFile, len(e.Key))
	case s.Sealer == nil || s.Sealer.Name() != e.By:
		return nil, fmt.Errorf("%w: by %.20q", ErrSealed, e.By)
	}
	key, err := s.Sealer.Unseal(e.Key)
	if err != nil {
		return nil, sealerError{err}
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	data, err := aead.Open(nil, nil, e.Data, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%w: it was changed since it was sealed", ErrFile)
	}
	return data, nil
}

// write makes a file durable, sealed if the store is to seal or if anything
// that is provisioned is sealed already. create refuses a file that exists.
func (s Store) write(name string, data []byte, create bool) error {
	seal := s.Seal
	if !seal {
		var err error
		if seal, err = s.Sealed(); err != nil {
			return err
		}
	}
	if seal {
		sealed, err := s.seal(name, data)
		if err != nil {
			return err
		}
		data = sealed
	}
	if create {
		return s.Files.CreateDurable(s.path(name), data, keyfile.SecretPerm)
	}
	return s.Files.WriteDurable(s.path(name), data, keyfile.SecretPerm)
}

// sealerError is an error of a Sealer. What a Sealer misses is none of our files:
// an endpoint whose TPM is missing is not one without identity.
type sealerError struct{ err error }

func (e sealerError) Error() string { return "unseal: " + e.err.Error() }

// Is implements errors.Is for all but fs.ErrNotExist.
func (e sealerError) Is(target error) bool {
	return target != fs.ErrNotExist && errors.Is(e.err, target)
}

func (s Store) seal(name string, data []byte) ([]byte, error) {
	if s.Sealer == nil {
		return nil, fmt.Errorf("seal %s: %w", name, ErrSealed)
	}
	key := make([]byte, 32)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	sealedKey, err := s.Sealer.Seal(key)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	out, err := json.MarshalIndent(envelope{sealedVersion, s.Sealer.Name(), sealedKey, aead.Seal(nil, nil, data, []byte(name))}, "", " ") //nolint:gosec // the nonce is random, see newAEAD
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return append(out, '\n'), nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%w: the sealed key has %d bytes", ErrFile, len(key))
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// SealFiles seals what is provisioned and not sealed yet. Flash memory may keep
// what was there before: only a key that is issued anew was never on it. The
// caller keeps other processes off the directory.
func (s Store) SealFiles() (changed bool, err error) {
	s.Seal = true
	for _, name := range names() {
		data, sealed, err := s.stored(name)
		if errors.Is(err, fs.ErrNotExist) || sealed {
			continue
		}
		if err == nil {
			err = s.write(name, data, false)
			clear(data)
		}
		if err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}
