package conformance

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"

	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// broken is a device that breaks one rule.
type broken struct {
	breakage
	warns bool     // the rule only warns
	too   []string // rules that cannot hold either
}

func breakages() map[string]broken {
	out := map[string]broken{}
	for _, some := range []map[string]broken{brokenHandshakes(), brokenBindings(), brokenCoAP(), brokenBlocks(), brokenPayloads(), brokenStatus(), brokenSlots()} {
		for name, b := range some {
			out[name] = b
		}
	}
	return out
}

func options(o ...dtls.ServerOption) broken { return broken{breakage: breakage{options: o}} }

func brokenHandshakes() map[string]broken {
	warn := func(b broken) broken {
		b.warns = true
		return b
	}
	also := func(b broken, rules ...string) broken {
		b.too = rules
		return b
	}
	never := func([][]byte) error { return notCLM{} }
	return map[string]broken{
		"dtls.handshake":   {breakage: breakage{verify: never}},
		"dtls.cookie":      options(dtls.WithInsecureSkipVerifyHello(true)),
		"dtls.suite":       warn(options(dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256))),
		"dtls.ems":         also(options(dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret)), "dtls.no-ems"),
		"dtls.cid":         warn(options(dtls.WithConnectionIDGenerator(dtls.RandomCIDGenerator(4)))),
		"dtls.record":      also(broken{breakage: breakage{options: []dtls.ServerOption{dtls.WithMTU(8000)}, certify: oversized(2500)}}, "binding.size"),
		"dtls.other-suite": options(dtls.WithCipherSuites(append(ours(), dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8)...)),
		"dtls.no-ems":      options(dtls.WithExtendedMasterSecret(dtls.RequestExtendedMasterSecret)),
		"dtls.no-certificate": options(dtls.WithClientAuth(dtls.RequestClientCert), dtls.WithVerifyPeerCertificate(
			func(certificates [][]byte, _ [][]*x509.Certificate) error {
				if len(certificates) == 1 && !bytes.Contains(certificates[0], []byte("edgeclm/v1/clm")) {
					return notCLM{}
				}
				return impostor(certificates)
			})),
		"dtls.stranger": {breakage: breakage{verify: func(certificates [][]byte) error {
			if !bytes.Contains(certificates[0], []byte("edgeclm/v1/clm")) {
				return nil
			}
			return impostor(certificates)
		}}},
		"dtls.impostor": {breakage: breakage{verify: func(certificates [][]byte) error {
			if bytes.Contains(certificates[0], []byte("edgeclm/v1/clm")) {
				return nil
			}
			return notCLM{}
		}}},
	}
}

// impostor refuses the CLM's binding around the key of strangers, which live
// until 2106.
func impostor(certificates [][]byte) error {
	if len(certificates) == 0 {
		return nil
	}
	c, err := x509.ParseCertificate(certificates[0])
	if err != nil || c.NotAfter.Year() < 9999 {
		return notCLM{}
	}
	return nil
}

// oversized makes a certificate longer by its subject.
func oversized(by int) func(*impersonator, []byte) [][]byte {
	return func(p *impersonator, random []byte) [][]byte {
		s := p.right(random)
		s.subject = strings.Repeat("x", by)
		return [][]byte{p.certificate(s)}
	}
}

func brokenBindings() map[string]broken {
	certify := func(change func(p *impersonator, s *shape)) broken {
		return broken{breakage: breakage{certify: func(p *impersonator, random []byte) [][]byte {
			s := p.right(random)
			change(p, &s)
			return [][]byte{p.certificate(s)}
		}}}
	}
	named := func(role ibc.Role, name string, generation uint32) broken {
		return certify(func(p *impersonator, s *shape) {
			id, _ := ibc.NewIdentity(role, name, 1, generation)
			s.key, _ = p.master.Extract(id)
		})
	}
	also := func(b broken, rules ...string) broken {
		b.too = rules
		return b
	}
	return map[string]broken{
		"binding.one": {breakage: breakage{certify: func(p *impersonator, random []byte) [][]byte {
			c := p.certificate(p.right(random))
			return [][]byte{c, c}
		}}},
		"binding.size": {breakage: breakage{certify: oversized(700)}},
		"binding.certificate": certify(func(_ *impersonator, s *shape) {
			s.extension = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 128}}}
		}),
		"binding.encoding": certify(func(_ *impersonator, s *shape) { s.version = 2 }),
		"binding.params":   certify(func(_ *impersonator, s *shape) { s.paramsID = make([]byte, 32) }),
		"binding.identity": also(named(ibc.RoleDevice, "plc-2", 2), "status.identity", "verify.proof"),
		"binding.context": certify(func(_ *impersonator, s *shape) {
			s.context = append([]byte{s.context[0] ^ 1}, s.context[1:]...)
		}),
		"binding.signature": certify(func(_ *impersonator, s *shape) { s.flip = true }),
		"binding.key":       {warns: true, breakage: breakage{newKey: true}},
		"binding.fresh": {breakage: breakage{certify: func(p *impersonator, random []byte) [][]byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.cached == nil {
				p.cached = [][]byte{p.certificate(p.right(random))}
			}
			return p.cached
		}}},
	}
}

