package conformance

import (
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/plgd-dev/go-coap/v3/message"
)

// FuzzDevice: nothing that a device may send makes the test fall over: a
// datagram of a handshake, a certificate, a description of links, a status, the
// options of a response.
func FuzzDevice(f *testing.F) {
	f.Add([]byte("\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x23\x03\x00\x00\x17"))
	f.Add([]byte("\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0d\x02\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00"))
	f.Add([]byte(`</status>;rt="edgeclm.status";ct=60,</activate>`))
	f.Add([]byte(`</status>;rt="edgeclm`))
	f.Add([]byte("\xa6\x00\x01\x01\x61x\x02\x61y\x08\x00\x09\x00\x0a\x80"))
	f.Add([]byte("\x60\x45\x00\x01\xd1\x0a\x07\xff\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := &flight{certificates: [][]byte{data}}
		seen.watch(data)
		if b, err := seen.bound(); err == nil {
			bindingEncoding(nil, seen, b)
		}
		if links, ok := targets(string(data)); ok && len(links) == 0 {
			t.Error("no links, and no fault either")
		}
		var s status
		if cbor.Unmarshal(data, &s) == nil {
			_ = s.check()
		}
		r := readResponse(decode(data), false)
		for _, id := range []message.OptionID{message.Block1, message.Block2} {
			if b, ok := blockOf(r, id); ok && (b.szx < 0 || b.szx > 7 || b.num < 0) {
				t.Errorf("block %+v", b)
			}
		}
		explain(r)
	})
}
