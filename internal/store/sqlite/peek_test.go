package sqlite

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

func TestPeek(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	d := store.Delivery{Source: "test", Assets: []store.Asset{{Device: "plc-2", Asset: "PRESS 7"}}}
	for i, name := range []string{"plc-1", "plc-2", "plc:3", "robot"} {
		id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1}
		d.Rows = append(d.Rows, store.Row{Identity: id, LedgerIndex: uint64(i + 1), Labels: map[string]string{"line": name[:1], "hall": "north"}})
	}
	if _, err := s.PutDevices(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := s.SetLabels(t.Context(), store.Action{Device: "robot"}, map[string]string{"line": "9"}); err != nil {
		t.Fatal(err)
	}
	p, err := OpenPeek(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for what, c := range map[string]struct {
		got  func() ([]string, error)
		want []string
	}{
		"all":       {func() ([]string, error) { return p.Names(t.Context(), "", 10) }, []string{"plc-1", "plc-2", "plc:3", "robot"}},
		"prefix":    {func() ([]string, error) { return p.Names(t.Context(), "plc", 2) }, []string{"plc-1", "plc-2"}},
		"no name":   {func() ([]string, error) { return p.Names(t.Context(), "%", 10) }, nil},
		"asset":     {func() ([]string, error) { return p.Assets(t.Context(), "press", 10) }, []string{"PRESS 7"}},
		"no asset":  {func() ([]string, error) { return p.Assets(t.Context(), "x", 10) }, nil},
		"keys":      {func() ([]string, error) { return p.LabelKeys(t.Context(), "", 10) }, []string{"hall", "line"}},
		"key":       {func() ([]string, error) { return p.LabelKeys(t.Context(), "li", 10) }, []string{"line"}},
		"values":    {func() ([]string, error) { return p.LabelValues(t.Context(), "line", "", 10) }, []string{"9", "p"}},
		"no values": {func() ([]string, error) { return p.LabelValues(t.Context(), "x", "", 10) }, nil},
	} {
		if got, err := c.got(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", what, got, err, c.want)
		}
	}
	if _, err := p.db.ExecContext(t.Context(), "DELETE FROM device"); err == nil {
		t.Error("a look can change the inventory")
	}
}
