package consumer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"slices"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Bounds of what is read, in bytes.
const (
	maxSource   = 256 << 10
	maxPassword = 1 << 10
)

// pair is the active pair as it is read.
type pair struct{ key, certificate, chain, ca []byte } // key: nil if there is no file

func readPair(at Paths) (p pair, err error) {
	defer func() {
		if err != nil {
			p.destroy()
			err = fmt.Errorf("read the active pair: %w", err)
		}
	}()
	// A key in a TPM need not have a file.
	if p.key, err = keyfile.ReadSecret(at.Key, maxSource); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	for _, f := range []struct {
		to   *[]byte
		path string
	}{{&p.certificate, at.Certificate}, {&p.chain, at.Chain}, {&p.ca, at.CA}} {
		if *f.to, err = keyfile.Read(f.path, maxSource); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p pair) destroy() { clear(p.key) }

// version is what a consumer is to have: its files, and a fingerprint of them
// and of how they are presented.
type version struct {
	names    []string
	pair     pair
	password []byte // of keystore.p12
	mark     string
}

func (c Consumer) version(p pair) (version, error) {
	v := version{names: c.names(), pair: p}
	if p.key == nil {
		if slices.Contains(v.names, CombinedFile) || c.PKCS12Password != "" {
			return v, errors.New("the private key has no file, so it cannot be in combined.pem or keystore.p12: leave them out")
		}
		v.names = slices.DeleteFunc(v.names, func(name string) bool { return name == KeyFile })
	}
	if c.PKCS12Password != "" {
		var err error
		if v.password, err = readPassword(c.PKCS12Password); err != nil {
			return v, err
		}
	}
	h := sha256.New()
	add(h, []byte("edgeclm/consumer/1"), []byte(c.Owner), []byte(c.Group))
	for _, name := range v.names {
		add(h, []byte(name), []byte(c.mode(name).String()))
	}
	// The password is not to be guessed from the fingerprint: the private key,
	// which keystore.p12 needs, is among what is hashed.
	add(h, p.key, p.certificate, p.chain, p.ca, v.password)
	v.mark = hex.EncodeToString(h.Sum(nil)[:16])
	return v, nil
}

// add hashes parts so that no two lists of them look alike.
func add(h hash.Hash, parts ...[]byte) {
	for _, p := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		_, _ = h.Write(p)
	}
}

func (v version) destroy() { clear(v.password) }

// content returns what a file holds; the caller zeroes it.
func (v version) content(name string) ([]byte, error) {
	switch name {
	case KeyFile:
		return slices.Clone(v.pair.key), nil
	case CertFile:
		return slices.Clone(v.pair.certificate), nil
	case ChainFile, FullChainFile:
		return slices.Clone(v.pair.chain), nil
	case CAFile:
		return slices.Clone(v.pair.ca), nil
	case CombinedFile:
		return slices.Concat(v.pair.key, v.pair.chain), nil
	case PKCS12File:
		return encodePKCS12(v.pair, v.password)
	}
	return nil, fmt.Errorf("no file %s is known", name)
}

// readPassword reads the password of keystore.p12, without one trailing
// newline. Its consumer reads the file too, so a group may.
func readPassword(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("read the password: everybody may open %s (chmod o= %s): %w", path, path, keyfile.ErrPermissions)
	}
	data, err := keyfile.Read(path, maxPassword)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	if n := len(data); n > 0 && data[n-1] == '\n' {
		data = data[:n-1]
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("read the password: %s is empty", path)
	}
	return data, nil
}
