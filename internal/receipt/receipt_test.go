package receipt_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func setup(t testing.TB) *ibc.MasterSecret {
	t.Helper()
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func keyOf(t testing.TB, m *ibc.MasterSecret, role ibc.Role, name string) *ibc.PrivateKey {
	t.Helper()
	key, err := m.Extract(ibc.Identity{Role: role, Name: name, Epoch: m.Params().Epoch(), Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ofBundle(payload byte) receipt.Receipt {
	return receipt.Receipt{
		Installation: receipt.Installation{1}, Time: now, Program: "devagent 1.0",
		Provisioned: &receipt.Provisioned{Payload: bundle.Hash{payload}, Outcome: receipt.Installed},
	}
}

func ofManifest() receipt.Receipt {
	return receipt.Receipt{
		Installation: receipt.Installation{2}, Board: bundle.Hash{9}, Time: now, Program: "clmctl 1.0",
		Commissioned: &receipt.Commissioned{Manifest: bundle.Hash{3}, Ledger: bundle.LedgerHead{Index: 7, Hash: bundle.Hash{4}}, Added: 2},
	}
}

func rows(n int) []receipt.Row {
	out := make([]receipt.Row, n)
	for i := range out {
		out[i] = receipt.Row{Identity: ibc.Identity{Role: ibc.RoleDevice, Name: fmt.Sprintf("plc:%d", i), Epoch: 1, Generation: 1}, LedgerIndex: uint64(i) + 2}
	}
	return out
}

func sign(t testing.TB, r receipt.Receipt, list []receipt.Row, key *ibc.PrivateKey) []byte {
	t.Helper()
	data, err := receipt.Sign(r, list, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSignAndParse(t *testing.T) {
	m := setup(t)
	clm := keyOf(t, m, ibc.RoleCLM, "clm-1")
	for name, tc := range map[string]struct {
		receipt receipt.Receipt
		rows    []receipt.Row
	}{
		"bundle": {ofBundle(1), nil}, "manifest": {ofManifest(), rows(3)}, "manifest without devices": {ofManifest(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			data := sign(t, tc.receipt, tc.rows, clm)
			s, err := receipt.Parse(data)
			if err != nil {
				t.Fatalf("%v: %s", err, data)
			}
			if err := s.Verify(m.Params()); err != nil {
				t.Error(err)
			}
			if got := slices.Collect(s.Rows()); !slices.Equal(got, tc.rows) {
				t.Errorf("rows %v", got)
			}
			want := tc.receipt
			want.Signer, want.ParamsID = clm.Identity(), m.Params().ID()
			if want.Commissioned != nil {
				want.Commissioned.Rows, want.Commissioned.RowsHash = len(tc.rows), s.Commissioned.RowsHash
			}
			if !reflect.DeepEqual(s.Receipt, want) {
				t.Errorf("got  %+v\nwant %+v", s.Receipt, want)
			}
			// Reformatting does no harm.
			var other bytes.Buffer
			if err := json.Indent(&other, data, "\t", "  "); err != nil {
				t.Fatal(err)
			}
			again, err := receipt.Parse(other.Bytes())
			if err != nil || again.File != s.File || again.ID != s.ID || again.Verify(m.Params()) != nil {
				t.Errorf("reformatted: %v", err)
			}
		})
	}
}

// A manifest of 100,000 devices has a receipt within the bound.
func TestReceiptOfTheLargestManifest(t *testing.T) {
	m := setup(t)
	list := rows(receipt.MaxRows)
	for i := range list {
		list[i].Identity.Name = fmt.Sprintf("%064d", i)
		list[i].Identity.Generation = 1<<31 - 1
	}
	data := sign(t, ofManifest(), list, keyOf(t, m, ibc.RoleCLM, "clm-1"))
	s, err := receipt.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r := range s.Rows() {
		if r != list[n] {
			t.Fatalf("row %d: %v", n, r)
		}
		n++
	}
	t.Logf("%d rows, %d bytes", n, len(data))
	if _, err := receipt.Sign(ofManifest(), append(list, list[0]), keyOf(t, m, ibc.RoleCLM, "clm-1"), rand.Reader); !errors.Is(err, receipt.ErrFormat) {
		t.Errorf("one row more: %v", err)
	}
}

// Attack: somebody without the device's key writes a receipt in its name, with a
// key of his own, or changes what it says.
func TestAttackForgedReceipt(t *testing.T) {
	m, foreign := setup(t), setup(t)
	key := keyOf(t, m, ibc.RoleDevice, "plc-1")
	data := sign(t, ofBundle(1), nil, key)
	for name, tc := range map[string]struct {
		data  []byte
		cause error
	}{
		"another PKG's key":  {sign(t, ofBundle(1), nil, keyOf(t, foreign, ibc.RoleDevice, "plc-1")), bundle.ErrParams},
		"and our params_id":  {replaced(t, sign(t, ofBundle(1), nil, keyOf(t, foreign, ibc.RoleDevice, "plc-1")), hexID(foreign), hexID(m)), ibc.ErrSignature},
		"another time":       {replaced(t, data, "2026-01-02", "2026-01-03"), ibc.ErrSignature},
		"another outcome":    {replaced(t, data, `"installed"`, `"unchanged"`), ibc.ErrSignature},
		"another generation": {replaced(t, data, "e1.g1", "e1.g2"), ibc.ErrSignature},
		"another epoch":      {replaced(t, data, "e1.g1", "e2.g1"), ibc.ErrEpoch},
		"another bundle":     {replaced(t, data, bundle.Hash{1}.String(), bundle.Hash{2}.String()), ibc.ErrSignature},
	} {
		s, err := receipt.Parse(tc.data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := s.Verify(m.Params()); !errors.Is(err, tc.cause) {
			t.Errorf("%s: %v, want %v", name, err, tc.cause)
		}
	}
}

func hexID(m *ibc.MasterSecret) string { return bundle.Hash(m.Params().ID()).String() }

func replaced(t testing.TB, data []byte, before, after string) []byte {
	t.Helper()
	out := bytes.Replace(data, []byte(before), []byte(after), 1)
	if bytes.Equal(out, data) {
		t.Fatalf("%q is not in %s", before, data)
	}
	return out
}

// Attack: a device that is in enemy hands says that another one was provisioned,
// and that it is a CLM which has taken devices.
func TestAttackReceiptOfAnotherDevice(t *testing.T) {
	m := setup(t)
	key := keyOf(t, m, ibc.RoleDevice, "plc-1")
	s, err := receipt.Parse(replaced(t, sign(t, ofBundle(1), nil, key), "/plc-1/", "/plc-2/"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(m.Params()); !errors.Is(err, ibc.ErrSignature) {
		t.Errorf("in another's name: %v", err)
	}
	if _, err := receipt.Sign(ofManifest(), rows(1), key, rand.Reader); !errors.Is(err, receipt.ErrFormat) {
		t.Errorf("a device signed for a manifest: %v", err)
	}
	both := ofManifest()
	both.Provisioned = ofBundle(1).Provisioned
	if _, err := receipt.Sign(both, rows(1), keyOf(t, m, ibc.RoleCLM, "clm-1"), rand.Reader); !errors.Is(err, receipt.ErrFormat) {
		t.Errorf("both kinds at once: %v", err)
	}
}

// Attack: rows, which are signed by their digest, are changed, left out, added or
// put in another order.
func TestAttackOtherRows(t *testing.T) {
	m := setup(t)
	data := sign(t, ofManifest(), rows(3), keyOf(t, m, ibc.RoleCLM, "clm-1"))
	first, second := "[\"edgeclm/v1/dev/plc:0/e1.g1\",2],\n", "[\"edgeclm/v1/dev/plc:1/e1.g1\",3]"
	for name, changed := range map[string][]byte{
		"another device":       replaced(t, data, "plc:1", "plc:9"),
		"another ledger index": replaced(t, data, `",3]`, `",4]`),
		"left out":             replaced(t, data, first, ""),
		"twice":                replaced(t, data, first, first+first),
		"another order":        replaced(t, replaced(t, data, first, first[:len(first)-2]), second, second+",\n"+first[:len(first)-2]),
		"no rows":              replaced(t, data, `"rows": [`, `"none": [`),
		"not an array":         append(data[:bytes.LastIndex(data, []byte(`"rows"`))], `"rows": 5}`...),
		"a CLM as a device":    replaced(t, data, "/dev/plc:1", "/clm/plc:1"),
	} {
		if _, err := receipt.Parse(changed); !errors.Is(err, receipt.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ofDevice := sign(t, ofBundle(1), nil, keyOf(t, m, ibc.RoleDevice, "plc-1"))
	if _, err := receipt.Parse(append(bytes.TrimSuffix(ofDevice, []byte("\n}\n")), ",\"rows\":[]}"...)); !errors.Is(err, receipt.ErrFormat) {
		t.Errorf("rows beside a bundle: %v", err)
	}
}

// Whatever bit of a receipt flips, it is refused, or says what it said: a bit of
// white space, of the case of a member's name, or of a member that is ignored.
func TestAnyFlippedBitShows(t *testing.T) {
	m := setup(t)
	data := sign(t, ofBundle(1), nil, keyOf(t, m, ibc.RoleDevice, "plc-1"))
	want, err := receipt.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for at := range data {
		for bit := range 8 {
			flipped := bytes.Clone(data)
			flipped[at] ^= 1 << bit
			s, err := receipt.Parse(flipped)
			if err != nil || s.ID == want.ID && s.Signer == want.Signer && bytes.Equal(compact(t, flipped), compact(t, data)) {
				continue
			}
			if bit > 0 && at%7 > 0 {
				continue // a pairing each: a sample is enough
			}
			if s.Verify(m.Params()) == nil && !reflect.DeepEqual(s.Receipt, want.Receipt) {
				t.Fatalf("bit %d of byte %d: accepted as %s", bit, at, flipped)
			}
		}
	}
}

func compact(t testing.TB, data []byte) []byte {
	t.Helper()
	out, err := receipt.Compact(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseRefuses(t *testing.T) {
	m := setup(t)
	data := sign(t, ofBundle(1), nil, keyOf(t, m, ibc.RoleDevice, "plc-1"))
	for name, tc := range map[string]struct {
		data  []byte
		cause error
	}{
		"nothing":            {nil, receipt.ErrFormat},
		"torn":               {data[:len(data)/2], receipt.ErrFormat},
		"more behind it":     {append(bytes.Clone(data), data...), receipt.ErrFormat},
		"too large":          {bytes.Repeat([]byte(" "), receipt.MaxSize+1), receipt.ErrFormat},
		"another version":    {replaced(t, data, `"version": 1`, `"version": 2`), receipt.ErrVersion},
		"content's version":  {replaced(t, replaced(t, data, `"version": 1`, `"v": 1, "version":1`), `"version": 1`, `"version": 2`), receipt.ErrVersion},
		"upper case":         {[]byte(strings.Replace(string(data), bundle.Hash{1}.String(), strings.ToUpper(bundle.Hash{0xab}.String()), 1)), receipt.ErrFormat},
		"no installation":    {replaced(t, data, receipt.Installation{1}.String(), receipt.Installation{}.String()), receipt.ErrFormat},
		"escapes in program": {replaced(t, data, "devagent 1.0", `\u001b[2J`), receipt.ErrFormat},
		"unknown outcome":    {replaced(t, data, `"installed"`, `"exploded"`), receipt.ErrFormat},
		"short signature":    {replaced(t, data, `"signature": "`, `"signature": "","x":"`), receipt.ErrFormat},
	} {
		if _, err := receipt.Parse(tc.data); !errors.Is(err, tc.cause) {
			t.Errorf("%s: %v, want %v", name, err, tc.cause)
		}
	}
	// What a later release adds is ignored.
	if _, err := receipt.Parse(replaced(t, data, `"version": 1`, `"later": {"x": [1]}, "version": 1`)); err != nil {
		t.Error(err)
	}
}

// Names never collide: not those of two devices, CLMs, installations or bundles.
// The same again has the same name, and every name fits FAT.
func TestFileNames(t *testing.T) {
	m := setup(t)
	name := func(r receipt.Receipt, role ibc.Role, of string) string {
		r.Signer, r.ParamsID = ibc.Identity{Role: role, Name: of, Epoch: 1, Generation: 1}, m.Params().ID()
		out, err := r.FileName()
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out, `\/:*?"<>|`) || len(out) > 255 || strings.ToLower(out) != out || !strings.HasSuffix(out, receipt.Suffix) {
			t.Errorf("%q does not fit FAT", out)
		}
		return out
	}
	other, later, moved := ofBundle(1), ofBundle(1), ofManifest()
	other.Installation = receipt.Installation{5}
	later.Time, later.Program, later.Provisioned.Outcome = now.Add(time.Hour), "devagent 2.0", receipt.Unchanged
	moved.Installation = receipt.Installation{6}
	seen := map[string]bool{}
	for _, n := range []string{
		name(ofBundle(1), ibc.RoleDevice, "a:b"), name(ofBundle(1), ibc.RoleDevice, strings.Repeat("x", 64)), name(ofBundle(2), ibc.RoleDevice, "a:b"),
		name(other, ibc.RoleDevice, "a:b"), name(ofBundle(1), ibc.RoleCLM, "a:b"), name(ofManifest(), ibc.RoleCLM, "a:b"), name(moved, ibc.RoleCLM, "a:b"),
	} {
		if seen[n] {
			t.Errorf("%s twice", n)
		}
		seen[n] = true
	}
	if a, b := name(ofBundle(1), ibc.RoleDevice, "a"), name(later, ibc.RoleDevice, "a"); a != b {
		t.Errorf("the same again is %s, not %s", b, a)
	}
}

func TestDirOf(t *testing.T) {
	usb := t.TempDir()
	for _, dir := range []string{"001", "other", "plain/001"} {
		if err := os.MkdirAll(filepath.Join(usb, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(usb, bundle.ManifestName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"x.age": "receipts", "001/x.age": "receipts/001", "other/x.age": "other/receipts", "plain/001/x.age": "plain/001/receipts",
		bundle.ManifestName: "receipts",
	} {
		if got := receipt.DirOf(filepath.Join(usb, file)); got != filepath.Join(usb, want) {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

// Write, cut at every file operation and run again, leaves one receipt that
// holds, and never one that is torn under its name.
func TestWriteCutAnywhere(t *testing.T) {
	m := setup(t)
	data := sign(t, ofBundle(1), nil, keyOf(t, m, ibc.RoleDevice, "plc-1"))
	for name, mode := range map[string]keyfiletest.Mode{"killed": keyfiletest.Kill, "power lost": keyfiletest.PowerLoss, "scattered": keyfiletest.Scatter} {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				dir := filepath.Join(t.TempDir(), "usb", receipt.DirName)
				layer := keyfiletest.New(cut, mode)
				_, err := receipt.Write(keyfile.On(layer), dir, data, m.Params())
				if !layer.Cut() {
					if err != nil || cut < 6 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					return
				}
				if err == nil {
					t.Fatalf("cut at %d: no error", cut)
				}
				path, err := receipt.Write(keyfile.Files{}, dir, data, m.Params())
				if err != nil {
					t.Fatalf("cut at %d, then: %v", cut, err)
				}
				if s, err := receipt.Read(path); err != nil || s.Verify(m.Params()) != nil {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				if found, err := filepath.Glob(filepath.Join(dir, "*"+receipt.Suffix)); err != nil || len(found) != 1 {
					t.Fatalf("cut at %d: %v, %v", cut, found, err)
				}
			}
		})
	}
}

// What holds is left alone, what does not is replaced.
func TestWriteAgain(t *testing.T) {
	m := setup(t)
	key := keyOf(t, m, ibc.RoleDevice, "plc-1")
	dir := filepath.Join(t.TempDir(), receipt.DirName)
	first := sign(t, ofBundle(1), nil, key)
	path, err := receipt.Write(keyfile.Files{}, dir, first, m.Params())
	if err != nil {
		t.Fatal(err)
	}
	second := sign(t, ofBundle(1), nil, key)
	if again, err := receipt.Write(keyfile.Files{}, dir, second, m.Params()); err != nil || again != path {
		t.Fatal(again, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, first) {
		t.Errorf("the first was replaced (%v)", err)
	}
	for name, bad := range map[string][]byte{
		"torn": first[:100], "empty": nil, "signature of another": replaced(t, first, "\"signature\": \"", "\"signature\": \"00"),
		"forged": replaced(t, first, "2026-01-02", "2026-01-04"),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := receipt.Write(keyfile.Files{}, dir, second, m.Params()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, second) {
			t.Errorf("%s: it is still there (%v)", name, err)
		}
	}
}

// Attack: the folder of receipts on a medium is a link to a directory of the
// machine, for root to write to.
func TestAttackLinkedReceipts(t *testing.T) {
	m := setup(t)
	data := sign(t, ofBundle(1), nil, keyOf(t, m, ibc.RoleDevice, "plc-1"))
	elsewhere := t.TempDir()
	for _, at := range []string{receipt.DirName, filepath.Join(receipt.DirName, "001")} {
		usb := t.TempDir()
		dir := filepath.Join(usb, at)
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(elsewhere, dir); err != nil {
			t.Fatal(err)
		}
		if path, err := receipt.Write(keyfile.Files{}, dir, data, m.Params()); err == nil {
			t.Errorf("%s: written to %s", at, path)
		}
		if path, err := receipt.Write(keyfile.Files{}, filepath.Join(usb, receipt.DirName, "001"), data, m.Params()); err == nil {
			t.Errorf("%s: written to %s", at, path)
		}
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestBoard(t *testing.T) {
	one, other := receipt.Installation{1}, receipt.Installation{2}
	a, err := one.Board("serial")
	b, err2 := other.Board("serial")
	c, err3 := one.Board("another")
	none, err4 := one.Board("")
	if err := errors.Join(err, err2, err3, err4); err != nil || a == b || a == c || none != (bundle.Hash{}) {
		t.Error(a, b, c, none, err)
	}
}

func FuzzParse(f *testing.F) {
	m := setup(f)
	f.Add(sign(f, ofBundle(1), nil, keyOf(f, m, ibc.RoleDevice, "plc-1")))
	f.Add(sign(f, ofManifest(), rows(2), keyOf(f, m, ibc.RoleCLM, "clm-1")))
	f.Add([]byte(`{"version":1,"content":{"version":1},"signature":"","rows":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := receipt.Parse(data)
		if err != nil {
			if !errors.Is(err, receipt.ErrFormat) && !errors.Is(err, receipt.ErrVersion) {
				t.Fatalf("an error of its own: %v", err)
			}
			return
		}
		n := 0
		for range s.Rows() {
			n++
		}
		if s.Commissioned != nil && n != s.Commissioned.Rows {
			t.Fatalf("%d rows of %d", n, s.Commissioned.Rows)
		}
		if name, err := s.FileName(); err != nil || filepath.Base(name) != name {
			t.Fatalf("%q, %v", name, err)
		}
		line, err := receipt.Compact(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := receipt.Parse(line); err != nil || again.File != s.File || again.ID != s.ID {
			t.Fatalf("as a line: %v", err)
		}
	})
}
