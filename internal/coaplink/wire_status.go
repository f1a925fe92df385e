package coaplink

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Bounds of a status.
const (
	maxAgentVersion = 64
	maxDetail       = 256
	maxSerial       = 32
	maxAnchors      = 32
	maxEndpoint     = 255 + 6
	maxKeyStore     = 16
)

// Clock codes on the wire.
const (
	clockPlausible = 0
	clockBehind    = 1
)

// status is the response of /status.
type status struct {
	Version      uint64             `cbor:"0,keyasint"`
	Agent        string             `cbor:"1,keyasint"`
	Identity     string             `cbor:"2,keyasint"`
	Active       *statusCertificate `cbor:"3,keyasint,omitempty"`
	Staged       *statusCertificate `cbor:"4,keyasint,omitempty"`
	Enrolment    []byte             `cbor:"5,keyasint,omitempty"`
	Unconfirmed  bool               `cbor:"6,keyasint,omitempty"`
	LastError    string             `cbor:"7,keyasint,omitempty"`
	Clock        uint64             `cbor:"8,keyasint"`
	Time         int64              `cbor:"9,keyasint"`
	Anchors      [][]byte           `cbor:"10,keyasint"`
	KeyAndCSR    uint64             `cbor:"11,keyasint,omitempty"` // microseconds
	Verification uint64             `cbor:"12,keyasint,omitempty"` // microseconds
	AnchorSerial uint64             `cbor:"13,keyasint,omitempty"`
	Endpoint     string             `cbor:"14,keyasint,omitempty"`
	KeyStore     string             `cbor:"15,keyasint,omitempty"`
	RolledBack   []byte             `cbor:"16,keyasint,omitempty"`
}

type statusCertificate struct {
	Serial   []byte `cbor:"1,keyasint"` // big-endian, no leading zero
	SHA256   []byte `cbor:"2,keyasint"`
	NotAfter int64  `cbor:"3,keyasint"` // Unix time
	Expired  bool   `cbor:"4,keyasint,omitempty"`
}

func encodeStatus(s enrol.DeviceStatus) ([]byte, error) {
	out := status{
		Version: wireVersion, Agent: s.Version, Identity: s.Identity.String(),
		Unconfirmed: s.Unconfirmed, LastError: truncate(s.LastError, maxDetail), Time: s.Time.Unix(),
		Anchors:   make([][]byte, 0, len(s.Anchors)),
		KeyAndCSR: microseconds(s.KeyAndCSR), Verification: microseconds(s.Verification),
		AnchorSerial: s.AnchorSerial, Endpoint: truncate(s.Endpoint, maxEndpoint), KeyStore: truncate(s.KeyStore, maxKeyStore),
	}
	if s.RolledBack != nil {
		out.RolledBack = s.RolledBack[:]
	}
	if s.Clock == enrol.ClockBehind {
		out.Clock = clockBehind
	}
	if s.Enrolment != nil {
		out.Enrolment = s.Enrolment[:]
	}
	for _, a := range s.Anchors {
		out.Anchors = append(out.Anchors, a[:])
	}
	var err error
	if out.Active, err = toWire(s.Active); err != nil {
		return nil, err
	}
	if out.Staged, err = toWire(s.Staged); err != nil {
		return nil, err
	}
	return encode(out)
}

func microseconds(d time.Duration) uint64 {
	return uint64(max(d, 0).Microseconds())
}

func toWire(c *enrol.DeviceCertificate) (*statusCertificate, error) {
	if c == nil {
		return nil, nil
	}
	serial, err := hex.DecodeString(c.Serial)
	if err != nil {
		return nil, fmt.Errorf("serial number %q: %w", c.Serial, err)
	}
	return &statusCertificate{serial, c.SHA256[:], c.NotAfter.Unix(), c.Expired}, nil
}

func decodeStatus(data []byte) (enrol.DeviceStatus, error) {
	var in status
	fail := func(err error) (enrol.DeviceStatus, error) { return enrol.DeviceStatus{}, err }
	if err := decode(data, &in); err != nil {
		return fail(err)
	}
	if err := checkVersion(in.Version); err != nil {
		return fail(err)
	}
	if len(in.Agent) > maxAgentVersion || len(in.LastError) > maxDetail || len(in.Anchors) > maxAnchors ||
		len(in.Endpoint) > maxEndpoint || len(in.KeyStore) > maxKeyStore ||
		in.KeyAndCSR > math.MaxInt64/1000 || in.Verification > math.MaxInt64/1000 {
		return fail(fmt.Errorf("%w: a field of the status is out of bounds", errPayload))
	}
	id, err := ibc.ParseIdentity(in.Identity)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", errPayload, err))
	}
	out := enrol.DeviceStatus{
		Version: in.Agent, Identity: id, Unconfirmed: in.Unconfirmed, LastError: in.LastError, Clock: enrol.ClockPlausible,
		KeyAndCSR:    time.Duration(in.KeyAndCSR) * time.Microsecond,
		Verification: time.Duration(in.Verification) * time.Microsecond,
		AnchorSerial: in.AnchorSerial, Endpoint: in.Endpoint, KeyStore: in.KeyStore,
	}
	if in.RolledBack != nil {
		out.RolledBack = new([32]byte)
		if err := fixed(out.RolledBack[:], in.RolledBack, "hash of a certificate"); err != nil {
			return fail(err)
		}
	}
	switch in.Clock {
	case clockPlausible:
	case clockBehind:
		out.Clock = enrol.ClockBehind
	default:
		return fail(fmt.Errorf("%w: clock state %d", errPayload, in.Clock))
	}
	if out.Time, err = toTime(in.Time); err != nil {
		return fail(err)
	}
	if in.Enrolment != nil {
		out.Enrolment = new(enrol.ID)
		if err := fixed(out.Enrolment[:], in.Enrolment, "enrolment ID"); err != nil {
			return fail(err)
		}
	}
	for _, a := range in.Anchors {
		var sum [32]byte
		if err := fixed(sum[:], a, "hash of an anchor"); err != nil {
			return fail(err)
		}
		out.Anchors = append(out.Anchors, sum)
	}
	if out.Active, err = fromWire(in.Active); err != nil {
		return fail(err)
	}
	if out.Staged, err = fromWire(in.Staged); err != nil {
		return fail(err)
	}
	return out, nil
}

func fromWire(c *statusCertificate) (*enrol.DeviceCertificate, error) {
	if c == nil {
		return nil, nil
	}
	if err := bounded(c.Serial, maxSerial, "serial number"); err != nil {
		return nil, err
	}
	notAfter, err := toTime(c.NotAfter)
	if err != nil {
		return nil, err
	}
	out := &enrol.DeviceCertificate{Serial: hex.EncodeToString(c.Serial), NotAfter: notAfter, Expired: c.Expired}
	return out, fixed(out.SHA256[:], c.SHA256, "certificate hash")
}

// truncate cuts s to at most n bytes, between characters.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
