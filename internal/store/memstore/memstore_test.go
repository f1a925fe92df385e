package memstore_test

import (
	"testing"

	"github.com/edgeclm/edgeclm/internal/store/memstore"
	"github.com/edgeclm/edgeclm/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Place[storetest.Store] {
		disk := memstore.NewDisk()
		return func(testing.TB) storetest.Store { return disk.Open() }
	})
}