// path returns what a request is about.
func path(m *message.Message) string {
	p, _ := m.Options.Path()
	return p
}

func has(m *message.Message, id message.OptionID) bool { return m.Options.HasOption(id) }

func number(m *message.Message, id message.OptionID) int {
	v, err := m.Options.GetUint32(id)
	if err != nil {
		return -1
	}
	return int(v)
}

// says is a device that answers some requests with another code.
func says(code codes.Code, when func(request, response *message.Message) bool) broken {
	return broken{breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
		if when(request, response) {
			response.Code = code
		}
		return true
	}}}
}

// ignores is a device that does not see something in a request.
func ignores(change func(m *message.Message)) broken {
	return broken{breakage: breakage{request: func(_ *impersonator, m *message.Message) { change(m) }}}
}

func brokenCoAP() map[string]broken {
	about := func(p string, more func(request *message.Message) bool) func(request, response *message.Message) bool {
		return func(request, _ *message.Message) bool { return path(request) == p && more(request) }
	}
	return map[string]broken{
		"coap.core": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if path(request) == "/.well-known/core" && !has(request, message.Block2) {
				response.Options = response.Options.Set(message.Option{ID: message.ContentFormat, Value: nil})
			}
			return true
		}}},
		"coap.ping": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if request.Code == codes.Empty {
				response.Type = message.Acknowledgement
			}
			return true
		}}},
		"coap.ping-busy": brokenWhileBusy(),
		"coap.token": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if len(request.Token) == 8 && request.Type == message.Confirmable {
				response.Token = response.Token[:4]
			}
			return true
		}}},
		"coap.duplicate": {breakage: breakage{respond: func(p *impersonator, request, response *message.Message) bool {
			if path(request) == "/status" && p.count(fmt.Sprint(request.MessageID)) > 1 {
				response.Payload = append(bytes.Clone(response.Payload), 0)
			}
			return true
		}}},
		"coap.non-confirmable": {warns: true, breakage: breakage{
			request: func(_ *impersonator, m *message.Message) { m.Type = message.Confirmable },
			respond: func(_ *impersonator, request, response *message.Message) bool {
				if request.Type == message.NonConfirmable {
					response.Type = message.NonConfirmable
				}
				return true
			},
		}},
		"coap.critical-option": ignores(func(m *message.Message) { m.Options = m.Options.Remove(unknownCritical) }),
		"coap.uri-query":       ignores(func(m *message.Message) { m.Options = m.Options.Remove(message.URIQuery) }),
		"coap.elective-option": says(codes.BadOption, func(request, _ *message.Message) bool { return has(request, unknownElective) }),
		"coap.uri-host":        says(codes.BadOption, func(request, _ *message.Message) bool { return has(request, message.URIHost) }),
		"coap.not-found":       says(codes.BadRequest, about("/no-such-resource", func(*message.Message) bool { return true })),
		"coap.method":          says(codes.NotFound, about("/activate", func(m *message.Message) bool { return m.Code == codes.GET })),
		"coap.content-format": ignores(func(m *message.Message) {
			if number(m, message.ContentFormat) == formatJSON {
				m.Options = m.Options.Set(message.Option{ID: message.ContentFormat, Value: []byte{formatCBOR}})
			}
		}),
		"coap.accept": ignores(func(m *message.Message) {
			if number(m, message.Accept) == formatJSON {
				m.Options = m.Options.Remove(message.Accept)
			}
		}),
	}
}

// brokenWhileBusy is a device that keeps a response until pings have gone
// unanswered.
func brokenWhileBusy() broken {
	return broken{breakage: breakage{
		request: func(p *impersonator, m *message.Message) {
			busy := p.count("busy") - 1
			p.mu.Lock()
			defer p.mu.Unlock()
			p.seen["busy"] = busy
			switch {
			case path(m) == "/activate" && len(m.Options) == 2 && busy == 0:
				// Held back: the device sees an empty message that nobody answers.
				p.seen["busy"] = 1
				p.held = *m
				m.Type, m.Code, m.Token, m.Options, m.Payload = message.Reset, codes.Empty, nil, nil, nil
			case m.Code == codes.Empty && busy > 0 && busy <= unansweredPings+1:
				p.seen["busy"]++
				m.Type = message.Reset
				if busy == unansweredPings+1 {
					*m = p.held
				}
			}
		},
	}}
}

