package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// recorder keeps everything that the CLM and a device say to each other, in
// clear, and everything that the CLM submits to the CA.
type recorder struct {
	enrol.Dialer
	enrol.CA
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *recorder) record(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := gob.NewEncoder(&r.out).Encode(v); err != nil {
		panic(err)
	}
}

func (r *recorder) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	r.record(s)
	return r.CA.Submit(ctx, s)
}

func (r *recorder) Dial(ctx context.Context, d fleet.Device) (enrol.Device, error) {
	dev, err := r.Dialer.Dial(ctx, d)
	return recordedDevice{dev, r}, err
}

type recordedDevice struct {
	enrol.Device
	r *recorder
}

func (d recordedDevice) RequestCSR(ctx context.Context, req enrol.CSRRequest) ([]byte, error) {
	d.r.record(req)
	csr, err := d.Device.RequestCSR(ctx, req)
	d.r.record(csr)
	return csr, err
}

func (d recordedDevice) VerifyCertificate(ctx context.Context, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	d.r.record(req)
	v, err := d.Device.VerifyCertificate(ctx, req)
	d.r.record(v)
	return v, err
}

func (d recordedDevice) Status(ctx context.Context) (enrol.DeviceStatus, error) {
	s, err := d.Device.Status(ctx)
	d.r.record(s)
	return s, err
}

// keyMaterial returns every part of a private key that must not be seen.
func keyMaterial(t *testing.T, file string) map[string][]byte {
	t.Helper()
	block, _ := pem.Decode(value[[]byte](t)(os.ReadFile(file)))
	out := map[string][]byte{"PKCS#8": block.Bytes}
	switch k := value[any](t)(x509.ParsePKCS8PrivateKey(block.Bytes)).(type) {
	case *ecdsa.PrivateKey:
		out["scalar"] = value[[]byte](t)(k.Bytes())
	case *rsa.PrivateKey:
		out["exponent"], out["p"], out["q"] = k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes()
	}
	return out
}

// appears reports in which form a secret stands in data: raw, hex or base64.
func appears(data, secret []byte) string {
	for form, s := range map[string]string{
		"raw": string(secret), "hex": hex.EncodeToString(secret), "HEX": strings.ToUpper(hex.EncodeToString(secret)),
		"base64": base64.StdEncoding.EncodeToString(secret)[:len(secret)],
	} {
		if bytes.Contains(data, []byte(s)) {
			return form
		}
	}
	return ""
}

// TestPrivateKeysNeverLeave searches what crossed the wire in clear, what the
// CLM stored, and all logs, for the devices' private keys; and what is left of
// the challenge once the work is done.
func TestPrivateKeysNeverLeave(t *testing.T) {
	for _, algo := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.RSA2048} {
		t.Run(string(algo), func(t *testing.T) {
			p := newPlant(t)
			n := p.addDevice("plc-1", algo)
			var logs bytes.Buffer
			r := &recorder{Dialer: p.dialer, CA: p.scep}
			p.runner = p.newRunner(p.store, r, r)
			p.runner.Log = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
			secrets := map[string][]byte{}
			for round := range 2 {
				p.renewed(n)
				for what, secret := range keyMaterial(t, filepath.Join(n.dir, "active", "key.pem")) {
					secrets[what+string(rune('1'+round))] = secret
				}
			}
			secrets["identity key"] = p.extract(ibc.RoleDevice, n.name, 1).Bytes()

			places := map[string][]byte{"wire": r.out.Bytes(), "log": logs.Bytes()}
			for _, file := range value[[]string](t)(filepath.Glob(filepath.Join(p.dir, "inventory.db*"))) {
				places[file] = value[[]byte](t)(os.ReadFile(file))
			}
			if len(places) < 3 || len(places["wire"]) < 5000 {
				t.Fatalf("too little was recorded: %d places, %d bytes", len(places), len(places["wire"]))
			}
			for place, data := range places {
				for what, secret := range secrets {
					if form := appears(data, secret); form != "" {
						t.Errorf("the %s stands in %s (%s)", what, place, form)
					}
				}
			}
			// The search itself works: the challenge did cross the wire.
			if appears(places["wire"], []byte(challenge)) == "" {
				t.Error("the challenge is not found where it must have been")
			}
			delete(places, "wire")
			for file, data := range readTree(t, n.dir) {
				places[file] = data
			}
			for place, data := range places {
				if form := appears(data, []byte(challenge)); form != "" {
					t.Errorf("the challenge is left in %s (%s)", place, form)
				}
			}
		})
	}
}

func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		out[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSecretFilesAreOwnersOnly: files 0600, directories 0700, on device and CLM.
func TestSecretFilesAreOwnersOnly(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	seen := 0
	for _, dir := range []string{n.dir, filepath.Join(p.dir, "ca")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return err
			}
			seen++
			info, err := d.Info()
			if err != nil {
				return err
			}
			want := fs.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			if info.Mode().Perm() != want {
				t.Errorf("%s is %o", path, info.Mode().Perm())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range value[[]string](t)(filepath.Glob(filepath.Join(p.dir, "inventory.db*"))) {
		seen++
		if info := value[fs.FileInfo](t)(os.Stat(file)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %o", file, info.Mode().Perm())
		}
	}
	if seen < 10 {
		t.Errorf("only %d files seen", seen)
	}
}
