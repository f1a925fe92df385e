package bundle_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func row(name string, generation uint32, index uint64) bundle.Row {
	id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: generation}
	q := id.PublicKey()
	return bundle.Row{
		Role: id.Role, Name: id.Name, Epoch: id.Epoch, Generation: id.Generation, PublicKey: hexOf(q[:]),
		Address: "127.0.0.1:5684", Labels: map[string]string{"line": "3", "note": "<&>"}, Names: fleet.DefaultNames(name),
		File: bundle.FileName(id), SHA256: bundle.Hash{1}, LedgerIndex: index,
	}
}

func manifest(m *ibc.MasterSecret) *bundle.Manifest {
	return &bundle.Manifest{
		Params: m.Params(),
		Ledger: bundle.LedgerHead{Index: 3, Hash: bundle.Hash{7}},
		Rows:   []bundle.Row{row("plc-0001", 1, 2), row("plc:2", 4, 3)},
	}
}

func marshal(t testing.TB, man *bundle.Manifest, signer bundle.Signer) []byte {
	t.Helper()
	data, err := man.Marshal(signer)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestManifestRoundTrip(t *testing.T) {
	m := setup(t, 1)
	want := manifest(m)
	data := marshal(t, want, m)
	got, err := bundle.ParseManifest(data, m.Params())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if p, err := bundle.ManifestParams(data); err != nil || p.ID() != m.Params().ID() {
		t.Errorf("parameters: %v, %v", p, err)
	}
	// A tool that reformats it does no harm.
	for name, reformat := range map[string]func(*bytes.Buffer) error{
		"compact": func(out *bytes.Buffer) error { return json.Compact(out, data) },
		"indent":  func(out *bytes.Buffer) error { return json.Indent(out, data, "", "\t") },
	} {
		var out bytes.Buffer
		if err := reformat(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.ParseManifest(out.Bytes(), m.Params()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Attack: any part of a manifest is changed, or it is signed by another PKG, or
// as another kind of statement.
func TestTamperedManifestIsRefused(t *testing.T) {
	m, mallory := setup(t, 1), setup(t, 2)
	data := marshal(t, manifest(m), m)
	replace := func(old, new string) []byte {
		out := bytes.Replace(data, []byte(old), []byte(new), 1)
		if bytes.Equal(out, data) {
			t.Fatalf("%q is not in the manifest", old)
		}
		return out
	}
	foreign := marshal(t, manifest(mallory), mallory)
	borrowed := manifest(m) // says m's parameters, signed by mallory
	for _, tc := range []struct {
		name  string
		data  []byte
		cause error
	}{
		{"address", replace("127.0.0.1", "127.0.0.2"), ibc.ErrSignature},
		{"name", replace("plc-0001", "plc-0002"), ibc.ErrSignature},
		{"generation", replace(`"generation": 4`, `"generation": 5`), ibc.ErrSignature},
		{"label", replace(`"line": "3"`, `"line": "4"`), ibc.ErrSignature},
		{"ledger", replace(`"index": 3`, `"index": 4`), ibc.ErrSignature},
		{"row dropped", func() []byte {
			less := manifest(m)
			less.Rows = less.Rows[:1]
			return resigned(t, marshal(t, less, mallory), data)
		}(), ibc.ErrSignature},
		{"another PKG", foreign, bundle.ErrParams},
		{"another PKG's signature", marshal(t, borrowed, mallory), ibc.ErrSignature},
		{"another kind", marshal(t, manifest(m), otherKind{m}), ibc.ErrSignature},
		{"version", replace(`"version": 1`, `"version": 2`), bundle.ErrVersion},
		{"cut", data[:len(data)/2], bundle.ErrFormat},
		{"empty", nil, bundle.ErrFormat},
		{"no content", []byte(`{"version":1}`), bundle.ErrFormat},
		{"a bundle", []byte("age-encryption.org/v1\n"), bundle.ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := bundle.ParseManifest(tc.data, m.Params())
			if got != nil || !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want %v", err, tc.cause)
			}
		})
	}
}

type otherKind struct{ m *ibc.MasterSecret }

func (o otherKind) Sign(_ ibc.Kind, document []byte) ([]byte, error) {
	return o.m.Sign(ibc.KindLedger, document)
}

// resigned puts the genuine signature of one manifest on another.
func resigned(t testing.TB, forged, genuine []byte) []byte {
	t.Helper()
	var f, g map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(forged, &f), json.Unmarshal(genuine, &g)); err != nil {
		t.Fatal(err)
	}
	f["signature"] = g["signature"]
	out, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The PKG would not sign these; a reader refuses them all the same.
func TestManifestOfWrongRowsIsRefused(t *testing.T) {
	m := setup(t, 1)
	for name, spoil := range map[string]func(*bundle.Manifest){
		"role":              func(man *bundle.Manifest) { man.Rows[0].Role = "ca" },
		"later epoch":       func(man *bundle.Manifest) { man.Rows[0].Epoch = 2; man.Rows[0].File = "dev-plc-0001.e2.g1.bundle.age" },
		"public key":        func(man *bundle.Manifest) { man.Rows[0].PublicKey = "00" },
		"another file":      func(man *bundle.Manifest) { man.Rows[0].File = man.Rows[1].File },
		"file outside":      func(man *bundle.Manifest) { man.Rows[0].File = "../" + man.Rows[0].File },
		"absolute file":     func(man *bundle.Manifest) { man.Rows[0].File = "/" + man.Rows[0].File },
		"unclean file":      func(man *bundle.Manifest) { man.Rows[0].File = "a/../" + man.Rows[0].File },
		"address":           func(man *bundle.Manifest) { man.Rows[0].Address = "nowhere" },
		"label":             func(man *bundle.Manifest) { man.Rows[0].Labels = map[string]string{"": "x"} },
		"label escape":      func(man *bundle.Manifest) { man.Rows[0].Labels = map[string]string{"a": "\x1b[2J"} },
		"name":              func(man *bundle.Manifest) { man.Rows[0].Names[0].Value = "" },
		"no ledger entry":   func(man *bundle.Manifest) { man.Rows[0].LedgerIndex = 0 },
		"a name twice":      func(man *bundle.Manifest) { man.Rows[1] = man.Rows[0] },
		"too many names":    func(man *bundle.Manifest) { man.Rows[0].Names = slicesOf(man.Rows[0].Names[0], fleet.MaxNames+1) },
		"no canonical name": func(man *bundle.Manifest) { man.Rows[0].Name = "PLC" },
	} {
		t.Run(name, func(t *testing.T) {
			man := manifest(m)
			spoil(man)
			data, err := man.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bundle.ParseManifest(data, m.Params()); !errors.Is(err, bundle.ErrFormat) {
				t.Errorf("error %v, want ErrFormat", err)
			}
		})
	}
}

func slicesOf[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestMerge(t *testing.T) {
	old := row("plc", 2, 10)
	for _, tc := range []struct {
		name    string
		next    bundle.Row
		want    bundle.Outcome
		updated bool
	}{
		{"equal", row("plc", 2, 10), bundle.Unchanged, false},
		{"same generation, earlier entry", row("plc", 2, 9), bundle.Unchanged, false},
		{"same generation, later entry", row("plc", 2, 11), bundle.Updated, true},
		{"earlier generation", row("plc", 1, 12), bundle.Skipped, false},
		{"later generation", row("plc", 3, 12), bundle.Updated, true},
	} {
		tc.next.Address = "10.9.9.9:1"
		got, outcome := old.Merge(tc.next)
		if outcome != tc.want || (got.Address == tc.next.Address) != tc.updated {
			t.Errorf("%s: outcome %d, address %s", tc.name, outcome, got.Address)
		}
	}
	later := row("plc", 1, 11)
	later.Epoch = 2
	if got, outcome := old.Merge(later); outcome != bundle.Updated || got.Epoch != 2 {
		t.Errorf("later epoch, lower generation: outcome %d", outcome)
	}
}

// Property: the order in which rows arrive does not matter.
func TestMergeIsIndependentOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// As a ledger has them: generations do not fall with the index.
		generations := rapid.SliceOfN(rapid.Uint32Range(0, 2), 1, 6).Draw(t, "steps")
		var rows []bundle.Row
		generation := uint32(1)
		for i, step := range generations {
			generation += step
			r := row("plc", generation, uint64(i+1))
			r.Address = fmt.Sprintf("10.0.0.%d:1", i+1)
			rows = append(rows, r)
		}
		want := rows[len(rows)-1]
		order := rapid.Permutation(rows).Draw(t, "order")
		got := order[0]
		for _, r := range order[1:] {
			got, _ = got.Merge(r)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got entry %d, want %d", got.LedgerIndex, want.LedgerIndex)
		}
	})
}

func TestHashText(t *testing.T) {
	h := bundle.Hash{0xab}
	var back bundle.Hash
	if err := back.UnmarshalText([]byte(h.String())); err != nil || back != h {
		t.Errorf("%s, %v", back, err)
	}
	for _, bad := range []string{"", "ab", strings.ToUpper(h.String()), h.String() + "00", strings.Repeat("z", 64)} {
		if err := back.UnmarshalText([]byte(bad)); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", bad, err)
		}
	}
}
