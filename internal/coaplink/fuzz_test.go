package coaplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"reflect"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// fuzzKey is a key of the PKG that the fuzz targets use.
func fuzzKey(t testing.TB, role ibc.Role, name string) *ibc.PrivateKey {
	t.Helper()
	m, err := ibc.NewMasterSecret(1, append(make([]byte, 31), 7))
	if err != nil {
		t.Fatal(err)
	}
	return pkg{m}.key(t, role, name, 1)
}

// FuzzBinding: whatever parses encodes to the same bytes.
func FuzzBinding(f *testing.F) {
	for _, context := range [][]byte{nil, make([]byte, ContextSize)} {
		b, err := NewBinding(fuzzKey(f, ibc.RoleCLM, "clm-1"), rand.Reader, [32]byte{1}, context)
		if err != nil {
			f.Fatal(err)
		}
		der, err := b.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBinding(data)
		if err != nil {
			return
		}
		if again, err := b.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x parses and encodes as %x, %v", data, again, err)
		}
	})
}

// FuzzPresented: nothing is accepted in another name than its signer's. (The
// corpus may hold bindings of earlier runs, which are as good as ours.)
func FuzzPresented(f *testing.F) {
	clm := fuzzKey(f, ibc.RoleCLM, "clm-1")
	credential, err := NewCredential(clm, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(credential.certificate)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, params, err := acceptCLM([][]byte{data}, []*ibc.Params{clm.Params()}, newPeers("clm-1", "clm-2"))
		if err != nil || params == nil || p.verify(params) != nil {
			return
		}
		if p.binding.Identity != clm.Identity() || len(p.binding.Context) != 0 {
			t.Errorf("accepted %x as %s", data, p.binding.Identity)
		}
	})
}

func FuzzCredential(f *testing.F) {
	clm := fuzzKey(f, ibc.RoleCLM, "clm-1")
	credential, err := NewCredential(clm, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	stored, err := credential.MarshalPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCredential(data, clm); err == nil && c.Identity() != clm.Identity() {
			t.Errorf("accepted for %v", c.Identity())
		}
	})
}

// fuzzPayload checks that whatever decodes survives encoding and decoding.
func fuzzPayload[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) ([]byte, error), seeds ...T) {
	f.Helper()
	for _, s := range seeds {
		data, err := encode(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0xa1, 0x00, 0x01})
	f.Add([]byte{0xbf, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(v)
		if err != nil {
			t.Fatalf("%x decodes as %+v, which does not encode: %v", data, v, err)
		}
		w, err := decode(again)
		if err != nil || !reflect.DeepEqual(v, w) {
			t.Errorf("%x decodes as\n%+v, encoded\n%+v, %v", data, v, w, err)
		}
	})
}

func FuzzCSRRequest(f *testing.F) {
	bare := enrol.CSRRequest{Enrolment: enrol.ID{1}, CAHash: [32]byte{2}}
	fuzzPayload(f, decodeCSRRequest, encodeCSRRequest, sampleCSRRequest(), bare)
}

func FuzzVerifyRequest(f *testing.F) {
	fuzzPayload(f, decodeVerifyRequest, encodeVerifyRequest,
		enrol.VerifyRequest{Enrolment: enrol.ID{1}, Certificates: [][]byte{fakeCertificate(20), fakeCertificate(300)}})
}

func FuzzVerifyResponse(f *testing.F) {
	fuzzPayload(f, decodeVerifyResponse, encodeVerifyResponse,
		enrol.VerifyResponse{Certificate: [32]byte{1}, Possession: make([]byte, 72), Statement: make([]byte, ibc.SignatureSize)})
}

func FuzzReference(f *testing.F) {
	fuzzPayload(f, decodeReference, func(a activation) ([]byte, error) {
		return encodeReference(a.enrolment, a.certificate, a.within)
	}, activation{enrolment: enrol.ID{1}, certificate: [32]byte{2}, within: time.Minute}, activation{})
}

func FuzzStatus(f *testing.F) {
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}
	fuzzPayload(f, decodeStatus, encodeStatus, sampleStatus(id), enrol.DeviceStatus{Identity: id, Time: time.Unix(0, 0)})
}

// FuzzProblem: any error response becomes a refusal that may be printed.
func FuzzProblem(f *testing.F) {
	for p := range problemCodes() {
		data, err := encodeProblem(&enrol.DeviceError{Problem: p, Detail: "detail"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(problemCodes()[p]), data)
	}
	f.Fuzz(func(t *testing.T, code uint8, data []byte) {
		e := decodeProblem(&reply{code: codes.Code(code), format: formatProblem, payload: data})
		if _, ok := problemCodes()[e.Problem]; !ok || e.Detail == "" && len(data) == 0 || len(e.Detail) > maxDetail {
			t.Errorf("%x became %+v", data, e)
		}
		if printable(e.Detail) != e.Detail {
			t.Errorf("control characters: %q", e.Detail)
		}
	})
}

func FuzzCertsOnly(f *testing.F) {
	der, err := encodeCertsOnly([][]byte{fakeCertificate(20), fakeCertificate(300)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		certificates, err := parseCertsOnly(data)
		if err != nil {
			return
		}
		again, err := encodeCertsOnly(certificates)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseCertsOnly(again); err != nil || !reflect.DeepEqual(got, certificates) {
			t.Errorf("%x: %d certificates, encoded %d, %v", data, len(certificates), len(got), err)
		}
	})
}

func FuzzHello(f *testing.F) {
	p := newPKG(f, 1)
	f.Add(firstFlight(f, p.dialer(f, "clm-1", 1), p.key(f, ibc.RoleDevice, "plc-1", 1)))
	c, err := newCookies(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, ok := parseHello(data)
		if !ok {
			return
		}
		if n := len(c.verifyRequest(strangerAddr, h)); n > len(data) {
			t.Errorf("%d bytes are answered with %d", len(data), n)
		}
		if c.valid(strangerAddr, h) {
			t.Errorf("a guessed cookie: %x", data)
		}
	})
}

