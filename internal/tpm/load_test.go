package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/tpm"
)

// stored returns what an earlier release stored, made by a TPM that is no more.
func stored(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != tpm.PEMType || len(rest) > 0 {
		t.Fatalf("%s holds %+v", name, block)
	}
	return block.Bytes
}

// nowhere is a machine without TPM.
func nowhere(t testing.TB) *tpm.TPM { return tpm.New(filepath.Join(t.TempDir(), "none")) }

// What was written once stays readable, and reading does not need the TPM.
func TestLoad(t *testing.T) {
	for name, bits := range map[string]int{"ecdsa-p256": 256, "ecdsa-p384": 384, "rsa-2048": 2048} {
		key, err := nowhere(t).Load(stored(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got int
		switch k := key.Public().(type) {
		case *ecdsa.PublicKey:
			got = k.Params().BitSize
		case *rsa.PublicKey:
			got = k.N.BitLen()
		}
		if got != bits {
			t.Errorf("%s: a key of %d bits", name, got)
		}
	}
	if _, err := nowhere(t).Unseal(stored(t, "sealed")); !errors.Is(err, tpm.ErrUnavailable) {
		t.Errorf("sealed: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := stored(t, "ecdsa-p256")
	var fields []asn1.RawValue
	if _, err := asn1.Unmarshal(good, &fields); err != nil || len(fields) != 5 {
		t.Fatal(len(fields), err)
	}
	// with changes bytes in one of the fields.
	with := func(field int, change func([]byte)) []byte {
		out := bytes.Clone(good)
		at := bytes.Index(out, fields[field].FullBytes)
		change(out[at : at+len(fields[field].FullBytes)])
		return out
	}
	// The attributes follow tag and length, the size of the TPM2B, type and hash.
	const attributes = 2 + 2 + 2 + 2
	for name, bad := range map[string][]byte{
		"empty":               nil,
		"trailing byte":       append(bytes.Clone(good), 0),
		"truncated":           good[:len(good)-1],
		"oversized":           append(bytes.Clone(good), make([]byte, 9<<10)...),
		"a sealed secret":     stored(t, "sealed"),
		"with password":       with(1, func(b []byte) { b[len(b)-1] = 0 }),
		"BOOLEAN of 1":        with(1, func(b []byte) { b[len(b)-1] = 1 }),
		"another hierarchy":   with(2, func(b []byte) { b[len(b)-1] = 0x0b }),
		"not from the TPM":    with(3, func(b []byte) { b[attributes+3] &^= 1 << 5 }),
		"exportable":          with(3, func(b []byte) { b[attributes+3] &^= 1 << 1 }),
		"off the curve":       with(3, func(b []byte) { b[len(b)-1] ^= 1 }),
		"size in the private": with(4, func(b []byte) { b[4]++ }),
	} {
		if _, err := nowhere(t).Load(bad); !errors.Is(err, tpm.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := nowhere(t).Unseal(good); !errors.Is(err, tpm.ErrFormat) {
		t.Errorf("a key unsealed: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"ecdsa-p256", "ecdsa-p384", "rsa-2048", "sealed"} {
		f.Add(stored(f, name))
	}
	none := nowhere(f)
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := none.Load(der)
		if err != nil {
			if !errors.Is(err, tpm.ErrFormat) {
				t.Errorf("%x: %v", der, err)
			}
			return
		}
		if _, err := x509.MarshalPKIXPublicKey(key.Public()); err != nil {
			t.Errorf("%x: %v", der, err)
		}
	})
}
