package ibc

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// vectors is testdata/ibc-v1.json, computed with another library
// (gnark-crypto).
type vectors struct {
	MasterSecret string `json:"master_secret_s"`
	Ppub         string `json:"ppub"`
	ParamsID     string `json:"params_id"`
	Keys         []struct{ Identity, Q, D string }
	Signatures   []struct {
		Identity, Signature string
		MessageHex          string `json:"message_hex"`
		NonceR              string `json:"nonce_r"`
		ChallengeH          string `json:"challenge_h"`
	}
	PKGStatements []struct {
		Kind, Signature string
		DocumentHex     string `json:"document_hex"`
		MessagePoint    string `json:"message_point"`
	} `json:"pkg_statements"`
	LabelledMessages []struct {
		Identity string
		LPHex    string `json:"lp_hex"`
		What     string
	} `json:"labelled_messages"`
	RejectG1 map[string]string `json:"reject_g1_encodings"`
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/ibc-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustIdentity(t testing.TB, s string) Identity {
	t.Helper()
	id, err := ParseIdentity(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// master returns the vectors' master secret for an epoch: the vectors fix none.
func (v vectors) master(t testing.TB, epoch uint32) *MasterSecret {
	t.Helper()
	m, err := NewMasterSecret(epoch, unhex(t, v.MasterSecret))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestVectorParams(t *testing.T) {
	v := loadVectors(t)
	p := v.master(t, 1).Params()
	if got := p.Ppub(); hex.EncodeToString(got[:]) != v.Ppub {
		t.Errorf("Ppub = %x", got)
	}
	if got := p.ID(); hex.EncodeToString(got[:]) != v.ParamsID {
		t.Errorf("params_id = %x", got)
	}
}

func TestVectorKeys(t *testing.T) {
	v := loadVectors(t)
	for _, k := range v.Keys {
		id := mustIdentity(t, k.Identity)
		if got := id.PublicKey(); hex.EncodeToString(got[:]) != k.Q {
			t.Errorf("%s: Q = %x", id, got)
		}
		key, err := v.master(t, id.Epoch).Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(key.Bytes()); got != k.D {
			t.Errorf("%s: d = %s", id, got)
		}
		if _, err := NewPrivateKey(key.Params(), id, unhex(t, k.D)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestVectorSignatures(t *testing.T) {
	v := loadVectors(t)
	for _, s := range v.Signatures {
		id := mustIdentity(t, s.Identity)
		key, err := v.master(t, id.Epoch).Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		m, want := unhex(t, s.MessageHex), unhex(t, s.Signature)
		r, err := parseScalar(unhex(t, s.NonceR))
		if err != nil {
			t.Fatal(err)
		}
		h, err := key.Params().challenge(id, want[:48], m)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := h.MarshalBinary(); hex.EncodeToString(b) != s.ChallengeH {
			t.Errorf("%s: h = %x", id, b)
		}
		got, err := key.signWithNonce(r, m)
		if err != nil || hex.EncodeToString(got) != s.Signature {
			t.Errorf("%s: signature = %x, %v", id, got, err)
		}
		if err := key.Params().Verify(id, m, want); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestVectorStatements(t *testing.T) {
	v := loadVectors(t)
	master := v.master(t, 1)
	for _, s := range v.PKGStatements {
		doc := unhex(t, s.DocumentHex)
		point, err := master.Params().statementPoint(Kind(s.Kind), doc)
		if err != nil || hex.EncodeToString(point.BytesCompressed()) != s.MessagePoint {
			t.Errorf("%s: point = %x, %v", s.Kind, point.BytesCompressed(), err)
		}
		got, err := master.Sign(Kind(s.Kind), doc)
		if err != nil || hex.EncodeToString(got) != s.Signature {
			t.Errorf("%s: statement = %x, %v", s.Kind, got, err)
		}
		if err := master.Params().VerifyStatement(Kind(s.Kind), doc, got); err != nil {
			t.Errorf("%s: %v", s.Kind, err)
		}
	}
}

func TestVectorRejectedEncodings(t *testing.T) {
	for what, encoding := range loadVectors(t).RejectG1 {
		if _, err := parseG1(unhex(t, encoding)); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
