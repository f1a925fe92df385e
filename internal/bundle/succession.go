package bundle

import (
	"encoding/json"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// MaxSuccession is the size in bytes of the largest file of an epoch statement.
const MaxSuccession = 4 << 10

// kindEpoch tells the file of an epoch statement from others.
const kindEpoch = "epoch"

// successionFile is the form of an epoch statement that stands by itself.
type successionFile struct {
	Version   int         `json:"version"`
	Kind      string      `json:"kind"`
	From      *ibc.Params `json:"from"`   // of the master secret that signed it
	Params    *ibc.Params `json:"params"` // of the epoch that follows
	Statement hexBytes    `json:"statement"`
}

// MarshalSuccession encodes an epoch statement with the parameters that it
// leads on from: indented JSON.
func MarshalSuccession(from *ibc.Params, s ibc.Succession) ([]byte, error) {
	data, err := json.MarshalIndent(successionFile{Version, kindEpoch, from, s.Params, s.Statement}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode epoch statement: %w", err)
	}
	return append(data, '\n'), nil
}

// ParseSuccession parses an epoch statement and verifies it under the
// parameters inside, which the caller holds to what he trusts. Errors wrap
// ErrFormat, ErrVersion, ibc.ErrEpoch or ibc.ErrSignature.
func ParseSuccession(data []byte) (from *ibc.Params, s ibc.Succession, err error) {
	fail := func(err error) (*ibc.Params, ibc.Succession, error) {
		return nil, ibc.Succession{}, fmt.Errorf("epoch statement: %w", err)
	}
	if len(data) > MaxSuccession {
		return fail(fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxSuccession))
	}
	var f successionFile
	if err := decode(data, &f); err != nil {
		return fail(err)
	}
	if f.Kind != kindEpoch || f.From == nil || f.Params == nil {
		return fail(fmt.Errorf("%w: no epoch statement, or without parameters", ErrFormat))
	}
	s = ibc.Succession{Params: f.Params, Statement: f.Statement}
	if err := f.From.Follow([]ibc.Succession{s}, s.Params); err != nil {
		return fail(err)
	}
	return f.From, s, nil
}

// IsSuccession reports whether data may be the file of an epoch statement.
func IsSuccession(data []byte) bool {
	var probe struct {
		Kind string `json:"kind"`
	}
	return json.Unmarshal(data, &probe) == nil && probe.Kind == kindEpoch
}