// tagged is a request of an upload, with its tag and block.
func tagged(m *message.Message) (tag string, b block, ok bool) {
	raw, err := m.Options.GetBytes(optionRequestTag)
	v := number(m, message.Block1)
	if err != nil || v < 0 {
		return "", block{}, false
	}
	return string(raw), block{num: v >> 4, more: v&8 != 0, szx: v & 7}, true
}

func brokenBlocks() map[string]broken {
	uploads := func(change func(p *impersonator, tag string, b block, request, response *message.Message)) broken {
		return broken{breakage: breakage{respond: func(p *impersonator, request, response *message.Message) bool {
			if tag, b, ok := tagged(request); ok && path(request) == "/verify-certificate" {
				change(p, tag, b, request, response)
			}
			return true
		}}}
	}
	return map[string]broken{
		"block.upload": uploads(func(p *impersonator, tag string, b block, _, response *message.Message) {
			if p.count("tag " + tag); len(p.seen) == 1 && !b.more {
				response.Code = codes.InternalServerError
			}
		}),
		"block.upload-small": uploads(func(_ *impersonator, _ string, b block, _, response *message.Message) {
			if b.szx == 2 && !b.more {
				response.Code = codes.InternalServerError
			}
		}),
		"block.repeated": uploads(func(p *impersonator, tag string, b block, request, response *message.Message) {
			where := fmt.Sprint(tag, b.num)
			if p.count(where+fmt.Sprint(request.MessageID)) == 1 && p.count(where) > 1 && response.Code == codes.Continue {
				response.Code = codes.RequestEntityIncomplete
			}
		}),
		"block.gap": uploads(func(p *impersonator, tag string, _ block, _, response *message.Message) {
			if known := p.count(tag) > 1; known && response.Code == codes.RequestEntityIncomplete {
				response.Code = codes.Continue
			}
		}),
		"block.tag": uploads(func(p *impersonator, tag string, _ block, _, response *message.Message) {
			if known := p.count(tag) > 1; !known && response.Code == codes.RequestEntityIncomplete {
				response.Code = codes.Continue
			}
		}),
		"block.reserved":  says(codes.NotFound, func(request, _ *message.Message) bool { return number(request, message.Block1) == 7 }),
		"block.too-large": says(codes.RequestEntityIncomplete, func(_, response *message.Message) bool { return response.Code == codes.RequestEntityTooLarge }),
		"block.download": ignores(func(m *message.Message) {
			if number(m, message.Block2) == 1 {
				m.Options = m.Options.Remove(message.Block2)
			}
		}),
		"block.download-lost": says(codes.Content, func(request, _ *message.Message) bool { return number(request, message.Block2)>>4 == 40 }),
	}
}

func brokenStatus() map[string]broken {
	// body is a device with another body of its status.
	body := func(change func([]byte) []byte) broken {
		return broken{breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if path(request) == "/status" && response.Code == codes.Content {
				response.Payload = change(bytes.Clone(response.Payload))
			}
			return true
		}}}
	}
	// fields is one with other fields, encoded as it should be.
	fields := func(change func(map[uint64]any)) broken {
		return body(func(b []byte) []byte {
			var m map[uint64]any
			if strict(b, &m) != nil {
				return b
			}
			change(m)
			out, _ := item(m)
			return out
		})
	}
	return map[string]broken{
		"status.format": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if path(request) == "/status" && response.Code == codes.Content {
				response.Options = response.Options.Set(message.Option{ID: message.ContentFormat, Value: []byte{formatJSON}})
			}
			return true
		}}},
		"status.strict": body(func(b []byte) []byte {
			b[0] = 0xbf
			return append(b, 0xff)
		}),
		"status.deterministic": body(func(b []byte) []byte {
			return append([]byte{b[0], b[1], 0x18, 1}, b[3:]...) // 0: 1 in two bytes
		}),
		"status.version":  fields(func(m map[uint64]any) { m[0] = 2 }),
		"status.fields":   fields(func(m map[uint64]any) { m[8] = 2 }),
		"status.identity": fields(func(m map[uint64]any) { m[2] = "edgeclm/v1/dev/plc-9/e1.g2" }),
	}
}