// FuzzBlock: an option that parses is in its bounds and encodes to itself.
func FuzzBlock(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x06})
	f.Add([]byte{0xff, 0xff, 0xfe})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parseBlock(raw)
		if err != nil {
			return
		}
		if b.szx > maxSZX || b.num >= 1<<20 || b.size() < 16 || b.size() > 1024 {
			t.Errorf("%x parses as %+v", raw, b)
		}
		if again, err := parseBlock(uintOption(message.Block1, b.value()).Value); err != nil || again != b {
			t.Errorf("%+v encodes as %+v, %v", b, again, err)
		}
	})
}

// FuzzAssembly: whatever blocks come, no body grows beyond the limit, and one
// that is complete is what the blocks held.
func FuzzAssembly(f *testing.F) {
	f.Add([]byte{0, 1, 1, 1, 2, 0})
	f.Add([]byte{0, 1, 0, 1, 5, 1, 1, 0})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var a assembly
		var want []byte
		for i := 0; i+1 < len(steps); i += 2 {
			b := block{num: uint32(steps[i]), more: steps[i+1]&1 != 0, szx: steps[i+1] >> 1 % (maxSZX + 1)}
			data := bytes.Repeat([]byte{steps[i]}, b.size())
			body, out := a.add([32]byte{}, b, data)
			if len(a.body) > maxBody {
				t.Fatalf("%d bytes are kept", len(a.body))
			}
			switch {
			case b.num == 0 && (body != nil || out.code == codes.Continue):
				want = bytes.Clone(data)
			case out.code == codes.Continue && b.offset() == len(want), body != nil && b.offset() == len(want):
				want = append(want, data...)
			}
			if body != nil && !bytes.Equal(body, want) {
				t.Fatalf("a body of %d bytes, want %d", len(body), len(want))
			}
		}
	})
}

// FuzzRequest: any datagram of an accepted peer is answered, or not, without
// the device failing.
func FuzzRequest(f *testing.F) {
	key := fuzzKey(f, ibc.RoleDevice, "plc-1")
	v, err := newServing(context.Background(), newServer(key, newPeers("clm-1"), &fakeServices{
		csr: make([]byte, 3000), status: sampleStatus(key.Identity()),
		response: enrol.VerifyResponse{Possession: []byte{1}, Statement: make([]byte, ibc.SignatureSize)},
	}))
	if err != nil {
		f.Fatal(err)
	}
	seed := func(code codes.Code, path string, payload []byte, options ...message.Option) {
		m := pool.NewMessage(context.Background())
		m.SetType(message.Confirmable)
		m.SetCode(code)
		m.SetMessageID(1)
		m.MustSetPath(path)
		if payload != nil {
			withCBOR(payload)(m)
		}
		for _, o := range options {
			m.AddOptionBytes(o.ID, o.Value)
		}
		data, err := m.MarshalWithEncoder(coder.DefaultCoder)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(data))
	}
	csr, err := encodeCSRRequest(sampleCSRRequest())
	if err != nil {
		f.Fatal(err)
	}
	seed(codes.POST, pathCSR, csr)
	seed(codes.POST, pathCSR, csr[:1024], uintOption(message.Block1, block{more: true, szx: 6}.value()))
	seed(codes.GET, pathStatus, nil)
	seed(codes.GET, pathStatus, nil, uintOption(message.Block2, block{num: 1, szx: 2}.value()))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &session{server: v}
		for range 2 {
			m := pool.NewMessage(context.Background())
			if _, err := m.UnmarshalWithDecoder(coder.DefaultCoder, data); err != nil {
				return
			}
			a := s.answer(m)
			if a.code < codes.Created || len(a.payload) > 1024 {
				t.Errorf("%x: code %v, %d bytes", data, a.code, len(a.payload))
			}
		}
	})
}

// FuzzReply: any response of a device is either understood or refused.
func FuzzReply(f *testing.F) {
	m := pool.NewMessage(context.Background())
	m.SetType(message.Acknowledgement)
	m.SetCode(codes.Content)
	m.SetMessageID(1)
	m.AddOptionBytes(message.ETag, []byte{1, 2})
	m.SetContentFormat(formatCBOR)
	m.SetOptionUint32(message.Block2, block{more: true, szx: 6}.value())
	m.SetBody(bytes.NewReader(make([]byte, 1024)))
	data, err := m.MarshalWithEncoder(coder.DefaultCoder)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(data))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := pool.NewMessage(context.Background())
		if _, err := m.UnmarshalWithDecoder(coder.DefaultCoder, data); err != nil {
			return
		}
		if r, err := readReply(m); err == nil && r.block2 != nil && r.block2.szx > maxSZX {
			t.Errorf("%+v", r.block2)
		}
	})
}
