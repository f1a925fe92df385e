package lifeboat_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

func newKey(t testing.TB) (*slhdsa.PrivateKey, [32]byte) {
	t.Helper()
	pub, key, err := slhdsa.GenerateKey(rand.Reader, slhdsa.SHA2_128f)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pub.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := lifeboat.KeyHash(slhdsa.ID.String(key.ID), raw)
	if err != nil {
		t.Fatal(err)
	}
	return &key, hash
}

func newStatement(t testing.TB, serial uint32) lifeboat.Statement {
	t.Helper()
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	return lifeboat.Statement{Serial: serial, Params: m.Params(), Recovery: [32]byte{1, 2, 3}}
}

func sign(t testing.TB, key *slhdsa.PrivateKey, s lifeboat.Statement) ([]byte, *lifeboat.Signed) {
	t.Helper()
	signed, err := lifeboat.Sign(rand.Reader, key, s)
	if err != nil {
		t.Fatal(err)
	}
	data, err := signed.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data, signed
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	key, hash := newKey(t)
	want := newStatement(t, 7)
	data, signed := sign(t, key, want)
	parsed, rest, err := lifeboat.Parse(append(bytes.Clone(data), "sealed"...))
	if err != nil || string(rest) != "sealed" {
		t.Fatal(string(rest), err)
	}
	if parsed.Serial() != 7 || parsed.Digest() != signed.Digest() {
		t.Errorf("serial %d", parsed.Serial())
	}
	got, err := parsed.Verify(hash)
	if err != nil || got.Serial != want.Serial || !got.Params.Equal(want.Params) || got.Recovery != want.Recovery {
		t.Errorf("%+v, %v", got, err)
	}
	again, err := parsed.Marshal()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("another encoding, %v", err)
	}
}

