package ibc

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzParseIdentity(f *testing.F) {
	for _, k := range loadVectors(f).Keys {
		f.Add(k.Identity)
	}
	f.Add("edgeclm/v1/dev/a/e01.g1")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdentity(s)
		if err == nil && id.String() != s {
			t.Errorf("%q was normalised to %q", s, id)
		}
	})
}

func FuzzParsePoint(f *testing.F) {
	v := loadVectors(f)
	for _, k := range v.Keys {
		f.Add(unhex(f, k.Q))
	}
	for _, encoding := range v.RejectG1 {
		f.Add(unhex(f, encoding))
	}
	f.Add(unhex(f, v.Ppub))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseG1(b); err == nil && !bytes.Equal(p.BytesCompressed(), b) {
			t.Errorf("G1 %x re-encodes as %x", b, p.BytesCompressed())
		}
		if p, err := parseG2(b); err == nil && !bytes.Equal(p.BytesCompressed(), b) {
			t.Errorf("G2 %x re-encodes as %x", b, p.BytesCompressed())
		}
	})
}

func FuzzVerify(f *testing.F) {
	v := loadVectors(f)
	for _, s := range v.Signatures {
		f.Add(unhex(f, s.Signature))
	}
	params := v.master(f, 1).Params()
	id := mustIdentity(f, v.Signatures[0].Identity)
	m := unhex(f, v.Signatures[0].MessageHex)
	want := unhex(f, v.Signatures[0].Signature)
	f.Fuzz(func(t *testing.T, signature []byte) {
		if params.Verify(id, m, signature) == nil && !bytes.Equal(signature, want) {
			t.Errorf("forged: %x", signature)
		}
	})
}

func FuzzParamsJSON(f *testing.F) {
	data, err := json.Marshal(loadVectors(f).master(f, 1).Params())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Params
		if p.UnmarshalJSON(data) != nil {
			return
		}
		out, err := p.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := new(Params).UnmarshalJSON(out); err != nil {
			t.Errorf("%s does not parse again: %v", out, err)
		}
	})
}
