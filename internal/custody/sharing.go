package custody

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Hash is a SHA-256.
type Hash = bundle.Hash

// Sharing is what is public of a master secret in shares. It is immutable and
// safe for concurrent use.
type Sharing struct {
	commitments *ibc.Commitments
	serial      uint64
	holders     []string // of share 1 first
	id          Hash
}

// maxSerial bounds serial numbers, so that every JSON reader takes them.
const maxSerial = 1 << 31

// NewSharing describes a sharing, the serial-th (from 1) of its secret, by its
// commitments and the names of its holders, that of share 1 first. Errors wrap
// ErrOptions.
func NewSharing(c *ibc.Commitments, serial uint64, holders []string) (*Sharing, error) {
	if err := CheckOptions(c.Threshold(), holders); err != nil {
		return nil, err
	}
	if c.Shares() != len(holders) || serial < 1 || serial > maxSerial {
		return nil, fmt.Errorf("%w: %d shares for %d holders, serial number %d", ErrOptions, c.Shares(), len(holders), serial)
	}
	s := &Sharing{commitments: c, serial: serial, holders: slices.Clone(holders)}
	var err error
	s.id, err = s.hash()
	return s, err
}

// Deal shares a master secret out to holders. The caller destroys the shares.
// Errors wrap ErrOptions.
func Deal(m *ibc.MasterSecret, random io.Reader, threshold int, serial uint64, holders []string) ([]*Share, *Sharing, error) {
	if err := CheckOptions(threshold, holders); err != nil {
		return nil, nil, err
	}
	dealt, c, err := m.Split(random, threshold, len(holders))
	if err != nil {
		return nil, nil, err
	}
	s, err := NewSharing(c, serial, holders)
	if err != nil {
		return nil, nil, err
	}
	shares := make([]*Share, len(dealt))
	for i, x := range dealt {
		shares[i] = &Share{Share: x, Sharing: s, Holder: holders[i]}
	}
	return shares, s, nil
}

// CheckOptions checks a threshold and the names of holders. Errors wrap
// ErrOptions.
func CheckOptions(threshold int, holders []string) error {
	if threshold < MinThreshold || threshold > len(holders) || len(holders) > MaxHolders {
		return fmt.Errorf("%w: %d of %d shares: at least %d are needed to make the secret, and there are at most %d",
			ErrOptions, threshold, len(holders), MinThreshold, MaxHolders)
	}
	seen := map[string]bool{}
	for _, name := range holders {
		if err := CheckHolder(name); err != nil {
			return err
		}
		// File names differ by it, also on a medium that ignores case.
		folded := strings.ToLower(name)
		if seen[folded] {
			return fmt.Errorf("%w: the holder %s is named twice", ErrOptions, name)
		}
		seen[folded] = true
	}
	return nil
}