// The parameter set of the product: its name and sizes are part of the format.
func TestProductAlgorithm(t *testing.T) {
	t.Parallel()
	pub, key, err := slhdsa.GenerateKey(rand.Reader, slhdsa.SHA2_128s)
	if err != nil {
		t.Fatal(err)
	}
	data, signed := sign(t, &key, newStatement(t, 1))
	raw, _ := pub.MarshalBinary()
	hash, err := lifeboat.KeyHash("SLH-DSA-SHA2-128s", raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signed.Verify(hash); err != nil {
		t.Error(err)
	}
	// magic 19, LP of document 197, algorithm 17, public key 32, signature 7,856: docs/protocol.md.
	if !bytes.HasPrefix(data, []byte("edgeclm-lifeboat/1\n")) || len(data) != 8118 {
		t.Errorf("%d bytes", len(data))
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	key, hash := newKey(t)
	_, other := newKey(t)
	data, signed := sign(t, key, newStatement(t, 3))
	if _, err := signed.Verify(other); !errors.Is(err, lifeboat.ErrRecoveryKey) {
		t.Errorf("another recovery key: %v", err)
	}
	for _, s := range []uint32{0, lifeboat.MaxSerial + 1} {
		s := newStatement(t, s)
		if _, err := lifeboat.Sign(rand.Reader, key, s); !errors.Is(err, lifeboat.ErrFormat) {
			t.Errorf("serial %d: %v", s.Serial, err)
		}
	}
	for i := 0; i < len(data); i += 1 + i/40 {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		s, rest, err := lifeboat.Parse(bad)
		if err == nil {
			_, err = s.Verify(hash)
		}
		if err == nil && len(rest) == 0 {
			t.Errorf("a flipped bit in byte %d is accepted", i)
		}
	}
	for n := range len(data) {
		if n > 400 && n%97 != 0 {
			continue
		}
		if _, _, err := lifeboat.Parse(data[:n]); !errors.Is(err, lifeboat.ErrFormat) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// What a signature does not cover must not be read: parts behind the document's
// last, a document of another kind, numbers of other sizes.
func TestOtherDocuments(t *testing.T) {
	t.Parallel()
	key, hash := newKey(t)
	good, err := newStatement(t, 3).Document()
	if err != nil {
		t.Fatal(err)
	}
	parts, _, err := ibc.SplitLP(good, 6)
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(i int, with []byte) []byte {
		p := append([][]byte{}, parts...)
		p[i] = with
		document, err := ibc.LP(p...)
		if err != nil {
			t.Fatal(err)
		}
		return document
	}
	for name, document := range map[string][]byte{
		"label":       replaced(0, []byte("edgeclm/v1/anchor")),
		"serial 0":    replaced(1, make([]byte, 4)),
		"serial of 8": replaced(1, binary.BigEndian.AppendUint64(nil, 3)),
		"suite":       replaced(2, []byte("edgeclm/v2")),
		"epoch 0":     replaced(3, make([]byte, 4)),
		"Ppub":        replaced(4, make([]byte, ibc.PpubSize)),
		"recovery":    replaced(5, make([]byte, 31)),
		"more":        append(bytes.Clone(good), 0, 0),
	} {
		signature, err := slhdsa.SignDeterministic(key, slhdsa.NewMessage(document), nil)
		if err != nil {
			t.Fatal(err)
		}
		public, _ := key.PublicKey().MarshalBinary()
		body, err := ibc.LP(document, []byte(slhdsa.ID.String(key.ID)), public, signature)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := lifeboat.Parse(append([]byte("edgeclm-lifeboat/1\n"), body...))
		if err == nil {
			_, err = s.Verify(hash)
		}
		if !errors.Is(err, lifeboat.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFollows(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	statement := newStatement(t, 3)
	_, third := sign(t, key, statement)
	_, signedAgain := sign(t, key, statement)
	_, other := sign(t, key, newStatement(t, 3))
	_, fourth := sign(t, key, newStatement(t, 4))
	_, second := sign(t, key, newStatement(t, 2))
	last := lifeboat.Accepted{Serial: 3, Digest: third.Digest()}
	for name, c := range map[string]struct {
		s     *lifeboat.Signed
		last  lifeboat.Accepted
		again bool
		err   error
	}{
		"the first":             {second, lifeboat.Accepted{}, false, nil},
		"the same":              {third, last, true, nil},
		"the same, signed anew": {signedAgain, last, true, nil},
		"another of its number": {other, last, false, lifeboat.ErrSerial},
		"a later one":           {fourth, last, false, nil},
		"an earlier one":        {second, last, false, lifeboat.ErrSerial},
	} {
		if again, err := c.s.Follows(c.last); again != c.again || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	key, hash := newKey(f)
	statement := newStatement(f, 3)
	data, _ := sign(f, key, statement)
	f.Add(data)
	f.Add([]byte("edgeclm-lifeboat/1\n"))
	f.Add(append(bytes.Clone(data), "age-encryption.org/v1"...))
	want, err := statement.Document()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, rest, err := lifeboat.Parse(data)
		if err != nil {
			if !errors.Is(err, lifeboat.ErrFormat) {
				t.Errorf("%v", err)
			}
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(append(again, rest...), data) {
			t.Errorf("parsed %x, encoded %x", data, again)
		}
		// Nobody but the key's holder makes one that says something else.
		if got, err := s.Verify(hash); err == nil {
			if document, err := got.Document(); err != nil || !bytes.Equal(document, want) {
				t.Errorf("forged: %+v", got)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	pub, key, err := slhdsa.GenerateKey(rand.Reader, slhdsa.SHA2_128s)
	if err != nil {
		b.Fatal(err)
	}
	raw, _ := pub.MarshalBinary()
	hash, _ := lifeboat.KeyHash(slhdsa.ID.String(key.ID), raw)
	_, s := sign(b, &key, newStatement(b, 1))
	for b.Loop() {
		if _, err := s.Verify(hash); err != nil {
			b.Fatal(err)
		}
	}
}
