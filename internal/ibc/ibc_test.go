package ibc

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudflare/circl/ecc/bls12381"
	"pgregory.net/rapid"
)

// drawIdentity draws any valid identity of an epoch.
func drawIdentity(t *rapid.T, epoch uint32) Identity {
	return Identity{
		Role:       rapid.SampledFrom([]Role{RoleDevice, RoleCLM}).Draw(t, "role"),
		Name:       rapid.StringMatching(`[a-z0-9][a-z0-9._:-]{0,63}`).Draw(t, "name"),
		Epoch:      epoch,
		Generation: rapid.Uint32Range(1, maxNumber).Draw(t, "generation"),
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := drawIdentity(t, rapid.Uint32Range(1, maxNumber).Draw(t, "epoch"))
		s := id.String()
		if len(s) > MaxIdentityLen {
			t.Fatalf("%q has %d bytes", s, len(s))
		}
		back, err := ParseIdentity(s)
		if err != nil || back != id {
			t.Fatalf("ParseIdentity(%q) = %+v, %v", s, back, err)
		}
	})
}

func TestParseIdentityRefuses(t *testing.T) {
	long := strings.Repeat("a", 64)
	if _, err := ParseIdentity("edgeclm/v1/dev/" + long + "/e2147483647.g2147483647"); err != nil {
		t.Errorf("the longest identity: %v", err)
	}
	for _, s := range []string{
		"", "edgeclm/v1", "edgeclm/v1/dev/a", "edgeclm/v2/dev/a/e1.g1", "Edgeclm/v1/dev/a/e1.g1",
		"edgeclm/v1/pkg/a/e1.g1", "edgeclm/v1/dev//e1.g1", "edgeclm/v1/dev/A/e1.g1", "edgeclm/v1/dev/-a/e1.g1",
		"edgeclm/v1/dev/a b/e1.g1", "edgeclm/v1/dev/a/b/e1.g1", "edgeclm/v1/dev/" + long + "a/e1.g1",
		"edgeclm/v1/dev/a/e0.g1", "edgeclm/v1/dev/a/e1.g0", "edgeclm/v1/dev/a/e01.g1", "edgeclm/v1/dev/a/e1.g01",
		"edgeclm/v1/dev/a/e+1.g1", "edgeclm/v1/dev/a/e1.g2147483648", "edgeclm/v1/dev/a/e1", "edgeclm/v1/dev/a/g1.e1",
		"edgeclm/v1/dev/a/e1.g1 ", " edgeclm/v1/dev/a/e1.g1", "edgeclm/v1/dev/a/e1.g1\n", "edgeclm/v1/dev/a/e1.g1/",
		"edgeclm/v1/dev/ä/e1.g1", "edgeclm/v1/dev/a/e1_0.g1", "edgeclm/v1/dev/a\x00/e1.g1",
	} {
		if id, err := ParseIdentity(s); !errors.Is(err, ErrIdentity) {
			t.Errorf("ParseIdentity(%q) = %v, %v", s, id, err)
		}
	}
}

func TestCompareOrdersEpochFirst(t *testing.T) {
	at := func(e, g uint32) Identity { return Identity{Epoch: e, Generation: g} }
	ordered := []Identity{at(1, 1), at(1, 2), at(1, maxNumber), at(2, 1), at(maxNumber, 1)}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := a.Compare(b); got != want {
				t.Errorf("Compare(%v, %v) = %d", a, b, got)
			}
		}
	}
}

func TestSignVerify(t *testing.T) {
	const epoch = 7
	master, err := Setup(rand.Reader, epoch)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		id := drawIdentity(t, epoch)
		extracted, err := master.Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		key, err := NewPrivateKey(master.Params(), id, extracted.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		m := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "message")
		signature, err := key.Sign(rand.Reader, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := master.Params().Verify(id, m, signature); err != nil {
			t.Fatal(err)
		}
		// One changed bit, anywhere, does not verify.
		flipped := bytes.Clone(signature)
		bit := rapid.IntRange(0, 8*SignatureSize-1).Draw(t, "bit")
		flipped[bit/8] ^= 1 << (bit % 8)
		if master.Params().Verify(id, m, flipped) == nil {
			t.Fatalf("verifies with bit %d flipped", bit)
		}
		other := id
		other.Generation = id.Generation%maxNumber + 1
		if master.Params().Verify(other, m, signature) == nil {
			t.Fatal("verifies for another generation")
		}
	})
	id := Identity{RoleDevice, "plc-1", epoch, 1}
	key, err := master.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Sign(rand.Reader, []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if master.Params().Verify(id, []byte("m\x00"), signature) == nil {
		t.Fatal("verifies for another message")
	}
}

