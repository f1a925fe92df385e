package pkgen_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// The day on which the recovery key is needed must not be the first on which
// it is tried: unsealed, it signs what the public key that devices know by its
// hash verifies.
func TestRecoveryKeyWorks(t *testing.T) {
	c := initPKG(t)
	identity, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := os.ReadFile(filepath.Join(c.Dir, pkgen.RecoveryFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		t.Fatal(err)
	}
	var private struct {
		Algorithm  string `json:"algorithm"`
		PrivateKey string `json:"private_key"`
	}
	if err := json.NewDecoder(r).Decode(&private); err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(c.Dir, pkgen.RecoveryPubFile))
	if err != nil {
		t.Fatal(err)
	}
	var pub struct {
		Algorithm string     `json:"algorithm"`
		PublicKey string     `json:"public_key"`
		SHA256    pkgen.Hash `json:"sha256"`
	}
	if err := json.Unmarshal(public, &pub); err != nil {
		t.Fatal(err)
	}
	id, err := slhdsa.IDByName(private.Algorithm)
	if err != nil || private.Algorithm != pub.Algorithm {
		t.Fatalf("algorithms %q and %q: %v", private.Algorithm, pub.Algorithm, err)
	}
	key, verifier := slhdsa.PrivateKey{ID: id}, slhdsa.PublicKey{ID: id}
	if err := key.UnmarshalBinary(decodeHex(t, private.PrivateKey)); err != nil {
		t.Fatal(err)
	}
	if err := verifier.UnmarshalBinary(decodeHex(t, pub.PublicKey)); err != nil {
		t.Fatal(err)
	}
	message := slhdsa.NewMessage([]byte("a new root"))
	signature, err := slhdsa.SignDeterministic(&key, message, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slhdsa.Verify(&verifier, message, signature, nil) {
		t.Error("the signature does not verify")
	}
	hash, err := pkgen.RecoveryHash(pub.Algorithm, decodeHex(t, pub.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if hash != pub.SHA256 || hash != ledger.Recovery() {
		t.Errorf("hash %s, recovery.json says %s, the ledger %s", hash, pub.SHA256, ledger.Recovery())
	}
	edit(t, filepath.Join(c.Dir, pkgen.RecoveryPubFile), pub.PublicKey[:8], "00000000")
	if _, err := pkgen.VerifyDir(c.Dir); err == nil {
		t.Error("another recovery key verifies")
	}
}

func decodeHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
