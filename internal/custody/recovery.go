package custody

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// The kinds that files about a recovery key say they are.
const (
	kindRecoverySharing = "recovery-shares"
	kindRecoveryShare   = "recovery-share"
)

// RecoverySharing is what is public of the shares of what opens a recovery key: a
// random scalar, shared out once, when the key is made. It is immutable.
//
// Shares are held to SHA-256 hashes and not to points as those of a master secret
// are. Points would give the scalar to whoever takes discrete logarithms one day,
// and the recovery key is for that day. A hash says no less of a single share; it
// does not say that all shares lie on one polynomial, which only a dealer who
// cheats while the key is made would break, and he has the key.
type RecoverySharing struct {
	recovery  Hash
	threshold int
	holders   []string // of share 1 first
	digests   []Hash
	id        Hash
}

// RecoveryShare is a holder's share, found to be what its sharing says. The caller
// destroys it after use.
type RecoveryShare struct {
	Sharing *RecoverySharing
	Holder  string
	index   int
	value   []byte
}

// DealRecovery draws what opens the recovery key with a hash and shares it out.
// The caller zeroes the secret and destroys the shares. Errors wrap ErrOptions.
func DealRecovery(random io.Reader, recovery Hash, threshold int, holders []string) (secret []byte, shares []*RecoveryShare, s *RecoverySharing, err error) {
	if err := CheckOptions(threshold, holders); err != nil {
		return nil, nil, nil, err
	}
	secret, values, err := ibc.ShareScalar(random, threshold, len(holders))
	if err != nil {
		return nil, nil, nil, err
	}
	digests := make([]Hash, len(values))
	for i, v := range values {
		if digests[i], err = recoveryDigest(recovery, i+1, v); err != nil {
			return nil, nil, nil, err
		}
	}
	if s, err = newRecoverySharing(recovery, threshold, holders, digests); err != nil {
		return nil, nil, nil, err
	}
	for i, v := range values {
		shares = append(shares, &RecoveryShare{Sharing: s, Holder: holders[i], index: i + 1, value: v})
	}
	return secret, shares, s, nil
}

// recoveryDigest is SHA-256(LP("edgeclm/v1/recovery-share", recovery_sha256, index,
// value)), the number as big-endian uint64.
func recoveryDigest(recovery Hash, index int, value []byte) (Hash, error) {
	msg, err := ibc.LP([]byte("edgeclm/v1/recovery-share"), recovery[:], binary.BigEndian.AppendUint64(nil, uint64(index)), value)
	if err != nil {
		return Hash{}, err
	}
	defer clear(msg)
	return sha256.Sum256(msg), nil
}

// newRecoverySharing hashes the sharing too: SHA-256(LP("edgeclm/v1/recovery-sharing",
// recovery_sha256, threshold, digests joined, holder 1, holder 2, ...)).
func newRecoverySharing(recovery Hash, threshold int, holders []string, digests []Hash) (*RecoverySharing, error) {
	if err := CheckOptions(threshold, holders); err != nil {
		return nil, err
	}
	if len(digests) != len(holders) {
		return nil, fmt.Errorf("%w: %d hashes for %d holders", ErrOptions, len(digests), len(holders))
	}
	var joined []byte
	for _, d := range digests {
		joined = append(joined, d[:]...)
	}
	parts := [][]byte{[]byte("edgeclm/v1/recovery-sharing"), recovery[:], binary.BigEndian.AppendUint64(nil, uint64(threshold)), joined}
	for _, name := range holders {
		parts = append(parts, []byte(name))
	}
	msg, err := ibc.LP(parts...)
	if err != nil {
		return nil, err
	}
	return &RecoverySharing{recovery, threshold, slices.Clone(holders), slices.Clone(digests), sha256.Sum256(msg)}, nil
}

// ID names the sharing.
func (s *RecoverySharing) ID() Hash { return s.id }

// Recovery returns the hash of the recovery key.
func (s *RecoverySharing) Recovery() Hash { return s.recovery }

// Threshold returns how many shares open the recovery key.
func (s *RecoverySharing) Threshold() int { return s.threshold }

// Holders returns the names of the holders, that of share 1 first.
func (s *RecoverySharing) Holders() []string { return slices.Clone(s.holders) }

// FileName is what the file of a share is called:
// recovery-share-2-alice.0a1b2c3d.recovery.age. The digits, of the recovery key's
// hash, tell the shares of a holder apart.
func (s *RecoverySharing) FileName(index int) string {
	return fmt.Sprintf("recovery-share-%d-%s.%x.recovery.age", index, s.holders[index-1], s.recovery[:4])
}

// recoverySharingJSON is the form of a sharing's description.
type recoverySharingJSON struct {
	Version   int      `json:"version"`
	Kind      string   `json:"kind"`
	Recovery  Hash     `json:"recovery_sha256"`
	Threshold int      `json:"threshold"`
	Holders   []string `json:"holders"`
	Digests   []Hash   `json:"digests"`
	SHA256    Hash     `json:"sha256"`
}

// Marshal returns the content of the description.
func (s *RecoverySharing) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(recoverySharingJSON{Version, kindRecoverySharing, s.recovery, s.threshold, s.holders, s.digests, s.id}, "", "  ")
	return append(data, '\n'), err
}

// IsRecoverySharing reports whether data says that it describes the shares of a
// recovery key.
func IsRecoverySharing(data []byte) bool {
	var j struct {
		Kind string `json:"kind"`
	}
	return json.Unmarshal(data, &j) == nil && j.Kind == kindRecoverySharing
}

