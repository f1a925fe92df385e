package provision

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// ErrEpoch is wrapped when an epoch cannot be closed.
var ErrEpoch = errors.New("not an earlier epoch")

// Epoch is what a CLM keeps of an epoch before the present one: its key, as long
// as there are devices that know no later epoch, and the parameters for good,
// since they verify what was signed then.
type Epoch struct {
	Params   *ibc.Params
	Identity ibc.Identity    // that it had then; zero: none
	Key      *ibc.PrivateKey // nil: it had none, or the epoch is closed
	Closed   time.Time       // zero: devices of it are accepted
	Reason   string          // why it was closed, in the operator's words
}

// Open reports whether devices of the epoch are accepted.
func (e Epoch) Open() bool { return e.Closed.IsZero() }

// maxEpochs bounds what is kept; what verifies the oldest goes first.
const maxEpochs = 64

// earlier returns the epochs before the successor of e, that a bundle of another
// epoch brings.
func (e *Endpoint) earlier(b *bundle.Bundle) []Epoch {
	out := slices.Clone(e.Earlier)
	if e.Identity.Role != ibc.RoleCLM || b.Params.Equal(e.Params) {
		return out
	}
	out = append(out, Epoch{Params: e.Params, Identity: e.Identity, Key: e.Key})
	// Epochs in which this CLM never was; the statements were verified.
	for _, s := range b.Epochs {
		if s.Params.Epoch() > e.Params.Epoch() && s.Params.Epoch() < b.Params.Epoch() {
			out = append(out, Epoch{Params: s.Params})
		}
	}
	return out[max(0, len(out)-maxEpochs):]
}

// Accepted returns the parameters under which devices prove themselves to a
// CLM: those of the epochs that are not closed, the present ones last.
func (e *Endpoint) Accepted() []*ibc.Params {
	var out []*ibc.Params
	for _, past := range e.Earlier {
		if past.Open() {
			out = append(out, past.Params)
		}
	}
	return append(out, e.Params)
}

// Verifying returns the parameters of all epochs that are known, the present
// ones last: what was signed in a closed epoch still holds.
func (e *Endpoint) Verifying() []*ibc.Params {
	var out []*ibc.Params
	for _, past := range e.Earlier {
		out = append(out, past.Params)
	}
	return append(out, e.Params)
}

// Close returns what a CLM is after an epoch, and those before it, were closed:
// without their keys, and accepting no device of theirs. It returns nil if they
// are closed already. Errors wrap ErrEpoch.
func (e *Endpoint) Close(epoch uint32, at time.Time, reason string) (*Endpoint, error) {
	if !slices.ContainsFunc(e.Earlier, func(past Epoch) bool { return past.Params.Epoch() == epoch }) {
		return nil, fmt.Errorf("%w: %d; the present epoch is %d", ErrEpoch, epoch, e.Params.Epoch())
	}
	next := *e
	next.Earlier = slices.Clone(e.Earlier)
	changed := false
	for i := range next.Earlier {
		past := &next.Earlier[i]
		if past.Params.Epoch() > epoch || !past.Open() {
			continue
		}
		changed = true
		past.Key, past.Closed, past.Reason = nil, at.UTC(), reason
	}
	if !changed {
		return nil, nil
	}
	return &next, nil
}

// Destroy overwrites the keys of an endpoint as far as Go allows.
func (e *Endpoint) Destroy() {
	e.Key.Destroy()
	for _, past := range e.Earlier {
		if past.Key != nil {
			past.Key.Destroy()
		}
	}
}

// epochFile is an Epoch in identity.json.
type epochFile struct {
	Params   *ibc.Params   `json:"params"`
	Identity *ibc.Identity `json:"identity,omitempty"`
	Key      string        `json:"key,omitempty"` // d in hex
	Closed   time.Time     `json:"closed_at,omitzero"`
	Reason   string        `json:"closed_because,omitempty"`
}

func encodeEpochs(epochs []Epoch) []epochFile {
	var out []epochFile
	for _, past := range epochs {
		f := epochFile{Params: past.Params, Closed: past.Closed, Reason: past.Reason}
		if past.Identity != (ibc.Identity{}) {
			id := past.Identity
			f.Identity = &id
		}
		if past.Key != nil {
			d := past.Key.Bytes()
			f.Key = hex.EncodeToString(d)
			clear(d)
		}
		out = append(out, f)
	}
	return out
}

func parseEpochs(files []epochFile) ([]Epoch, error) {
	if len(files) > maxEpochs {
		return nil, fmt.Errorf("%w: %d earlier epochs", ErrFile, len(files))
	}
	var out []Epoch
	for _, f := range files {
		if f.Params == nil || f.Key != "" && (f.Identity == nil || !f.Closed.IsZero()) {
			return nil, fmt.Errorf("%w: an earlier epoch without parameters, or a key that should not be there", ErrFile)
		}
		past := Epoch{Params: f.Params, Closed: f.Closed, Reason: f.Reason}
		if f.Identity != nil {
			past.Identity = *f.Identity
		}
		if f.Key != "" {
			d, err := hex.DecodeString(f.Key)
			if err != nil {
				return nil, fmt.Errorf("%w: the key of epoch %d is not in hex", ErrFile, f.Params.Epoch())
			}
			past.Key, err = ibc.NewPrivateKey(past.Params, past.Identity, d)
			clear(d)
			if err != nil {
				return nil, err
			}
		}
		out = append(out, past)
	}
	return out, nil
}
