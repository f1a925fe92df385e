package agent

import (
	"errors"
	"path/filepath"
	"testing"
)

// Whatever the journal says, it names files of one directory, not what leads
// out of it.
func FuzzFirstBootJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"dir":"/boot","names":["pin"]}`))
	f.Add([]byte(`{"version":1,"dir":"/boot","names":["../pin","a/b",""]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := parseWipe(data)
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Error(err)
			}
			return
		}
		for _, name := range w.Names {
			if filepath.Dir(filepath.Join("/boot", name)) != "/boot" || filepath.Join("/boot", name) == "/boot" {
				t.Errorf("%q leads out", name)
			}
		}
	})
}
