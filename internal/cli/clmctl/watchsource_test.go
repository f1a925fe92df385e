package clmctl

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestReplacedInventory: a dashboard that stays open does not go on showing an
// inventory that nobody else has, and a loop does not renew by it.
func TestReplacedInventory(t *testing.T) {
	t.Parallel()
	a := &app{}
	a.Now = time.Now
	s := &site{dir: dataDir(t.TempDir())}
	inventory, err := s.dir.inventory(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inventory.Close() }()
	source := a.newDashboardSource(s, inventory)
	queue := dueQueue{inventory, s.dir.openedFile(), s.Policy}
	if _, err := source.Census(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := s.dir.path(inventoryFile)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Census(t.Context()); !errors.Is(err, errReplaced) {
		t.Errorf("it is gone: %v", err)
	}
	if _, err := queue.DueJobs(t.Context(), time.Now()); !errors.Is(err, errReplaced) {
		t.Errorf("the loop goes on: %v", err)
	}
	if err := os.WriteFile(path, []byte("restored"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Census(t.Context()); !errors.Is(err, errReplaced) {
		t.Errorf("it is another one: %v", err)
	}
	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Census(t.Context()); err != nil {
		t.Errorf("it is back: %v", err)
	}
}
