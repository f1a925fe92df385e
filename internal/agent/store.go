package agent

import (
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Names in the state directory.
const (
	lockName   = "lock"
	peersName  = "peers.json"
	stateName  = "state.json"
	pairsName  = "pairs"
	activeName = "active"
)

// store is the state directory.
type store struct {
	dir   string
	layer Layer
	files keyfile.Files
	keys  []KeyStore // the first makes new ones
}

// newStore returns a state directory. A nil layer is OS{}, no key stores are
// FileKeys.
func newStore(dir string, layer Layer, keys ...KeyStore) store {
	if layer == nil {
		layer = OS{}
	}
	if len(keys) == 0 {
		keys = []KeyStore{FileKeys{}}
	}
	return store{dir: dir, layer: layer, files: keyfile.On(layer), keys: keys}
}

func (s store) path(name string) string { return filepath.Join(s.dir, name) }

// pair returns the path of a file of a pair, of its directory if name is "".
func (s store) pair(id enrol.ID, name string) string {
	return filepath.Join(s.dir, pairsName, id.String(), name)
}