// CheckHolder checks the name of a holder: 1 to 32 ASCII letters, digits, dots,
// underscores and hyphens, a letter or digit first. Errors wrap ErrOptions.
func CheckHolder(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`).MatchString(name) {
		return fmt.Errorf("%w: %.40q is no name of a holder (1 to 32 letters, digits, '.', '_' and '-', a letter or digit first)", ErrOptions, name)
	}
	return nil
}

// hash is SHA-256(LP("edgeclm/v1/sharing", params_id, epoch, serial, commitments
// behind Ppub joined, holder 1, holder 2, ...)), the numbers as big-endian
// uint64.
func (s *Sharing) hash() (Hash, error) {
	id := s.Params().ID()
	parts := [][]byte{
		[]byte("edgeclm/v1/sharing"), id[:],
		binary.BigEndian.AppendUint64(nil, uint64(s.Params().Epoch())),
		binary.BigEndian.AppendUint64(nil, s.serial),
		slices.Concat(s.commitments.Points()...),
	}
	for _, name := range s.holders {
		parts = append(parts, []byte(name))
	}
	msg, err := ibc.LP(parts...)
	if err != nil {
		return Hash{}, err
	}
	return sha256.Sum256(msg), nil
}

// ID names the sharing.
func (s *Sharing) ID() Hash { return s.id }

// Serial returns which sharing of its secret it is, from 1.
func (s *Sharing) Serial() uint64 { return s.serial }

// Params returns the public parameters of the secret.
func (s *Sharing) Params() *ibc.Params { return s.commitments.Params() }

// Commitments returns what the shares are checked against.
func (s *Sharing) Commitments() *ibc.Commitments { return s.commitments }

// Threshold returns how many shares make the secret.
func (s *Sharing) Threshold() int { return s.commitments.Threshold() }

// Holders returns the names of the holders, that of share 1 first.
func (s *Sharing) Holders() []string { return slices.Clone(s.holders) }

// Holder returns the name of the holder of a share, "" if there is none.
func (s *Sharing) Holder(index int) string {
	if index < 1 || index > len(s.holders) {
		return ""
	}
	return s.holders[index-1]
}

// FileName is what the file of a share is called: share-2-alice.s1.share.age.
// The serial number tells the shares of a holder apart.
func (s *Sharing) FileName(index int) string {
	return fmt.Sprintf("share-%d-%s.s%d.share.age", index, s.Holder(index), s.serial)
}

// sharingJSON is the form of shares.json.
type sharingJSON struct {
	Version     int         `json:"version"`
	Kind        string      `json:"kind,omitempty"` // "" of a master secret
	Params      *ibc.Params `json:"params"`
	Serial      uint64      `json:"serial"`
	Threshold   int         `json:"threshold"`
	Holders     []string    `json:"holders"`
	Commitments []string    `json:"commitments"` // behind Ppub, hex
	SHA256      Hash        `json:"sha256"`
}

// Marshal returns the content of shares.json.
func (s *Sharing) Marshal() ([]byte, error) {
	j := sharingJSON{Version: Version, Params: s.Params(), Serial: s.serial, Threshold: s.Threshold(), Holders: s.holders, SHA256: s.id}
	for _, p := range s.commitments.Points() {
		j.Commitments = append(j.Commitments, hex.EncodeToString(p))
	}
	data, err := json.MarshalIndent(j, "", "  ")
	return append(data, '\n'), err
}

// ParseSharing parses the content of shares.json. That it is the right one only
// the PKG's ledger or its params_id tells. Errors wrap ErrFormat or ErrVersion.
func ParseSharing(data []byte) (*Sharing, error) {
	var j sharingJSON
	if err := decode(data, MaxSharingFile, &j); err != nil {
		return nil, fmt.Errorf("description of shares: %w", err)
	}
	if j.Kind != "" {
		return nil, fmt.Errorf("%w: it describes %.40q, and shares of a master secret are wanted", ErrKind, j.Kind)
	}
	s, err := j.sharing()
	switch {
	case err != nil:
		return nil, fmt.Errorf("description of shares: %w: %w", ErrFormat, err)
	case s.id != j.SHA256:
		return nil, fmt.Errorf("description of shares: %w: sha256 is not that of the content", ErrFormat)
	}
	return s, nil
}

func (j *sharingJSON) sharing() (*Sharing, error) {
	if j.Params == nil || j.Threshold != len(j.Commitments)+1 {
		return nil, errors.New("no parameters, or not the commitments of its threshold")
	}
	if err := CheckOptions(j.Threshold, j.Holders); err != nil {
		return nil, err
	}
	points := make([][]byte, len(j.Commitments))
	for i, digits := range j.Commitments {
		var err error
		if points[i], err = hex.DecodeString(digits); err != nil {
			return nil, fmt.Errorf("commitment %d is not in hex", i+1)
		}
	}
	c, err := ibc.ParseCommitments(j.Params, len(j.Holders), points)
	if err != nil {
		return nil, err
	}
	return NewSharing(c, j.Serial, j.Holders)
}

// decode parses one JSON object of at most limit bytes into v after its version
// was found to be ours.
func decode(data []byte, limit int, v any) error {
	if len(data) > limit {
		return fmt.Errorf("%w: more than %d bytes", ErrFormat, limit)
	}
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%w: not a JSON object with a version", ErrFormat)
	}
	if probe.Version != Version {
		return fmt.Errorf("%w: %d, this release reads %d", ErrVersion, probe.Version, Version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		// The text stays out of the error: it may be a secret.
		return fmt.Errorf("%w: a member is of another type", ErrFormat)
	}
	return nil
}
