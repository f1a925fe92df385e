package coaplink

import (
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// wireVersion is the version of every CBOR payload, its key 0.
const wireVersion = 1

// errPayload is wrapped by every refusal of a payload.
var errPayload = errors.New("malformed payload")

// Unix times on the wire: years 1 to 9999.
const (
	minTime = -62135596800
	maxTime = 253402300799
)

// decode is strict and bounded: definite lengths only, no tags, no duplicate
// keys, valid UTF-8, nothing behind the item. Keys that v does not have are
// skipped.
func decode(data []byte, v any) error {
	if len(data) > maxBody {
		return fmt.Errorf("%w: %d bytes", errPayload, len(data))
	}
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  4,
		MaxArrayElements: 64,
		MaxMapPairs:      32,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		return fmt.Errorf("set up decoder: %w", err)
	}
	if err := mode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", errPayload, err)
	}
	return nil
}

// encode is the deterministic encoding of RFC 8949 section 4.2.1.
func encode(v any) ([]byte, error) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("set up encoder: %w", err)
	}
	data, err := mode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode payload: %w", err)
	}
	return data, nil
}

func checkVersion(v uint64) error {
	if v != wireVersion {
		return fmt.Errorf("%w: version %d, only %d is known", errPayload, v, wireVersion)
	}
	return nil
}

// fixed copies a byte string that must have exactly the size of dst.
func fixed(dst, src []byte, what string) error {
	if len(src) != len(dst) {
		return fmt.Errorf("%w: %s of %d bytes instead of %d", errPayload, what, len(src), len(dst))
	}
	copy(dst, src)
	return nil
}

func bounded(b []byte, limit int, what string) error {
	if len(b) == 0 || len(b) > limit {
		return fmt.Errorf("%w: %s of %d bytes, 1 to %d are allowed", errPayload, what, len(b), limit)
	}
	return nil
}

func toTime(seconds int64) (time.Time, error) {
	if seconds < minTime || seconds > maxTime {
		return time.Time{}, fmt.Errorf("%w: time %d", errPayload, seconds)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// reference is what /confirm and /rollback take, and /activate with the time.
type reference struct {
	Version       uint64 `cbor:"0,keyasint"`
	Enrolment     []byte `cbor:"1,keyasint"`
	Certificate   []byte `cbor:"2,keyasint"`           // SHA-256
	ConfirmWithin uint64 `cbor:"3,keyasint,omitempty"` // seconds; 0: final at once
}

// maxConfirm bounds confirm_within in seconds: a week.
const maxConfirm = 7 * 24 * 3600

// activation names a certificate of an enrolment.
type activation struct {
	enrolment   enrol.ID
	certificate [32]byte
	within      time.Duration
}

func encodeReference(id enrol.ID, certificate [32]byte, within time.Duration) ([]byte, error) {
	if within < 0 || within > maxConfirm*time.Second {
		return nil, fmt.Errorf("confirmation within %v, at most %v is allowed", within, maxConfirm*time.Second)
	}
	// A part of a second counts as one: rounding down would make it final.
	seconds := uint64((within + time.Second - 1) / time.Second)
	return encode(reference{wireVersion, id[:], certificate[:], seconds})
}

func decodeReference(data []byte) (activation, error) {
	var r reference
	if err := decode(data, &r); err != nil {
		return activation{}, err
	}
	if err := checkVersion(r.Version); err != nil {
		return activation{}, err
	}
	var a activation
	if err := fixed(a.enrolment[:], r.Enrolment, "enrolment ID"); err != nil {
		return activation{}, err
	}
	if err := fixed(a.certificate[:], r.Certificate, "certificate hash"); err != nil {
		return activation{}, err
	}
	if r.ConfirmWithin > maxConfirm {
		return activation{}, fmt.Errorf("%w: confirm_within of %d seconds", errPayload, r.ConfirmWithin)
	}
	a.within = time.Duration(r.ConfirmWithin) * time.Second
	return a, nil
}