// TestOtherPKGRefused: keys, signatures and statements of one master secret are
// worth nothing under another's parameters, and neither are those of one epoch
// under the same secret's parameters of another.
func TestOtherPKGRefused(t *testing.T) {
	v := loadVectors(t)
	ours, sameSecret := v.master(t, 1), v.master(t, 2)
	theirs, err := Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	id := mustIdentity(t, v.Keys[0].Identity)
	key, err := ours.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Sign(rand.Reader, []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewPrivateKey(theirs.Params(), id, key.Bytes()); !errors.Is(err, ErrKey) {
		t.Errorf("key under another PKG: %v", err)
	}
	if err := theirs.Params().Verify(id, []byte("m"), signature); !errors.Is(err, ErrSignature) {
		t.Errorf("signature under another PKG: %v", err)
	}
	if err := sameSecret.Params().Verify(id, []byte("m"), signature); !errors.Is(err, ErrEpoch) {
		t.Errorf("signature under another epoch: %v", err)
	}
	if _, err := sameSecret.Extract(id); !errors.Is(err, ErrEpoch) {
		t.Errorf("extract for another epoch: %v", err)
	}
	statement, err := ours.Sign(KindBundle, []byte("doc"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		theirs.Params().VerifyStatement(KindBundle, []byte("doc"), statement),
		ours.Params().VerifyStatement(KindManifest, []byte("doc"), statement),
		ours.Params().VerifyStatement(KindBundle, []byte("doc2"), statement),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("statement: %v", err)
		}
	}
}

// TestNegatedKeyRefused: a flipped sign bit decodes to -d, a valid point; only
// the pairing check sees it.
func TestNegatedKeyRefused(t *testing.T) {
	v := loadVectors(t)
	for _, k := range v.Keys {
		id, d := mustIdentity(t, k.Identity), unhex(t, k.D)
		d[0] ^= 0x20
		if _, err := parseG1(d); err != nil {
			t.Fatalf("-d does not decode: %v", err)
		}
		if _, err := NewPrivateKey(v.master(t, id.Epoch).Params(), id, d); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestScalarEncodings(t *testing.T) {
	order := bls12381.Order()
	minus := func(n byte) []byte { b := bytes.Clone(order); b[31] -= n; return b }
	one := make([]byte, ScalarSize)
	one[31] = 1
	for _, good := range [][]byte{one, minus(1)} {
		if _, err := parseScalar(good); err != nil {
			t.Errorf("%x: %v", good, err)
		}
	}
	plusOne := bytes.Clone(order)
	plusOne[31]++
	for _, bad := range [][]byte{
		nil, make([]byte, ScalarSize), order, plusOne, bytes.Repeat([]byte{0xff}, 32), one[1:], append(bytes.Clone(one), 0),
	} {
		if _, err := parseScalar(bad); !errors.Is(err, ErrEncoding) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func TestParamsRefused(t *testing.T) {
	v := loadVectors(t)
	good := unhex(t, v.Ppub)
	infinity := make([]byte, PpubSize)
	infinity[0] = 0xc0
	uncompressed := bytes.Clone(good)
	uncompressed[0] &^= 0x80
	for what, b := range map[string][]byte{
		"infinity": infinity, "no flag": uncompressed, "short": good[1:], "long": append(bytes.Clone(good), 0), "empty": nil,
	} {
		if _, err := NewParams(1, b); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, epoch := range []uint32{0, 1 << 31} {
		if _, err := NewParams(epoch, good); !errors.Is(err, ErrEncoding) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
}

func TestParamsJSON(t *testing.T) {
	v := loadVectors(t)
	p := v.master(t, 3).Params()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"suite":"edgeclm/v1/bls12381","epoch":3,"ppub":"%s","params_id":"%s"}`, v.Ppub, v.ParamsID)
	if string(data) != want {
		t.Errorf("JSON = %s", data)
	}
	var back Params
	if err := json.Unmarshal(data, &back); err != nil || back.ID() != p.ID() || back.Epoch() != 3 {
		t.Errorf("back = %+v, %v", back, err)
	}
	for _, bad := range []string{
		strings.Replace(want, "v1/bls", "v2/bls", 1), strings.Replace(want, v.ParamsID, v.ParamsID[2:]+"00", 1),
		strings.Replace(want, `"epoch":3`, `"epoch":0`, 1), strings.Replace(want, v.Ppub, v.Ppub[2:], 1), `[]`,
	} {
		if err := json.Unmarshal([]byte(bad), new(Params)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestLP(t *testing.T) {
	if _, err := LP(make([]byte, 1<<16)); !errors.Is(err, ErrEncoding) {
		t.Errorf("65,536 bytes: %v", err)
	}
	got, err := LP([]byte("ab"), nil, make([]byte, 1<<16-1))
	if err != nil || len(got) != 2+2+2+2+1<<16-1 || !bytes.HasPrefix(got, []byte("\x00\x02ab\x00\x00\xff\xff")) {
		t.Errorf("LP = %x…, %v", got[:8], err)
	}
}

// stuckReader is a broken random source that always gives the same bytes.
type stuckReader struct{}

func (stuckReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestNonceNeverRepeats: with a random source stuck at one value, two messages
// still get different nonces; a reused nonce would reveal the key.
func TestNonceNeverRepeats(t *testing.T) {
	v := loadVectors(t)
	key, err := v.master(t, 1).Extract(mustIdentity(t, v.Keys[0].Identity))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 8 {
		signature, err := key.Sign(stuckReader{}, []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		if u := string(signature[:48]); seen[u] {
			t.Fatalf("message %d reuses a nonce", i)
		} else {
			seen[u] = true
		}
	}
	again, err := key.Sign(rand.Reader, []byte{0})
	if err != nil || seen[string(again[:48])] {
		t.Errorf("fresh randomness does not change the nonce (%v)", err)
	}
	if _, err := key.Sign(bytes.NewReader(make([]byte, 31)), []byte("m")); err == nil {
		t.Error("signs without enough randomness")
	}
}

// TestSecretsDoNotPrint: no verb of fmt shows a secret.
func TestSecretsDoNotPrint(t *testing.T) {
	v := loadVectors(t)
	master := v.master(t, 1)
	key, err := master.Extract(mustIdentity(t, v.Keys[0].Identity))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		out := fmt.Sprintf(verb+" "+verb, key, master)
		if strings.Contains(out, "bls12381.") || strings.Contains(out, v.Keys[0].D[:16]) {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

func TestDestroyedMasterSecret(t *testing.T) {
	master := loadVectors(t).master(t, 1)
	master.Destroy()
	if b := master.Bytes(); !bytes.Equal(b, make([]byte, ScalarSize)) {
		t.Errorf("left behind: %x", b)
	}
}
