package custody_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func dealRecovery(t testing.TB, recovery custody.Hash, threshold int, names ...string) ([]byte, []*custody.RecoveryShare, *custody.RecoverySharing) {
	t.Helper()
	secret, shares, s, err := custody.DealRecovery(rand.Reader, recovery, threshold, names)
	if err != nil {
		t.Fatal(err)
	}
	return secret, shares, s
}

func sealRecovery(t testing.TB, x *custody.RecoveryShare, h holder) []byte {
	t.Helper()
	sealed, err := x.Seal(h.to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// Sealed, opened with the description as it was written and read, and brought
// together, the shares make the secret.
func TestRecoveryShares(t *testing.T) {
	h := newHolder(t)
	secret, dealt, s := dealRecovery(t, custody.Hash{1}, 3, names...)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := custody.ParseRecoverySharing(data)
	if err != nil || read.ID() != s.ID() || read.Recovery() != s.Recovery() || read.Threshold() != 3 || !slices.Equal(read.Holders(), names) {
		t.Fatalf("%+v, %v", read, err)
	}
	var shares []*custody.RecoveryShare
	for i, x := range dealt {
		opened, err := custody.OpenRecovery(sealRecovery(t, x, h), h.opener, read)
		if err != nil || opened.Index() != i+1 || opened.Holder != names[i] {
			t.Fatalf("%v, %v", opened, err)
		}
		shares = append(shares, opened)
	}
	for _, chosen := range [][]*custody.RecoveryShare{shares[:3], {shares[4], shares[0], shares[2]}, shares} {
		if got, err := custody.TogetherRecovery(chosen); err != nil || !bytes.Equal(got, secret) {
			t.Fatal(err)
		}
	}
	if _, err := custody.TogetherRecovery(shares[:2]); !errors.Is(err, custody.ErrTooFew) || !strings.Contains(err.Error(), "bring 1 more, of carol, dora, emil") {
		t.Error(err)
	}
	if _, err := custody.TogetherRecovery([]*custody.RecoveryShare{shares[0], shares[1], shares[0]}); !errors.Is(err, custody.ErrTwice) || !strings.Contains(err.Error(), "share 1 of alice") {
		t.Error(err)
	}
	if text := fmt.Sprintf("%v %#v", shares[0], shares[0]); strings.Contains(text, fmt.Sprintf("%x", shares[0].Value())) || strings.Count(text, "share 1 of 5") != 2 {
		t.Error(text)
	}
	if want := "recovery-share-2-bob.01000000.recovery.age"; s.FileName(2) != want {
		t.Errorf("%s, want %s", s.FileName(2), want)
	}
}

// A holder brings a share with another value, sealed as it should be, so that
// nothing opens and nobody knows why: it is named, as is whatever else does not fit.
func TestAttackForgedRecoveryShare(t *testing.T) {
	h := newHolder(t)
	_, shares, s := dealRecovery(t, custody.Hash{1}, 2, names[:3]...)
	_, foreign, _ := dealRecovery(t, custody.Hash{2}, 2, names[:3]...)
	_, again, other := dealRecovery(t, custody.Hash{1}, 2, names[:3]...)
	open := func(x *custody.RecoveryShare) error {
		_, err := custody.OpenRecovery(sealRecovery(t, x, h), h.opener, s)
		return err
	}
	if err := open(foreign[0]); !errors.Is(err, custody.ErrCeremony) {
		t.Error(err)
	}
	if err := open(again[0]); !errors.Is(err, custody.ErrSharing) {
		t.Error(err)
	}
	if _, err := custody.TogetherRecovery([]*custody.RecoveryShare{shares[0], again[1]}); !errors.Is(err, custody.ErrSharing) || other.ID() == s.ID() {
		t.Error(err)
	}
	if err := open(shares[1]); err != nil {
		t.Fatal(err)
	}
	shares[1].Value()[31] ^= 1
	if err := open(shares[1]); !errors.Is(err, ibc.ErrShare) || !strings.Contains(err.Error(), "share 2") {
		t.Error(err)
	}
	shares[1].Value()[31] ^= 1
	shares[1].Holder = "alice" // somebody else's, passed off as the own
	if err := open(shares[1]); !errors.Is(err, ibc.ErrShare) {
		t.Error(err)
	}
	if _, err := custody.OpenRecovery(sealRecovery(t, shares[0], h), newHolder(t).opener, s); !errors.Is(err, bundle.ErrRecipient) {
		t.Error(err)
	}
}

// The same people may hold shares of a master secret and of a recovery key: files
// of the one kind are none of the other, neither shares nor descriptions.
func TestAttackShareOfAnotherKind(t *testing.T) {
	h := newHolder(t)
	masters, sharing := deal(t, setup(t), 2, 1, names[:3]...)
	_, recoveries, recovery := dealRecovery(t, custody.Hash{1}, 2, names[:3]...)
	if _, err := custody.Open(sealRecovery(t, recoveries[0], h), h.opener, sharing); !errors.Is(err, custody.ErrKind) {
		t.Error(err)
	}
	if _, err := custody.OpenRecovery(seal(t, masters[0], h), h.opener, recovery); !errors.Is(err, custody.ErrKind) {
		t.Error(err)
	}
	a, err := sharing.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b, err := recovery.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := custody.ParseRecoverySharing(a); !errors.Is(err, custody.ErrKind) || custody.IsRecoverySharing(a) {
		t.Error(err)
	}
	if _, err := custody.ParseSharing(b); !errors.Is(err, custody.ErrKind) || !custody.IsRecoverySharing(b) {
		t.Error(err)
	}
	if sharing.FileName(1) == recovery.FileName(1) {
		t.Error("files of the same name")
	}
}

// A bit that is flipped at whatever byte is noticed, or changes nothing that is
// said.
func TestRecoverySharesFlippedAnywhere(t *testing.T) {
	h := newHolder(t)
	_, shares, s := dealRecovery(t, custody.Hash{1}, 2, names[:3]...)
	sealed := sealRecovery(t, shares[0], h)
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1 << (i % 8)
		if x, err := custody.OpenRecovery(damaged, h.opener, s); err == nil {
			t.Fatalf("byte %d does not matter: %v", i, x)
		}
	}
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 1 << (i % 8)
		if read, err := custody.ParseRecoverySharing(damaged); err == nil && read.ID() != s.ID() {
			t.Fatalf("byte %d: another sharing", i)
		}
	}
}

