package tpm

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// administer runs an operation of the machine's owner on the TPM.
func administer(t *testing.T, peer *testpeer.SWTPM, operation func(*channel) error) {
	t.Helper()
	c, err := open(peer.Socket())
	if err != nil {
		t.Fatal(err)
	}
	err = operation(c)
	if err := errors.Join(err, c.close()); err != nil {
		t.Fatal(err)
	}
}

// persist makes a storage root key persistent, or takes it away again.
func persist(template tpm2.TPMTPublic) func(*channel) error {
	return func(c *channel) error {
		made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(c)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: srkHandle,
		}.Execute(c)
		return errors.Join(err, flush(c, made.ObjectHandle))
	}
}

func evict(c *channel) error {
	found, err := tpm2.ReadPublic{ObjectHandle: srkHandle}.Execute(c)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: srkHandle, Name: found.Name}, PersistentHandle: srkHandle,
	}.Execute(c)
	return err
}

func signOnce(t *TPM, der []byte) error {
	key, err := t.Load(der)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(nil)
	_, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return err
}

// The storage root key that somebody made persistent is used, of whichever
// kind, and named as the parent. Where it is taken away again, keys work on if
// it was the standard one.
func TestPersistentRoot(t *testing.T) {
	for name, test := range map[string]struct {
		template tpm2.TPMTPublic
		standard bool
	}{
		"ECC": {srkTemplate(), true},
		"RSA": {tpm2.RSASRKTemplate, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := testpeer.StartSWTPM(t)
			device := New(peer.Socket())
			_, before, err := device.Generate(fleet.ECDSAP256)
			if err != nil {
				t.Fatal(err)
			}
			administer(t, peer, persist(test.template))
			_, der, err := device.Generate(fleet.ECDSAP256)
			if err != nil {
				t.Fatal(err)
			}
			l, err := decode(der, oidLoadable())
			if err != nil || l.parent != srkHandle {
				t.Fatalf("the parent is %#x, %v", uint32(l.parent), err)
			}
			for _, key := range [][]byte{before, der} {
				if err := signOnce(device, key); err != nil {
					t.Error(err)
				}
			}
			administer(t, peer, evict)
			if err := signOnce(device, der); test.standard != (err == nil) || !test.standard && !errors.Is(err, ErrOther) {
				t.Errorf("without the persistent key: %v", err)
			}
			if err := signOnce(device, before); err != nil {
				t.Error(err)
			}
		})
	}
}

// The owner hierarchy has a password: only a persistent root helps, and the
// error says so.
func TestOwnerPassword(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	device := New(peer.Socket())
	administer(t, peer, func(c *channel) error {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("owner")}}.Execute(c)
		return err
	})
	for range 5 {
		if err := device.Check(); err == nil || !strings.Contains(err.Error(), "0x81000001") {
			t.Errorf("with a password: %v", err)
		}
	}
}

// Something that is no TPM answers: nothing is believed, and nothing hangs.
func TestNoTPM(t *testing.T) {
	header := func(size uint32, code uint32, rest ...byte) []byte {
		out := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, size)
		return append(binary.BigEndian.AppendUint32(out, code), rest...)
	}
	dir, err := os.MkdirTemp("", "tpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, answer := range map[string][]byte{
		"nothing":      nil,
		"half":         header(10, 0)[:5],
		"too small":    header(9, 0),
		"too large":    header(maxResponse+1, 0),
		"too long":     header(10, 0, 1, 2, 3),
		"empty":        header(10, 0),
		"lists":        header(18, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"unknown code": header(10, 0xffffffff),
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", ""))
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				for command := make([]byte, maxResponse); ; {
					if _, err := conn.Read(command); err != nil {
						break
					}
					if _, err := conn.Write(answer); err != nil || len(answer) < headerSize {
						break
					}
				}
				_ = conn.Close()
			}
		}()
		if _, _, err := New(path).Generate(fleet.ECDSAP256); err == nil {
			t.Errorf("%s: a key was made", name)
		}
		_ = listener.Close()
	}
}
