package conformance

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Bounds of section 5.4.
const (
	maxVersionText = 64
	maxDetail      = 256
	maxSerial      = 32
	maxAnchors     = 32
	minTime        = -62135596800
	maxTime        = 253402300799
)

// status is what is looked at of section 5.4.
type status struct {
	Version     *uint64      `cbor:"0,keyasint"`
	Agent       *string      `cbor:"1,keyasint"`
	Identity    *string      `cbor:"2,keyasint"`
	Active      *certificate `cbor:"3,keyasint"`
	Staged      *certificate `cbor:"4,keyasint"`
	Enrolment   []byte       `cbor:"5,keyasint"`
	Unconfirmed bool         `cbor:"6,keyasint"`
	LastError   string       `cbor:"7,keyasint"`
	Clock       *uint64      `cbor:"8,keyasint"`
	Time        *int64       `cbor:"9,keyasint"`
	Anchors     *[][]byte    `cbor:"10,keyasint"`
}

type certificate struct {
	Serial   []byte `cbor:"1,keyasint"`
	SHA256   []byte `cbor:"2,keyasint"`
	NotAfter *int64 `cbor:"3,keyasint"`
}

// readStatus fetches and decodes the status, leniently: the rules judge it.
func (t *tester) readStatus(ctx context.Context) (*status, []byte, error) {
	out, err := t.ask(ctx, get("/status"))
	if err != nil {
		return nil, nil, err
	}
	if out.code != codes.Content {
		return nil, nil, fmt.Errorf("/status answered %s%s", out, explain(out))
	}
	body, err := t.whole(ctx, get("/status"), out)
	if err != nil {
		return nil, nil, err
	}
	var s status
	if err := cbor.Unmarshal(body, &s); err != nil {
		return nil, body, fmt.Errorf("/status: %w", err)
	}
	return &s, body, nil
}

func statusRules() []rule {
	// of makes a rule about the status as it is decoded.
	of := func(test func(t *tester, s *status) verdict) func(context.Context, *tester) verdict {
		return func(ctx context.Context, t *tester) verdict {
			s, _, err := t.readStatus(ctx)
			if err != nil {
				return skipped("%v", err)
			}
			return test(t, s)
		}
	}
	return []rule{
		{name: "status.format", section: "5.4", says: "/status answers 2.05 in CBOR", test: func(ctx context.Context, t *tester) verdict {
			_, v := t.want(ctx, get("/status"), codes.Content, formatCBOR)
			return v
		}},
		{name: "status.strict", section: "4.4", says: "it is a map without indefinite lengths, tags, duplicate keys or trailing bytes", test: func(ctx context.Context, t *tester) verdict {
			_, body, err := t.readStatus(ctx)
			if body == nil {
				return skipped("%v", err)
			}
			var s status
			return judge(strict(body, &s))
		}},
		{name: "status.deterministic", section: "4.4, RFC 8949 section 4.2.1", says: "it is in the deterministic encoding", test: statusDeterministic},
		{name: "status.version", section: "4.4", says: "its version is 1", test: of(func(_ *tester, s *status) verdict {
			if s.Version == nil || *s.Version != 1 {
				return failed("%s", show(s.Version))
			}
			return verdict{}
		})},
		{name: "status.fields", section: "5.4", says: "all fields that must be there are, within their bounds", test: of(func(_ *tester, s *status) verdict { return judge(s.check()) })},
		{name: "status.identity", section: "5.4", says: "its identity is that of the handshake", test: of(statusIdentity)},
	}
}

func show[T any](v *T) string {
	if v == nil {
		return "it is missing"
	}
	return fmt.Sprintf("it is %v", *v)
}

// check applies the bounds of section 5.4.
func (s *status) check() error {
	switch {
	case s.Agent == nil || len(*s.Agent) > maxVersionText:
		return fmt.Errorf("1, version of the software: %s", show(s.Agent))
	case s.Identity == nil:
		return fmt.Errorf("2, identity: %s", show(s.Identity))
	case s.Enrolment != nil && len(s.Enrolment) != idSize:
		return fmt.Errorf("5, enrolment ID: %d bytes", len(s.Enrolment))
	case len(s.LastError) > maxDetail:
		return fmt.Errorf("7, last error: %d bytes", len(s.LastError))
	case s.Clock == nil || *s.Clock > 1:
		return fmt.Errorf("8, clock: %s", show(s.Clock))
	case s.Time == nil || *s.Time < minTime || *s.Time > maxTime:
		return fmt.Errorf("9, time: %s", show(s.Time))
	case s.Anchors == nil || len(*s.Anchors) > maxAnchors:
		return fmt.Errorf("10, trust anchors: %s", show(s.Anchors))
	}
	for _, a := range *s.Anchors {
		if len(a) != hashSize {
			return fmt.Errorf("10, trust anchors: a hash of %d bytes", len(a))
		}
	}
	for key, c := range map[int]*certificate{3: s.Active, 4: s.Staged} {
		if c == nil {
			continue
		}
		if len(c.Serial) == 0 || len(c.Serial) > maxSerial || len(c.SHA256) != hashSize || c.NotAfter == nil {
			return fmt.Errorf("%d, certificate: a serial number of %d bytes, a hash of %d, NotAfter %s", key, len(c.Serial), len(c.SHA256), show(c.NotAfter))
		}
	}
	return nil
}

func statusIdentity(t *tester, s *status) verdict {
	b, err := t.first.bound()
	if err != nil || s.Identity == nil {
		return skipped("one of the two is missing")
	}
	if *s.Identity != b.Identity {
		if _, err := ibc.ParseIdentity(b.Identity); err == nil {
			return failed("%q instead of %q", *s.Identity, b.Identity)
		}
		return skipped("the binding has none")
	}
	return verdict{}
}

func statusDeterministic(ctx context.Context, t *tester) verdict {
	_, body, err := t.readStatus(ctx)
	if body == nil {
		return skipped("%v", err)
	}
	var any map[uint64]any
	if err := strict(body, &any); err != nil {
		return skipped("it is no such map")
	}
	again, err := item(any)
	if err != nil {
		return skipped("%v", err)
	}
	if !bytes.Equal(again, body) {
		return failed("%x instead of %x", body, again)
	}
	return verdict{}
}