// FuzzParseRecoverySharing: what is taken is written the same.
func FuzzParseRecoverySharing(f *testing.F) {
	_, _, s := dealRecovery(f, custody.Hash{1}, 2, names[:3]...)
	data, err := s.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"kind":"recovery-shares","threshold":2,"holders":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := custody.ParseRecoverySharing(data)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := custody.ParseRecoverySharing(again); err != nil || read.ID() != s.ID() {
			t.Fatalf("%v", err)
		}
	})
}

// FuzzRecoveryShare: nothing is taken but the values that were dealt.
func FuzzRecoveryShare(f *testing.F) {
	h := newHolder(f)
	_, shares, s := dealRecovery(f, custody.Hash{1}, 2, names[:2]...)
	genuine, err := h.opener.Unseal(sealRecovery(f, shares[0], h))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := custody.ParseRecoveryShare(genuine, s); err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	f.Add(bytes.Replace(genuine, []byte(`"index":1`), []byte(`"index":2`), 1))
	f.Add([]byte(`{"version":1,"kind":"recovery-share","value":"00"}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		x, err := custody.ParseRecoveryShare(plain, s)
		if err == nil && !bytes.Equal(x.Value(), shares[x.Index()-1].Value()) {
			t.Fatal("another value holds")
		}
	})
}
