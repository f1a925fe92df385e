package coaplink

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// fold breaks text in diagnostic notation into lines, behind commas as far as
// there are any.
func fold(text string) string {
	const width = 110
	var out strings.Builder
	for line := ""; ; {
		part, rest, more := strings.Cut(text, ", ")
		if more {
			part += ", "
		}
		if line != "" && len(line)+len(part) > width {
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			line = " "
		}
		for line += part; len(line) > width; line = " " + line[width:] {
			out.WriteString(line[:width] + "\n")
		}
		if text = rest; !more {
			out.WriteString(line + "\n")
			return out.String()
		}
	}
}

// unhexListing reads what dump wrote.
func unhexListing(t *testing.T, listing string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(listing), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asn1Listing writes one line for each element of DER: its offset, depth,
// type and content. The binding is looked into.
func asn1Listing(t *testing.T, der []byte) string {
	t.Helper()
	names := map[int]string{
		asn1.TagInteger: "INTEGER", asn1.TagBitString: "BIT STRING", asn1.TagOctetString: "OCTET STRING", asn1.TagOID: "OBJECT IDENTIFIER",
		asn1.TagUTF8String: "UTF8String", asn1.TagSequence: "SEQUENCE", asn1.TagSet: "SET", asn1.TagUTCTime: "UTCTime", asn1.TagGeneralizedTime: "GeneralizedTime",
	}
	var out strings.Builder
	var walk func(offset, depth int, b []byte)
	walk = func(offset, depth int, b []byte) {
		for len(b) > 0 {
			var v asn1.RawValue
			rest, err := asn1.Unmarshal(b, &v)
			if err != nil {
				t.Fatal(err)
			}
			name := names[v.Tag]
			if v.Class == asn1.ClassContextSpecific {
				name = fmt.Sprintf("[%d]", v.Tag)
			}
			head := len(v.FullBytes) - len(v.Bytes)
			fmt.Fprintf(&out, "%4d %4d  %s%s", offset, len(v.FullBytes), strings.Repeat("  ", depth), name)
			var oid asn1.ObjectIdentifier
			_, notOID := asn1.Unmarshal(v.FullBytes, &oid)
			inside := v.Tag == asn1.TagOctetString && len(v.Bytes) > 2*ibc.SignatureSize-50 && v.Bytes[0] == 0x30
			switch {
			case v.IsCompound || inside:
				out.WriteString("\n")
				walk(offset+head, depth+1, v.Bytes)
			case notOID == nil:
				fmt.Fprintf(&out, " %s\n", oid)
			default:
				fmt.Fprintf(&out, " %s\n", text(v.Bytes))
			}
			offset += len(v.FullBytes)
			b = rest
		}
	}
	walk(0, 0, der)
	return out.String()
}

// signatureExamples are signatures over the messages of the vectors: by the
// identity's key with a k derived from zero bytes, by a key of P-256 with the k
// of RFC 6979.
func signatureExamples(t *testing.T, device *ibc.PrivateKey, v vectors, out map[string]string) {
	t.Helper()
	for _, m := range v.Messages {
		raw, err := hex.DecodeString(m.LP)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(m.What, "statement"):
			signature, err := device.Sign(zeros{}, raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := device.Params().Verify(device.Identity(), raw, signature); err != nil {
				t.Fatal(err)
			}
			out["statement-signature"] = dump(signature)
		case strings.HasPrefix(m.What, "possession"):
			key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{0x42}, 32))
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256(raw)
			signature, err := key.Sign(nil, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if err := enrol.CheckPossession(key.Public(), raw, signature); err != nil {
				t.Fatal(err)
			}
			public, err := key.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			out["possession-signature"] = fmt.Sprintf("private key, scalar\n%spublic key, point\n%ssignature, DER\n%s",
				dump(bytes.Repeat([]byte{0x42}, 32)), dump(public), dump(signature))
		}
	}
}