// ParseRecoverySharing parses a description. That it is the right one the hash of
// the recovery key tells. Errors wrap ErrFormat, ErrVersion or ErrKind.
func ParseRecoverySharing(data []byte) (*RecoverySharing, error) {
	var j recoverySharingJSON
	if err := decode(data, MaxSharingFile, &j); err != nil {
		return nil, fmt.Errorf("description of shares: %w", err)
	}
	if j.Kind != kindRecoverySharing {
		return nil, fmt.Errorf("%w: it does not describe shares of a recovery key", ErrKind)
	}
	s, err := newRecoverySharing(j.Recovery, j.Threshold, j.Holders, j.Digests)
	switch {
	case err != nil:
		return nil, fmt.Errorf("description of shares: %w: %w", ErrFormat, err)
	case s.id != j.SHA256:
		return nil, fmt.Errorf("description of shares: %w: sha256 is not that of the content", ErrFormat)
	}
	return s, nil
}

// Index returns the share's number, from 1.
func (x *RecoveryShare) Index() int { return x.index }

func (x *RecoveryShare) holder() string { return x.Holder }

func (x *RecoveryShare) sharing() Hash { return x.Sharing.id }

// Destroy overwrites the share; x is unusable afterwards.
func (x *RecoveryShare) Destroy() { clear(x.value) }

// String keeps the share out of logs and of %v.
func (x *RecoveryShare) String() string {
	return fmt.Sprintf("share %d of %d of recovery key %x", x.index, len(x.Sharing.holders), x.Sharing.recovery[:8])
}

// GoString is String, for %#v.
func (x *RecoveryShare) GoString() string { return x.String() }

// Seal seals the share for its holder.
func (x *RecoveryShare) Seal(to bundle.Recipient) ([]byte, error) {
	plain := make([]byte, 0, 640)
	defer func() { clear(plain) }()
	plain = fmt.Appendf(plain, `{"version":%d,"kind":"%s","recovery_sha256":"%s","sharing_sha256":"%s","index":%d,"holder":%s,"value":"`,
		Version, kindRecoveryShare, x.Sharing.recovery, x.Sharing.id, x.index, strconv.Quote(x.Holder))
	plain = append(hex.AppendEncode(plain, x.value), `"}`...)
	sealed, err := to.Seal(plain)
	if err != nil {
		return nil, fmt.Errorf("seal share %d of %s: %w", x.index, x.Holder, err)
	}
	return sealed, nil
}

// recoveryShareJSON is the plaintext of a share's file.
type recoveryShareJSON struct {
	Version  int     `json:"version"`
	Kind     string  `json:"kind"`
	Recovery Hash    `json:"recovery_sha256"`
	Sharing  Hash    `json:"sharing_sha256"`
	Index    int     `json:"index"`
	Holder   string  `json:"holder"`
	Value    hexCopy `json:"value"`
}

// OpenRecovery opens the file of a share of a recovery key and checks it against
// its sharing. Errors wrap ErrKind or are those of Open.
func OpenRecovery(sealed []byte, opener bundle.Opener, s *RecoverySharing) (*RecoveryShare, error) {
	if len(sealed) > MaxShareFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxShareFile)
	}
	plain, err := opener.Unseal(sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parseRecoveryShare(plain, s)
}

func parseRecoveryShare(plain []byte, s *RecoverySharing) (*RecoveryShare, error) {
	var j recoveryShareJSON
	if err := decode(plain, MaxShareFile, &j); err != nil {
		clear(j.Value)
		return nil, fmt.Errorf("share: %w", err)
	}
	x := &RecoveryShare{Sharing: s, Holder: j.Holder, index: j.Index, value: j.Value}
	if err := j.belongs(s); err != nil {
		x.Destroy()
		return nil, err
	}
	return x, nil
}

// belongs checks that the share is one of a sharing.
func (j *recoveryShareJSON) belongs(s *RecoverySharing) error {
	switch {
	case j.Kind != kindRecoveryShare:
		return fmt.Errorf("%w: a share of a recovery key is wanted, and it is none", ErrKind)
	case j.Recovery != s.recovery:
		return fmt.Errorf("%w: of recovery key %s, this is %s", ErrCeremony, j.Recovery, s.recovery)
	case j.Sharing != s.id:
		return fmt.Errorf("%w: its sharing_sha256 is %s, this sharing's is %s", ErrSharing, j.Sharing, s.id)
	case j.Index < 1 || j.Index > len(s.holders) || j.Holder != s.holders[j.Index-1]:
		return fmt.Errorf("%w: share %d is not one of %.40q", ibc.ErrShare, j.Index, j.Holder)
	}
	digest, err := recoveryDigest(s.recovery, j.Index, j.Value)
	if err == nil && digest != s.digests[j.Index-1] {
		err = fmt.Errorf("%w: share %d", ibc.ErrShare, j.Index)
	}
	return err
}

// TogetherRecovery returns what opens the recovery key of shares that were brought
// together. The caller zeroes it. Errors wrap ErrSharing, ErrTwice or ErrTooFew and
// name the share.
func TogetherRecovery(shares []*RecoveryShare) ([]byte, error) {
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: there are none", ErrTooFew)
	}
	s := shares[0].Sharing
	if err := checkQuorum(shares, s.threshold, s.holders); err != nil {
		return nil, err
	}
	indices, values := make([]int, len(shares)), make([][]byte, len(shares))
	for i, x := range shares {
		indices[i], values[i] = x.index, x.value
	}
	return ibc.JoinScalar(indices, values)
}
