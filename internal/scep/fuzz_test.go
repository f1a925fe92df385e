package scep

import (
	"errors"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// FuzzCapabilities: what is taken is printable, bounded, and taken again.
func FuzzCapabilities(f *testing.F) {
	f.Add([]byte("AES\r\nPOSTPKIOperation\r\nSHA-256"))
	f.Add([]byte("SCEPStandard\n\n\x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parseCapabilities(b)
		again := parseCapabilities([]byte(strings.Join(got, "\n")))
		if len(got) > maxCapabilities || strings.Join(got, "\n") != strings.Join(again, "\n") {
			t.Fatalf("%q, then %q", got, again)
		}
	})
}

// FuzzCACert: whatever certificates a server sends, the choice of an anchor
// fails with a reason or gives one whose parts are all there.
func FuzzCACert(f *testing.F) {
	root := newEntity(f, "root", caUsage, false, nil)
	issuing := newEntity(f, "issuing", caUsage, true, &root)
	ra := newEntity(f, "RA", encrypts|signs, true, &issuing)
	der, err := pkimessage.CertsOnly(ra.Certificate, issuing.Certificate, root.Certificate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, der)
	f.Add(false, issuing.Raw)
	f.Add(true, []byte{0x30, 0x80, 0x24})
	f.Fuzz(func(t *testing.T, bundle bool, b []byte) {
		kind := typeCA
		if bundle {
			kind = typeCARA
		}
		certificates, err := parseCACert(kind, b)
		if err != nil {
			if !errors.Is(err, ErrNotSCEP) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		a, err := SelectAnchor(certificates, nil, "")
		if err != nil {
			return
		}
		if a.Anchor == nil || a.Issuer == nil || a.Recipient == nil || len(a.Signers) == 0 {
			t.Fatalf("%+v", a)
		}
	})
}

// FuzzParseRA: an RA that is accepted can be stored again.
func FuzzParseRA(f *testing.F) {
	good, err := testRA().MarshalPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ra, err := ParseRA(b)
		if err != nil {
			if !errors.Is(err, ErrRA) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		if _, err := ra.MarshalPEM(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzFingerprint: an accepted fingerprint is in the one form.
func FuzzFingerprint(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0f", 32))
	f.Add("SHA256:" + strings.TrimSuffix(strings.Repeat("0F:", 32), ":"))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseFingerprint(s)
		if err != nil {
			return
		}
		if again, err := ParseFingerprint(got); err != nil || again != got || len(got) != 71 {
			t.Fatalf("%q, %v", again, err)
		}
	})
}

// FuzzClean: text from outside is shown on one line, bounded and printable.
func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31mred\r\n\xff" + strings.Repeat("ß", 300))
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if len(got) > maxShownText+len("...") || strings.ContainsAny(got, "\x1b\r\n\x00") {
			t.Fatalf("%q", got)
		}
	})
}
