package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// root is the self-signed certificate of a CA, after what change does to it.
func root(t testing.TB, name string, change ...func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func anchorFile(t testing.TB, m *ibc.MasterSecret, s bundle.AnchorSet) []byte {
	t.Helper()
	data, _, err := s.Marshal(m.Params(), m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAnchorsRoundTrip(t *testing.T) {
	m := setup(t, 1)
	want := &bundle.AnchorSet{Serial: 1<<64 - 1, Pattern: "plc-*.bilbao", Anchors: [][]byte{root(t, "a"), root(t, "b")}}
	data, hash, err := want.Marshal(m.Params(), m)
	if err != nil {
		t.Fatal(err)
	}
	got, again, err := bundle.ParseAnchors(data, m.Params())
	if err != nil || again != hash || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %s, %v; want %+v, %s", got, again, err, want, hash)
	}
	if params, err := bundle.AnchorParams(data); err != nil || params.ID() != m.Params().ID() {
		t.Errorf("parameters %v, %v", params, err)
	}
	if !bundle.IsAnchorStatement(data) || bundle.IsAnchorStatement(marshal(t, manifest(m), m)) {
		t.Error("a statement and a manifest are taken for one another")
	}
	// The file may be reformatted, the payload may not.
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		t.Fatal(err)
	}
	if _, again, err := bundle.ParseAnchors(compact.Bytes(), m.Params()); err != nil || again != hash {
		t.Errorf("reformatted: %s, %v", again, err)
	}
	if hashes := bundle.AnchorHashes(want.Anchors); len(hashes) != 2 || hashes[1] != sha256.Sum256(want.Anchors[1]) {
		t.Errorf("hashes %v", hashes)
	}
}

func TestAnchorsRefused(t *testing.T) {
	m, other := setup(t, 1), setup(t, 2)
	good := bundle.AnchorSet{Serial: 3, Pattern: "*", Anchors: [][]byte{root(t, "a")}}
	for what, change := range map[string]func(*bundle.AnchorSet){
		"no serial":    func(s *bundle.AnchorSet) { s.Serial = 0 },
		"no anchors":   func(s *bundle.AnchorSet) { s.Anchors = nil },
		"five anchors": func(s *bundle.AnchorSet) { s.Anchors = make([][]byte, bundle.MaxAnchors+1) },
		"twice":        func(s *bundle.AnchorSet) { s.Anchors = [][]byte{s.Anchors[0], s.Anchors[0]} },
		"garbage":      func(s *bundle.AnchorSet) { s.Anchors = [][]byte{[]byte("garbage")} },
		"too large":    func(s *bundle.AnchorSet) { s.Anchors = [][]byte{make([]byte, bundle.MaxAnchorSize+1)} },
		"bytes behind": func(s *bundle.AnchorSet) { s.Anchors = [][]byte{append(bytes.Clone(s.Anchors[0]), 0)} },
		"no CA": func(s *bundle.AnchorSet) {
			s.Anchors = [][]byte{root(t, "a", func(c *x509.Certificate) { c.IsCA = false })}
		},
		"signs CRLs only": func(s *bundle.AnchorSet) {
			s.Anchors = [][]byte{root(t, "a", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })}
		},
		"no pattern": func(s *bundle.AnchorSet) { s.Pattern = "" },
	} {
		s := good
		change(&s)
		if _, _, err := s.Marshal(m.Params(), m); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: error %v, want ErrFormat", what, err)
		}
	}
	if _, _, err := bundle.ParseAnchors(anchorFile(t, other, good), m.Params()); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("of another PKG: %v", err)
	}
	later, err := ibc.NewMasterSecret(2, m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := bundle.ParseAnchors(anchorFile(t, later, good), m.Params()); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("of another epoch: %v", err)
	}
	data := string(anchorFile(t, m, good))
	if _, _, err := bundle.ParseAnchors([]byte(strings.Replace(data, `"version": 1`, `"version": 2`, 1)), m.Params()); !errors.Is(err, bundle.ErrVersion) {
		t.Errorf("of another version: %v", err)
	}
	at := strings.Index(data, `"signature": "`) + 16
	changed := []byte(data)
	changed[at] ^= 1
	if _, _, err := bundle.ParseAnchors(changed, m.Params()); !errors.Is(err, ibc.ErrSignature) && !errors.Is(err, ibc.ErrEncoding) && !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("with a changed signature: %v", err)
	}
}

