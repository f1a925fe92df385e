package labca

import (
	"crypto/rand"
	"testing"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// FuzzRequest: whatever is posted, the CA answers or refuses; it issues nothing
// without the challenge.
func FuzzRequest(f *testing.F) {
	ca := newCA(f, Options{})
	f.Add(request(f, ca, scep.PKCSReq, "01", newCSR(f, nil, "guess", nil)))
	f.Add(request(f, ca, scep.CertPoll, "02", nil))
	f.Add([]byte{0x30, 0x80, 0x24})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := post(t, ca, b); m != nil && m.Status != scep.FAILURE {
			t.Fatalf("%+v", m)
		}
	})
}

// FuzzDecrypted: whatever a client encrypts to the CA, it issues nothing
// without the challenge.
func FuzzDecrypted(f *testing.F) {
	ca := newCA(f, Options{})
	f.Add(newCSR(f, nil, "guess", nil))
	f.Add(newCSR(f, nil, "", nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []scep.MessageType{scep.PKCSReq, scep.CertPoll} {
			_, pending, refused, err := ca.decide(&pkimessage.Message{
				Type: kind, TransactionID: "01", Signer: client().certificate, Content: seal(t, ca, b),
			}, Honest)
			if err != nil || pending || refused == nil {
				t.Fatalf("%v, %v, %v", pending, refused, err)
			}
		}
	})
}

func seal(t testing.TB, ca *CA, content []byte) []byte {
	t.Helper()
	sealed, err := pkimessage.Seal(content, ca.keys.front().certificate)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// FuzzHierarchy: a stored CA that is read has all its keys.
func FuzzHierarchy(f *testing.F) {
	for _, layout := range []Layout{LayoutRA, LayoutSingle} {
		h, err := newHierarchy(rand.Reader, layout, "")
		if err != nil {
			f.Fatal(err)
		}
		b, err := h.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHierarchy(b)
		if err != nil {
			return
		}
		if _, err := h.marshal(); err != nil {
			t.Fatal(err)
		}
	})
}
