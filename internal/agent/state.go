package agent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ErrState is wrapped when a file of the agent is malformed: the agent does
// not guess what it might have said.
var ErrState = errors.New("malformed state file")

// formatVersion is the version of the agent's files; others are refused.
const formatVersion = 1

// maxStateFile bounds each of the agent's JSON files in bytes.
const maxStateFile = 1 << 20

// state is state.json. Values that were committed are never changed in place:
// a change is a copy, with copies of the pairs that differ.
type state struct {
	Version  int    `json:"version"`
	Lifeboat uint32 `json:"lifeboat,omitempty"` // serial number of the one whose root it belongs to; 0: the first root
	Pending  *pair  `json:"pending,omitempty"`
	Active   *pair  `json:"active,omitempty"`
	Previous *pair  `json:"previous,omitempty"`

	Phase phase  `json:"phase,omitempty"`
	Trial *trial `json:"trial,omitempty"` // nil: the active pair is final

	// Anchors are those pinned at the first confirmation, or those of the
	// Statement; see anchorsOf.
	Anchors     [][]byte         `json:"anchors,omitempty"`
	Statement   *anchorStatement `json:"anchor_statement,omitempty"` // nil: none yet
	CrossSigned []crossSigned    `json:"cross_signed,omitempty"`     // in the order of their arrival
	NotBefore   time.Time        `json:"not_before,omitzero"`        // lower bound of the time

	LastError    string        `json:"last_error,omitempty"`
	GivenUp      []byte        `json:"given_up,omitempty"` // SHA-256 of the certificate rolled back since the last activation
	KeyAndCSR    time.Duration `json:"key_and_csr_ns,omitempty"`
	Verification time.Duration `json:"verification_ns,omitempty"`
}

// phase says what is left to do about a switch of the active pair.
type phase string

const (
	settled    phase = ""
	activating phase = "activating" // the reload hook has to succeed, else back
	restoring  phase = "restoring"  // the reload hook has to be run
)

// trial is the time in which an active pair has to be confirmed.
type trial struct {
	ConfirmWithin time.Duration `json:"confirm_within_ns"`
	Starts        int           `json:"starts"` // of the agent, since the activation
}

// maxStarts is the start of the agent at which an unconfirmed pair is rolled
// back: the timer runs on uptime, which a device that keeps restarting never
// accumulates.
const maxStarts = 3

// pair is a private key and, once it is complete, its certificate.
type pair struct {
	ID      hexID             `json:"id"` // of the enrolment
	Owner   string            `json:"owner"`
	Subject []fleet.Attribute `json:"subject,omitempty"`
	SANs    []fleet.Name      `json:"sans,omitempty"`
	// Request is the keyed digest of the CSR request, see requestDigest; absent
	// once the CSR is deleted.
	Request []byte `json:"request,omitempty"`
	// RolledBack: it was active and awaits another activation.
	RolledBack bool `json:"rolled_back,omitempty"`

	leaf  *x509.Certificate // of cert.pem; nil if the pair is not complete
	store string            // name of the KeyStore of key.pem; "" if that is unreadable
}

// id returns the enrolment's ID; nil has none.
func (p *pair) id() enrol.ID { return enrol.ID(p.ID) }

// is reports whether p is the pair of an enrolment; nil is none's.
func (p *pair) is(id enrol.ID) bool { return p != nil && p.id() == id }

// holds reports whether p is complete and has this certificate.
func (p *pair) holds(id enrol.ID, certificate [32]byte) bool {
	return p.is(id) && p.leaf != nil && sha256.Sum256(p.leaf.Raw) == certificate
}

// hexID is an enrolment ID with its text form in JSON.
type hexID enrol.ID

// MarshalText implements encoding.TextMarshaler.
func (id hexID) MarshalText() ([]byte, error) { return []byte(enrol.ID(id).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *hexID) UnmarshalText(text []byte) error {
	parsed, err := enrol.ParseID(string(text))
	*id = hexID(parsed)
	return err
}

// under is the state under the root of a lifeboat. What the CLMs of another root
// have begun or said is void: a thief of its master secret may have been one of
// them. The pairs that serve go on serving.
func (st state) under(lifeboat uint32) state {
	if st.Lifeboat == lifeboat {
		return st
	}
	st.Lifeboat = lifeboat
	st.Pending = nil
	st.Anchors, st.Statement, st.CrossSigned = nil, nil, nil
	st.NotBefore = time.Time{}
	return st
}

// fallback returns the pair to roll back to, nil if there is none.
func (st state) fallback() *pair {
	if st.Previous == nil || st.Previous.leaf == nil {
		return nil
	}
	return st.Previous
}

// onTrial reports whether the active pair will be rolled back unless it is
// confirmed.
func (st state) onTrial() bool { return st.Trial != nil && st.fallback() != nil }

// loadState reads state.json and the certificates of its pairs. A pair that is
// unreadable counts as incomplete, and is reported in damage.
func loadState(dir store) (st state, damage, err error) {
	data, err := keyfile.ReadSecret(dir.path(stateName), maxStateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return state{Version: formatVersion}, nil, nil
	}
	if err != nil {
		return state{}, nil, fmt.Errorf("read state: %w", err)
	}
	if err := decodeFile(data, &st); err != nil {
		return state{}, nil, fmt.Errorf("%s: %w", stateName, err)
	}
	for _, p := range st.pairs() {
		if key, err := dir.readKey(p.id()); err == nil {
			p.store = key.store.Name()
			clear(key.kept)
		}
		if p == st.Pending {
			err = st.loadStaged(dir)
		} else {
			p.leaf, err = dir.readLeaf(p.id())
		}
		if err != nil {
			damage = errors.Join(damage, fmt.Errorf("pair of enrolment %s: %w", p.id(), err))
		}
	}
	return st, damage, nil
}

// loadStaged completes the pending pair if its certificate was verified. The
// pair's files say so, and the lower bound of the time follows from them: that
// spares the flash memory a state file for each verification.
func (st *state) loadStaged(dir store) error {
	chain, err := dir.readChain(st.Pending.id())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st.Pending.leaf = chain[0]
	st.raise(chain)
	return nil
}

// raise raises the lower bound of the time to the latest NotBefore among
// certificates that were verified.
func (st *state) raise(verified []*x509.Certificate) {
	for _, c := range verified {
		if c.NotBefore.After(st.NotBefore) {
			st.NotBefore = c.NotBefore.UTC()
		}
	}
}

// pairs returns the pairs that there are.
func (st state) pairs() []*pair {
	var out []*pair
	for _, p := range []*pair{st.Pending, st.Active, st.Previous} {
		if p != nil {
			out = append(out, p)
		}
	}
	return out
}

func (s store) writeState(st state) error {
	data, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	return s.files.WriteDurable(s.path(stateName), append(data, '\n'), keyfile.SecretPerm)
}

// decodeFile parses one of the agent's files after its version was found to be
// ours. Unknown keys are ignored. Errors wrap ErrState.
func decodeFile(data []byte, v any) error {
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if probe.Version != formatVersion {
		return fmt.Errorf("%w: version %d, this release reads %d", ErrState, probe.Version, formatVersion)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}
