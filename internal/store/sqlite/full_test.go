package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// TestNoRoom: a file system without room is no damaged inventory.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	putTest(t, s, "plc-1")
	err := s.writer.do(ctx, func(ctx context.Context, x *tx) error {
		var pages int
		return x.queryRow(ctx, "PRAGMA max_page_count = 1", nil, &pages) // no less than there are
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		err = s.Note(ctx, store.Action{Device: "plc-1", At: time.Unix(int64(i), 0), Reason: fmt.Sprint(i)}, enrol.EventWarning)
		if err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("without room: %v", err)
	}
	checkIntegrity(t, s)
}
