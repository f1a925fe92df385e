package pkgen

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// recoveryAlgorithm is the parameter set of the recovery key (FIPS 205): it
// rests on SHA-256 alone, so that it outlives elliptic curves. Signatures have
// 7,856 bytes; one per re-rooting of a fleet is all that is ever made.
const recoveryAlgorithm = slhdsa.SHA2_128s

// recoveryPublic is the form of recovery.json.
type recoveryPublic struct {
	Version   int    `json:"version"`
	Algorithm string `json:"algorithm"`
	PublicKey string `json:"public_key"` // hex
	SHA256    Hash   `json:"sha256"`     // RecoveryHash
}

// RecoveryHash is what a bundle fixes on a device, see lifeboat.KeyHash.
func RecoveryHash(algorithm string, publicKey []byte) (Hash, error) {
	hash, err := lifeboat.KeyHash(algorithm, publicKey)
	return hash, err
}

// newRecovery makes a recovery key of a parameter set: the private half as JSON to be sealed and
// zeroed, the public half as recovery.json.
func newRecovery(random io.Reader, id slhdsa.ID) (private, public []byte, hash Hash, err error) {
	fail := func(err error) ([]byte, []byte, Hash, error) {
		return nil, nil, Hash{}, fmt.Errorf("make the recovery key: %w", err)
	}
	pub, priv, err := slhdsa.GenerateKey(random, id)
	if err != nil {
		return fail(err)
	}
	raw, err := priv.MarshalBinary()
	if err != nil {
		return fail(err)
	}
	defer clear(raw)
	rawPub, err := pub.MarshalBinary()
	if err != nil {
		return fail(err)
	}
	algorithm := id.String()
	if hash, err = RecoveryHash(algorithm, rawPub); err != nil {
		return fail(err)
	}
	public, err = json.MarshalIndent(recoveryPublic{1, algorithm, hex.EncodeToString(rawPub), hash}, "", "  ")
	if err != nil {
		return fail(err)
	}
	private = make([]byte, 0, 512)
	private = fmt.Appendf(private, `{"version":1,"algorithm":"%s","private_key":"`, algorithm)
	private = hex.AppendEncode(private, raw)
	private = append(private, `"}`...)
	return private, append(public, '\n'), hash, nil
}

// readRecovery reads recovery.json and checks its hash.
func readRecovery(path string) (recoveryPublic, error) {
	var r recoveryPublic
	data, err := keyfile.Read(path, maxSmallFile)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	key, err := hex.DecodeString(r.PublicKey)
	if err != nil || r.Version != 1 {
		return r, fmt.Errorf("%s: malformed or of another version", path)
	}
	hash, err := RecoveryHash(r.Algorithm, key)
	if err == nil && hash != r.SHA256 {
		err = fmt.Errorf("%s: sha256 is not that of the key", path)
	}
	return r, err
}