// exchangeExamples are whole messages of CoAP, with their parts beside them.
func exchangeExamples(t *testing.T, out map[string]string) {
	t.Helper()
	lines := func(messages ...func(*pool.Message)) string {
		var text strings.Builder
		for _, change := range messages {
			m := pool.NewMessage(context.Background())
			m.SetMessageID(0x1235)
			change(m)
			data, err := m.MarshalWithEncoder(coder.DefaultCoder)
			if err != nil {
				t.Fatal(err)
			}
			text.WriteString(messageListing(t, data))
		}
		return text.String()
	}
	token := message.Token{1, 2, 3, 4, 5, 6, 7, 8}
	request := func(code codes.Code, path string, more func(*pool.Message)) func(*pool.Message) {
		return func(m *pool.Message) {
			m.SetType(message.Confirmable)
			m.SetCode(code)
			m.SetToken(token)
			m.MustSetPath(path)
			more(m)
		}
	}
	answer := func(code codes.Code, more func(*pool.Message)) func(*pool.Message) {
		return func(m *pool.Message) {
			m.SetType(message.Acknowledgement)
			m.SetCode(code)
			m.SetToken(token)
			more(m)
		}
	}
	bare := func(typ message.Type) func(*pool.Message) {
		return func(m *pool.Message) {
			m.SetType(typ)
			m.SetCode(codes.Empty)
		}
	}
	body := func(format message.MediaType, b []byte) func(*pool.Message) {
		return func(m *pool.Message) {
			m.SetContentFormat(format)
			m.SetBody(bytes.NewReader(b))
		}
	}
	option := func(id message.OptionID, value uint32) func(*pool.Message) {
		return func(m *pool.Message) { m.AddOptionBytes(id, uintOption(id, value).Value) }
	}
	tag := func(m *pool.Message) { m.AddOptionBytes(optionRequestTag, bytes.Repeat([]byte{0x77}, 8)) }
	all := func(changes ...func(*pool.Message)) func(*pool.Message) {
		return func(m *pool.Message) {
			for _, c := range changes {
				c(m)
			}
		}
	}
	reference, err := encodeReference(enrol.ID(bytes.Repeat([]byte{1}, enrol.IDSize)), [32]byte(bytes.Repeat([]byte{0xce}, 32)), 0)
	if err != nil {
		t.Fatal(err)
	}
	refusal, err := encodeProblem(&enrol.DeviceError{Problem: enrol.ProblemConflict})
	if err != nil {
		t.Fatal(err)
	}
	nothing := func(*pool.Message) {}
	out["coap-exchange"] = lines(
		request(codes.POST, pathConfirm, all(tag, body(formatCBOR, reference))),
		answer(codes.Changed, nothing),
		answer(codeConflict, body(formatProblem, refusal)),
	)
	out["coap-ping"] = lines(bare(message.Confirmable), bare(message.Reset))
	out["coap-separate"] = lines(bare(message.Acknowledgement), func(m *pool.Message) {
		m.SetMessageID(0x7001)
		m.SetType(message.Confirmable)
		m.SetCode(codes.Changed)
		m.SetToken(token)
	}, func(m *pool.Message) {
		m.SetMessageID(0x7001)
		m.SetType(message.Acknowledgement)
		m.SetCode(codes.Empty)
	})
	next := block{num: 1, szx: maxSZX}
	out["coap-blocks"] = lines(
		answer(codes.Continue, option(message.Block1, block{num: 0, more: true, szx: maxSZX}.value())),
		answer(codes.RequestEntityIncomplete, option(message.Block1, next.value())),
		answer(codes.RequestEntityTooLarge, option(message.Block1, block{szx: 4}.value())),
		answer(codes.Content, all(
			func(m *pool.Message) { m.AddOptionBytes(message.ETag, bytes.Repeat([]byte{0xe7}, 8)) },
			option(message.ContentFormat, uint32(formatLinks)),
			option(message.Block2, block{num: 0, more: true, szx: 2}.value()))),
		request(codes.GET, pathCore, all(tag, option(message.Block2, block{num: 1, szx: 2}.value()))),
	)
	out["core-links"] = strings.ReplaceAll(coreLinks, ",", ",\n") + "\n"
}

// messageListing takes a message of CoAP apart (RFC 7252 section 3).
func messageListing(t *testing.T, data []byte) string {
	t.Helper()
	m := pool.NewMessage(context.Background())
	if _, err := m.UnmarshalWithDecoder(coder.DefaultCoder, data); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	line := func(n int, format string, args ...any) {
		fmt.Fprintf(&out, "%-20x  %s\n", data[:n], fmt.Sprintf(format, args...))
		data = data[n:]
	}
	line(4, "%s %d.%02d, message ID %04x, %d bytes of token", typeName(m.Type()), m.Code()>>5, m.Code()&0x1f, m.MessageID(), len(m.Token()))
	if n := len(m.Token()); n > 0 {
		line(n, "  token")
	}
	for _, o := range m.Options() {
		// Deltas and lengths of up to 12 stand in the first byte, up to 268 in one more.
		head := 1
		for _, nibble := range []byte{data[0] >> 4, data[0] & 0xf} {
			head += map[byte]int{13: 1, 14: 2}[nibble]
		}
		line(head+len(o.Value), "  %s", optionText(o))
	}
	if len(data) > 0 {
		line(1, "  payload")
		out.WriteString(dump(data))
	}
	return out.String()
}

func typeName(typ message.Type) string {
	switch typ {
	case message.Confirmable:
		return "CON"
	case message.Acknowledgement:
		return "ACK"
	case message.Reset:
		return "RST"
	}
	return "NON"
}

func optionText(o message.Option) string {
	number := uint32(0)
	for _, b := range o.Value {
		number = number<<8 | uint32(b)
	}
	switch o.ID {
	case message.URIPath:
		return fmt.Sprintf("Uri-Path: %s", o.Value)
	case message.ContentFormat:
		return fmt.Sprintf("Content-Format: %d", number)
	case message.ETag:
		return "ETag"
	case optionRequestTag:
		return "Request-Tag"
	case message.Block1, message.Block2:
		return fmt.Sprintf("Block%d: NUM %d, M %d, SZX %d", map[message.OptionID]int{message.Block1: 1, message.Block2: 2}[o.ID], number>>4, number>>3&1, number&7)
	}
	return o.ID.String()
}
