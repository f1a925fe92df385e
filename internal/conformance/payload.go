package conformance

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// pair is one entry of a map in CBOR; pairs stand in ascending order of keys.
type pair struct {
	key   int
	value any
}

const (
	unknownKey = 1000 // of no payload
	idSize     = 16
	hashSize   = 32
)

// item encodes in the deterministic way (RFC 8949 section 4.2.1).
func item(v any) ([]byte, error) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("set up encoder: %w", err)
	}
	return mode.Marshal(v)
}

// encodeMap encodes a map with the pairs in the given order, so that also what
// is not allowed can be sent.
func encodeMap(pairs ...pair) ([]byte, error) {
	if len(pairs) > 23 {
		return nil, fmt.Errorf("a map of %d pairs", len(pairs))
	}
	out := []byte{0xa0 | byte(len(pairs))}
	for _, p := range pairs {
		for _, v := range []any{p.key, p.value} {
			b, err := item(v)
			if err != nil {
				return nil, err
			}
			out = append(out, b...)
		}
	}
	return out, nil
}

// stranger returns the pairs that name a certificate of an enrolment that
// nobody began.
func (t *tester) stranger() ([]pair, error) {
	random, err := t.draw(idSize + hashSize)
	if err != nil {
		return nil, err
	}
	return []pair{{0, 1}, {1, random[:idSize]}, {2, random[idSize:]}}, nil
}

// reference is the body of /activate, /confirm and /rollback for such a
// certificate, with more pairs behind.
func (t *tester) reference(more ...pair) ([]byte, error) {
	pairs, err := t.stranger()
	if err != nil {
		return nil, err
	}
	return encodeMap(append(pairs, more...)...)
}

// problem is the problem details of a response (RFC 9290).
type problem struct {
	Title  string `cbor:"-1,keyasint"`
	Detail string `cbor:"-2,keyasint"`
}

// strict decodes what a device sent as section 4.4 has it.
func strict(data []byte, v any) error {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 32, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		return fmt.Errorf("set up decoder: %w", err)
	}
	return mode.Unmarshal(data, v)
}

// explain quotes the problem of a response, for a person.
func explain(r *response) string {
	var p problem
	if r.format != formatProblem || strict(r.body, &p) != nil {
		return ""
	}
	return fmt.Sprintf(": %.40q, %.256q", p.Title, p.Detail)
}

