package enrol_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func TestLabelledMessages(t *testing.T) {
	data, err := os.ReadFile("../ibc/testdata/ibc-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		LabelledMessages []struct {
			Identity, What string
			LPHex          string `json:"lp_hex"`
		} `json:"labelled_messages"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	var id enrol.ID
	var nonce [enrol.NonceSize]byte
	for i := range id {
		id[i] = 1
	}
	for i := range nonce {
		nonce[i] = 2
	}
	checked := 0
	for _, m := range v.LabelledMessages {
		identity := must[ibc.Identity](t)(ibc.ParseIdentity(m.Identity))
		var got []byte
		switch {
		case strings.HasPrefix(m.What, "possession"):
			got = must[[]byte](t)(enrol.PossessionMessage(identity, id, nonce, sha256.Sum256([]byte("cert"))))
		case strings.HasPrefix(m.What, "statement"):
			got = must[[]byte](t)(enrol.StatementMessage(identity, id, sha256.Sum256([]byte("spki")), sha256.Sum256([]byte("cert"))))
		default:
			continue
		}
		checked++
		if hex.EncodeToString(got) != m.LPHex {
			t.Errorf("%s: %x", m.What, got)
		}
	}
	if checked != 2 {
		t.Errorf("%d messages checked", checked)
	}
}

func TestPossessionSignatures(t *testing.T) {
	p256 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	message := []byte("possession")
	for _, key := range []crypto.Signer{p256, p384, rsaKey} {
		digest, hash := enrol.PossessionDigest(key.Public(), message)
		if want := map[bool]crypto.Hash{true: crypto.SHA384, false: crypto.SHA256}[key == crypto.Signer(p384)]; hash != want {
			t.Errorf("%T: %v", key, hash)
		}
		signature := must[[]byte](t)(key.Sign(rand.Reader, digest, hash))
		if err := enrol.CheckPossession(key.Public(), message, signature); err != nil {
			t.Errorf("%T: %v", key, err)
		}
		for _, other := range []crypto.Signer{p256, p384, rsaKey} {
			if other == key {
				continue
			}
			if err := enrol.CheckPossession(other.Public(), message, signature); !errors.Is(err, enrol.ErrProof) {
				t.Errorf("%T under %T: %v", key, other, err)
			}
		}
		if err := enrol.CheckPossession(key.Public(), []byte("other"), signature); !errors.Is(err, enrol.ErrProof) {
			t.Errorf("%T: other message: %v", key, err)
		}
	}
	if err := enrol.CheckPossession("no key", message, nil); !errors.Is(err, enrol.ErrProof) {
		t.Error(err)
	}
}