func TestPattern(t *testing.T) {
	for _, tc := range []struct {
		pattern bundle.Pattern
		yes, no string
	}{
		{"plc-1", "plc-1", "plc-10 plc- xplc-1"},
		{"plc-*", "plc- plc-1 plc-1.bilbao", "plc plc1 cell-1"},
		{"*.bilbao", ".bilbao plc-1.bilbao", "bilbao plc-1.bilbao.x"},
		{"plc-*.bilbao", "plc-1.bilbao plc-.bilbao", "plc-1.vigo plc.bilbao"},
		{"ab*ba", "abba abcba", "aba ab ba"},
		{"*", "a plc-1 x:y", ""},
		{bundle.Pattern("a" + strings.Repeat("b", 63) + "*"), "a" + strings.Repeat("b", 63), "a"},
	} {
		if err := tc.pattern.Validate(); err != nil {
			t.Errorf("%q: %v", tc.pattern, err)
		}
		for _, name := range strings.Fields(tc.yes) {
			if !tc.pattern.Matches(name) {
				t.Errorf("%q does not fit %q", tc.pattern, name)
			}
		}
		for _, name := range strings.Fields(tc.no) {
			if tc.pattern.Matches(name) {
				t.Errorf("%q fits %q", tc.pattern, name)
			}
		}
	}
	for _, bad := range []bundle.Pattern{"", "**", "a*b*c", "PLC-*", "plc-?", "plc 1", "-plc", "-*", "é*", bundle.Pattern(strings.Repeat("a", 65)), bundle.Pattern("a*" + strings.Repeat("b", 64))} {
		if err := bad.Validate(); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", bad, err)
		}
	}
}

// Property: a name without '*' fits itself and nothing else; what stands for
// the '*' does not matter.
func TestPatternProperties(t *testing.T) {
	name := rapid.StringMatching(`[a-z0-9][a-z0-9._:-]{0,20}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, between := name.Draw(t, "a"), name.Draw(t, "b"), rapid.StringMatching(`[a-z0-9._:-]{0,5}`).Draw(t, "between")
		if bundle.Pattern(a).Matches(b) != (a == b) || !bundle.Pattern(a+"*"+b).Matches(a+between+b) {
			t.Fatalf("%q, %q, %q", a, b, between)
		}
	})
}

func TestAnchorFileName(t *testing.T) {
	for _, serial := range []uint64{1, 10, 1<<64 - 1} {
		if got, err := bundle.ParseAnchorFileName(bundle.AnchorFileName(serial)); err != nil || got != serial {
			t.Errorf("%d: %d, %v", serial, got, err)
		}
	}
	for _, bad := range []string{"", "anchors-.anchor.json", "anchors-0.anchor.json", "anchors-01.anchor.json", "anchors-1.json", "anchors-18446744073709551616.anchor.json", ".anchors-1.anchor.json"} {
		if _, err := bundle.ParseAnchorFileName(bad); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", bad, err)
		}
	}
}

// FuzzAnchors feeds whole files, and payloads that are signed.
func FuzzAnchors(f *testing.F) {
	m := setup(f, 1)
	set := bundle.AnchorSet{Serial: 2, Pattern: "plc-*", Anchors: [][]byte{root(f, "a")}}
	set.ParamsID, set.Epoch = m.Params().ID(), m.Params().Epoch()
	f.Add(anchorFile(f, m, set), false)
	payload, err := set.Payload()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload, true)
	f.Add([]byte(`{"version":1,"serial":1}`), true)
	f.Add([]byte("{"), false)
	f.Fuzz(func(t *testing.T, data []byte, sign bool) {
		if sign {
			signature, err := m.Sign(ibc.KindAnchor, data)
			if err != nil {
				t.Fatal(err)
			}
			file := map[string]any{"version": 1, "payload": data, "signature": hexOf(signature)}
			if data, err = json.Marshal(file); err != nil {
				t.Fatal(err)
			}
		}
		s, _, err := bundle.ParseAnchors(data, m.Params())
		if err != nil {
			return
		}
		again, _, err := s.Marshal(m.Params(), m)
		if err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
		if _, _, err := bundle.ParseAnchors(again, m.Params()); err != nil {
			t.Fatalf("accepted once, refused when written again: %v", err)
		}
		_, _ = bundle.AnchorParams(data)
	})
}