func payloadRules() []rule {
	// body makes a rule: this body for /activate has that response.
	body := func(code codes.Code, title string, change func(t *tester) ([]byte, error)) func(context.Context, *tester) verdict {
		return func(ctx context.Context, t *tester) verdict {
			b, err := change(t)
			if err != nil {
				return judge(err)
			}
			return t.refused(ctx, post("/activate", b), code, title)
		}
	}
	malformed := func(change func(t *tester) ([]byte, error)) func(context.Context, *tester) verdict {
		return body(codes.BadRequest, "bad-request", change)
	}
	return []rule{
		{name: "problem.details", section: "4.5, RFC 9290", says: "a refusal carries problem details with a title of the list", test: problemFormat},
		{name: "enrolment.unknown", section: "4.5, 5.3", says: "an enrolment that nobody began is 4.04 unknown at every resource", test: enrolmentUnknown},
		{name: "cbor.unknown-key", section: "4.4", says: "keys that are not known are ignored", test: body(codes.NotFound, "unknown", func(t *tester) ([]byte, error) {
			return t.reference(pair{unknownKey, []any{"x", []byte{1}, true}})
		})},
		{name: "cbor.longer-form", section: "4.4", says: "numbers and lengths in longer forms are accepted", test: body(codes.NotFound, "unknown", func(t *tester) ([]byte, error) {
			b, err := t.reference()
			// 0: 1 in five bytes, then the rest.
			return append([]byte{0xa3, 0x18, 0x00, 0x1a, 0, 0, 0, 1}, b[3:]...), err
		})},
		{name: "cbor.version", section: "4.4, 9", says: "another version is refused", test: malformed(func(t *tester) ([]byte, error) {
			pairs, err := t.stranger()
			if err != nil {
				return nil, err
			}
			pairs[0].value = 2
			return encodeMap(pairs...)
		})},
		{name: "cbor.no-version", section: "4.4, 9", says: "so is none", test: malformed(func(t *tester) ([]byte, error) {
			pairs, err := t.stranger()
			if err != nil {
				return nil, err
			}
			return encodeMap(pairs[1:]...)
		})},
		{name: "cbor.size", section: "4.4", says: "an enrolment ID of another size is refused", test: malformed(func(t *tester) ([]byte, error) {
			pairs, err := t.stranger()
			if err != nil {
				return nil, err
			}
			pairs[1].value = make([]byte, idSize+1)
			return encodeMap(pairs...)
		})},
		{name: "cbor.duplicate-key", section: "4.4, RFC 8949 section 5.6", says: "a key that comes twice is refused", test: malformed(func(t *tester) ([]byte, error) {
			return t.reference(pair{0, 1})
		})},
		{name: "cbor.indefinite", section: "4.4", says: "a map of indefinite length is refused", test: malformed(func(t *tester) ([]byte, error) {
			b, err := t.reference()
			b[0] = 0xbf
			return append(b, 0xff), err
		})},
		{name: "cbor.tag", section: "4.4", says: "a tag is refused", test: malformed(func(t *tester) ([]byte, error) {
			return t.reference(pair{unknownKey, cbor.Tag{Number: 1, Content: 0}})
		})},
		{name: "cbor.behind", section: "4.4", says: "bytes behind the map are refused", test: malformed(func(t *tester) ([]byte, error) {
			b, err := t.reference()
			return append(b, 0), err
		})},
		{name: "cbor.cut-off", section: "4.4", says: "a map that is cut off is refused", test: malformed(func(t *tester) ([]byte, error) {
			b, err := t.reference()
			return b[:len(b)-1], err
		})},
		{name: "cbor.no-map", section: "4.4", says: "what is no map is refused", test: malformed(func(*tester) ([]byte, error) { return []byte{0x83, 1, 2, 3}, nil })},
	}
}

// refused asks and wants a refusal with that code and title.
func (t *tester) refused(ctx context.Context, r request, code codes.Code, title string) verdict {
	out, err := t.ask(ctx, r)
	if err != nil {
		return judge(err)
	}
	if out.code != code {
		return failed("%s answered %s instead of %s %s%s", r.path, out, codeText(code), title, explain(out))
	}
	var p problem
	if out.format == formatProblem && strict(out.body, &p) == nil && p.Title != title && len(p.Title) > 0 {
		return failed("%s calls it %q instead of %q", r.path, p.Title, title)
	}
	return verdict{outcome: Pass}
}

func problemFormat(ctx context.Context, t *tester) verdict {
	b, err := t.reference()
	if err != nil {
		return judge(err)
	}
	out, err := t.ask(ctx, post("/activate", b))
	if err != nil {
		return judge(err)
	}
	if out.code>>5 < 4 {
		return skipped("it is no refusal: %s", out)
	}
	var p problem
	switch err := strict(out.body, &p); {
	case out.format != formatProblem:
		return failed("%s, its payload is in format %d instead of %d", codeText(out.code), out.format, formatProblem)
	case err != nil:
		return failed("the problem details: %v", err)
	case p.Title != "unknown":
		return failed("the title of %s is %q", codeText(out.code), p.Title)
	case len(p.Detail) > 256 || !utf8.ValidString(p.Detail):
		return failed("a detail of %d bytes", len(p.Detail))
	}
	return verdict{}
}

func enrolmentUnknown(ctx context.Context, t *tester) verdict {
	var verdicts []verdict
	for _, path := range []string{"/activate", "/confirm", "/rollback"} {
		b, err := t.reference()
		if err != nil {
			return judge(err)
		}
		verdicts = append(verdicts, t.refused(ctx, post(path, b), codes.NotFound, "unknown"))
	}
	b, err := t.verification(nil, t.lonely)
	if err != nil {
		return judge(err)
	}
	return all(append(verdicts, t.refused(ctx, post("/verify-certificate", b), codes.NotFound, "unknown"))...)
}