func brokenPayloads() map[string]broken {
	// accepts is a device that takes what it should find malformed.
	accepts := func(when func(body []byte) bool) broken {
		return says(codes.NotFound, func(request, response *message.Message) bool {
			return path(request) == "/activate" && response.Code == codes.BadRequest && when(request.Payload)
		})
	}
	unknown := []byte{0x19, 0x03, 0xe8} // key 1000
	return map[string]broken{
		"problem.details": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if path(request) == "/activate" && response.Code == codes.NotFound {
				response.Options = response.Options.Set(message.Option{ID: message.ContentFormat, Value: []byte{formatCBOR}})
			}
			return true
		}}},
		"enrolment.unknown": says(codes.Changed, func(request, response *message.Message) bool {
			return path(request) == "/confirm" && response.Code == codes.NotFound
		}),
		"cbor.unknown-key": says(codes.BadRequest, func(request, _ *message.Message) bool {
			return path(request) == "/activate" && bytes.Contains(request.Payload, unknown)
		}),
		"cbor.longer-form": says(codes.BadRequest, func(request, _ *message.Message) bool { return bytes.HasPrefix(request.Payload, []byte{0xa3, 0x18, 0}) }),
		"cbor.version": ignores(func(m *message.Message) {
			if bytes.HasPrefix(m.Payload, []byte{0xa3, 0, 2}) {
				m.Payload[2] = 1
			}
		}),
		"cbor.no-version":    accepts(func(b []byte) bool { return b[0] == 0xa2 }),
		"cbor.size":          accepts(func(b []byte) bool { return bytes.HasPrefix(b, []byte{0xa3, 0, 1, 1, 0x51}) }),
		"cbor.duplicate-key": accepts(func(b []byte) bool { return b[0] == 0xa4 && bytes.HasSuffix(b, []byte{0, 1}) }),
		"cbor.indefinite":    accepts(func(b []byte) bool { return b[0] == 0xbf }),
		"cbor.tag":           accepts(func(b []byte) bool { return bytes.HasSuffix(b, append(slices.Clone(unknown), 0xc1, 0)) }),
		"cbor.behind":        accepts(func(b []byte) bool { return b[0] == 0xa3 && b[4] == 0x50 && len(b) == 57 }),
		"cbor.cut-off":       accepts(func(b []byte) bool { return b[0] == 0xa3 && len(b) == 55 }),
		"cbor.no-map":        accepts(func(b []byte) bool { return b[0] == 0x83 }),
	}
}

func brokenSlots() map[string]broken {
	at := func(p string, code codes.Code) func(request, response *message.Message) bool {
		return func(request, response *message.Message) bool { return path(request) == p && response.Code == code }
	}
	const csr, verify = "/csr-generation-request", "/verify-certificate"
	// nth is a device that gives another answer to one of several refusals.
	nth := func(n int, p string, code, instead codes.Code) broken {
		return broken{breakage: breakage{respond: func(i *impersonator, request, response *message.Message) bool {
			if !at(p, code)(request, response) || i.count(fmt.Sprint(request.MessageID)) > 1 {
				return true
			}
			if i.count("refused") == n {
				response.Code = instead
			}
			return true
		}}}
	}
	flip := func(when func(request, response *message.Message) bool) broken {
		return broken{breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if when(request, response) {
				response.Payload = bytes.Clone(response.Payload)
				response.Payload[len(response.Payload)-1] ^= 1
			}
			return true
		}}}
	}
	return map[string]broken{
		"csr.unknown-ca": says(codes.Forbidden, at(csr, codes.NotFound)),
		"csr.names":      says(codes.BadRequest, at(csr, codes.Forbidden)),
		"csr.made":       flip(at(csr, codes.Changed)),
		"csr.repeated": flip(func(request, response *message.Message) bool {
			return at(csr, codes.Changed)(request, response) && bytes.Contains(request.Payload, []byte{0x19, 0x03, 0xe8})
		}),
		"csr.conflict": says(codes.Changed, at(csr, conflict)),
		"csr.status": {breakage: breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
			if i := bytes.Index(response.Payload, []byte{5, 0x50}); path(request) == "/status" && i > 0 {
				response.Payload = bytes.Clone(response.Payload)
				response.Payload[i+2] ^= 1
			}
			return true
		}}},
		"verify.foreign-ca":  nth(1, verify, unprocessable, codes.Forbidden),
		"verify.foreign-key": nth(2, verify, unprocessable, codes.Forbidden),
		"verify.proof":       flip(at(verify, codes.Changed)),
		"activate.staged":    says(codes.NotFound, at("/activate", conflict)),
		"confirm.active":     says(codes.Changed, at("/confirm", conflict)),
		"csr.superseded": {breakage: breakage{respond: func(p *impersonator, request, response *message.Message) bool {
			if len(request.Payload) < 21 || !strings.HasPrefix(string(request.Payload[1:]), "\x00\x01\x01\x50") {
				return true
			}
			id := string(request.Payload[5:21])
			if at(csr, codes.Changed)(request, response) {
				p.count(id)
			}
			if at("/activate", codes.NotFound)(request, response) && p.count(id) > 1 {
				response.Code = conflict
			}
			return true
		}}},
	}
}
