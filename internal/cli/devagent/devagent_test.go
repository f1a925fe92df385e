package devagent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

var (
	_ coaplink.Services  = (*agent.Agent)(nil)
	_ coaplink.PeerStore = (*agent.Agent)(nil)
)

func TestSplitCommand(t *testing.T) {
	for s, want := range map[string][]string{
		"":                               nil,
		"  ":                             nil,
		"systemctl reload nginx":         {"systemctl", "reload", "nginx"},
		" a\t b \n":                      {"a", "b"},
		`sh -c 'kill -HUP "$(pidof x)"'`: {"sh", "-c", `kill -HUP "$(pidof x)"`},
		`a"b c"d ''`:                     {"ab cd", ""},
		`a\ b`:                           {`a\`, "b"},
	} {
		if got, err := splitCommand(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q was split into %q, %v; want %q", s, got, err, want)
		}
	}
	for _, s := range []string{`'`, `a "b`, `'"`} {
		if got, err := splitCommand(s); err == nil {
			t.Errorf("%q was split into %q", s, got)
		}
	}
}

func TestSources(t *testing.T) {
	got := sources([]string{"192.0.2.1:5684", "[2001:db8::1]:1", "[::ffff:192.0.2.2]:1", "clm.plant:5684"})
	want := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("192.0.2.2/32"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The names and types of what scripts read from status -o json.
func TestStatusJSON(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "agent")
	master, err := ibc.Setup(rand.Reader, 1)
	must(err)
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}
	key, err := master.Extract(id)
	must(err)
	_, err = agent.Provision(dir, nil, &bundle.Bundle{
		Identity: id, Params: master.Params(), Key: key, Peers: []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}},
		Names: fleet.DefaultNames("plc-1"),
	})
	must(err)
	device, err := agent.Open(agent.Config{Dir: dir})
	must(err)
	peer := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}

	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	notAfter := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now(), NotAfter: notAfter,
	}
	ca, err := x509.CreateCertificate(rand.Reader, template, template, &caKey.PublicKey, caKey)
	must(err)
	var want []string
	for i := range byte(2) {
		enrolment := enrol.ID{i}
		csr, err := device.CSR(t.Context(), peer, enrol.CSRRequest{Enrolment: enrolment, CA: ca, CAHash: sha256.Sum256(ca)})
		must(err)
		parsed, err := enrol.ParseCSR(csr)
		must(err)
		leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(0xabc + int64(i)), Subject: parsed.Subject, DNSNames: parsed.DNSNames,
			NotBefore: time.Now(), NotAfter: notAfter,
		}, template, parsed.PublicKey, caKey)
		must(err)
		v, err := device.Verify(t.Context(), peer, enrol.VerifyRequest{Enrolment: enrolment, Certificates: [][]byte{leaf}})
		must(err)
		if i == 0 {
			must(device.Activate(t.Context(), peer, enrolment, v.Certificate, 0))
		}
		want = append(want, hex.EncodeToString(v.Certificate[:]))
	}
	must(device.Close())

	var out, errs bytes.Buffer
	s := clikit.Streams{In: &bytes.Buffer{}, Out: &out, Err: &errs, Getenv: func(string) string { return "" }}
	if code := Main([]string{"--data-dir", dir, "status", "-o", "json"}, s); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit %d: %s", code, &errs)
	}
	var got map[string]any
	must(json.Unmarshal(out.Bytes(), &got))
	paramsID := master.Params().ID()
	for key, value := range map[string]any{
		"identity": id.String(), "params_id": hex.EncodeToString(paramsID[:]),
		"version": clikit.Version().Version, "last_error": nil, "clock": "plausible",
		"active": map[string]any{"serial": "0abc", "sha256": want[0], "not_after": notAfter.Format(time.RFC3339), "key_matches": true},
		"staged": map[string]any{"serial": "0abd", "sha256": want[1], "not_after": notAfter.Format(time.RFC3339)},
	} {
		if !reflect.DeepEqual(got[key], value) {
			t.Errorf("%s is %v, want %v", key, got[key], value)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("unexpected: %v", got)
	}
}
