package custody_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/custody"
)

// TestShareFlippedAnywhere: a bit that is flipped at whatever byte of a share's
// file is noticed, be it sealed to a key or to a passphrase.
func TestShareFlippedAnywhere(t *testing.T) {
	h := newHolder(t)
	shares, s := deal(t, setup(t), 2, 1, names[:2]...)
	sealed := seal(t, shares[0], h)
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1 << (i % 8)
		if x, err := custody.Open(damaged, h.opener, s); err == nil {
			t.Fatalf("byte %d does not matter: %v", i, x)
		}
	}
	for n := range len(sealed) {
		if _, err := custody.Open(sealed[:n], h.opener, s); err == nil {
			t.Fatalf("cut after %d bytes", n)
		}
	}
}

// TestSharingFlippedAnywhere: a bit that is flipped at whatever byte of
// shares.json is noticed, or changes nothing that is said.
func TestSharingFlippedAnywhere(t *testing.T) {
	h := newHolder(t)
	shares, s := deal(t, setup(t), 2, 1, names[:3]...)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal(t, shares[1], h)
	harmless := 0
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 1 << (i % 8)
		read, err := custody.ParseSharing(damaged)
		if err != nil {
			continue
		}
		harmless++
		if read.ID() != s.ID() {
			t.Fatalf("byte %d: another sharing", i)
		}
		if _, err := custody.Open(sealed, h.opener, read); err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	// White space, and letters of names of members, which Go reads in any case.
	if harmless > len(data)/4 {
		t.Errorf("%d of %d bytes do not matter", harmless, len(data))
	}
}

// FuzzParseSharing: what is taken is what it says, and is written the same.
func FuzzParseSharing(f *testing.F) {
	_, s := deal(f, setup(f), 2, 1, names[:3]...)
	data, err := s.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"params":null,"threshold":1,"holders":[]}`))
	f.Add([]byte(strings.Replace(string(data), `"serial": 1`, `"serial": 0`, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := custody.ParseSharing(data)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := custody.ParseSharing(again); err != nil || read.ID() != s.ID() {
			t.Fatalf("%v", err)
		}
	})
}

// FuzzShare feeds what anybody can seal to a holder.
func FuzzShare(f *testing.F) {
	h := newHolder(f)
	shares, s := deal(f, setup(f), 2, 1, names[:2]...)
	genuine, err := h.opener.Unseal(seal(f, shares[0], h))
	if err != nil {
		f.Fatal(err)
	}
	want, err := shares[0].Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	f.Add(bytes.Replace(genuine, []byte(`"index":1`), []byte(`"index":2`), 1))
	f.Add([]byte(`{"version":1,"value":"00"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		x, err := custody.ParseShare(plain, s)
		if err != nil {
			return
		}
		if got, err := x.Bytes(); err != nil || x.Index() == 1 && !bytes.Equal(got, want) {
			t.Fatalf("another value holds: %v", err)
		}
	})
}
