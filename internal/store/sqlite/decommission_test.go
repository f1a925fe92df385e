package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// TestDecommissionWithdraws: a payload stays as long as anybody waits for it.
func TestDecommissionWithdraws(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	names := []string{"plc-1", "plc-2"}
	putTest(t, s, names...)
	at := time.Date(2031, time.May, 7, 9, 0, 0, 0, time.UTC)
	var deliveries []enrol.Delivery
	for _, name := range names {
		deliveries = append(deliveries, enrol.NewDelivery(name, enrol.DeliverAnchors, 3, []byte("statement"), at))
	}
	if n, err := s.QueueDeliveries(ctx, deliveries); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	for i, name := range names {
		if err := s.Decommission(ctx, store.Action{Device: name, At: at}); err != nil {
			t.Fatal(err)
		}
		var payloads, waiting int
		err := s.readDB.QueryRow("SELECT (SELECT count(*) FROM payload), (SELECT count(*) FROM delivery)").Scan(&payloads, &waiting)
		if left := len(names) - 1 - i; err != nil || payloads != min(left, 1) || waiting != left {
			t.Errorf("without %s: %d payloads for %d, %v", name, payloads, waiting, err)
		}
	}
	checkIntegrity(t, s)
}
