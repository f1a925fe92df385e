package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// maxBindings is how many verified bindings are kept for one CLM name: one per
// data directory of its.
const maxBindings = 4

// peersFile is peers.json.
type peersFile struct {
	Version int `json:"version"`
	// Lifeboat is the serial number of the lifeboat whose root the rest belongs
	// to; 0: the first root.
	Lifeboat uint32 `json:"lifeboat,omitempty"`
	// Accepted is the highest identity ever accepted from a name.
	Accepted map[string]ibc.Identity `json:"accepted,omitempty"`
	Bindings []binding               `json:"bindings,omitempty"` // oldest first
}

// binding is a handshake certificate whose signature was verified.
type binding struct {
	Certificate bundle.Hash  `json:"sha256"`
	Identity    ibc.Identity `json:"identity"`
}

// peers is what the device knows of the CLMs. It is safe for concurrent use,
// and independent of the agent's turn: handshakes go on during a reload.
type peers struct {
	dir  store
	self func() *provision.Endpoint

	mu   sync.Mutex
	file peersFile
}

func openPeers(dir store, self func() *provision.Endpoint) (*peers, error) {
	p := &peers{dir: dir, self: self, file: peersFile{Version: formatVersion}}
	data, err := keyfile.ReadSecret(dir.path(peersName), maxStateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	if err := decodeFile(data, &p.file); err != nil {
		return nil, fmt.Errorf("%s: %w", peersName, err)
	}
	return p, nil
}

// kept is what is known of CLMs under the present root: nothing after a
// lifeboat, as soon as that is durable. The caller holds mu.
func (p *peers) kept() peersFile {
	if root := p.self().Lifeboat.Serial; p.file.Lifeboat != root {
		return peersFile{Version: formatVersion, Lifeboat: root}
	}
	return p.file
}

// Floor returns the lowest (epoch, generation) that is accepted from a CLM
// name: the highest of the bundle's and of those accepted before. ok is false
// for a name that the bundle does not list. Until a CLM was seen under the
// present bundle, what its predecessors say counts too; see provision.Endpoint.
func (a *Agent) Floor(name string) (epoch, generation uint32, ok bool) {
	a.peers.mu.Lock()
	defer a.peers.mu.Unlock()
	floor, ok := a.peers.floor(name)
	return floor.Epoch, floor.Generation, ok
}

// floor is Floor; the caller holds mu.
func (p *peers) floor(name string) (ibc.Identity, bool) {
	said, ok := p.self().Floor(name)
	if !ok {
		return ibc.Identity{}, false
	}
	floor := ibc.Identity{Role: ibc.RoleCLM, Name: name, Epoch: said.Epoch, Generation: said.Generation}
	if accepted, ok := p.kept().Accepted[name]; ok && accepted.Compare(floor) > 0 {
		floor = accepted
	}
	return floor, true
}

// Raise makes an accepted identity the floor of its name, durably, and forgets
// the bindings below it. It does nothing if the floor is not lower. An identity
// that was proved under another root of trust, see Root, is an error.
func (a *Agent) Raise(id ibc.Identity, root uint32) error {
	p := a.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	// If a lifeboat comes in between, what is saved is the old root's.
	next := p.kept()
	floor, ok := p.floor(id.Name)
	if !ok || id.Role != ibc.RoleCLM || next.Lifeboat != root {
		return fmt.Errorf("raise floor: %s is no CLM of this device", id)
	}
	if id.Compare(floor) <= 0 {
		return nil
	}
	next.Accepted = maps.Clone(next.Accepted)
	if next.Accepted == nil {
		next.Accepted = map[string]ibc.Identity{}
	}
	next.Accepted[id.Name] = id
	next.Bindings = slices.DeleteFunc(slices.Clone(next.Bindings), func(b binding) bool {
		return b.Identity.Name == id.Name && b.Identity.Compare(id) < 0
	})
	return p.save(next)
}

// Cached returns the identity of a handshake certificate whose binding was
// verified before, by its SHA-256.
func (a *Agent) Cached(certificate [32]byte) (ibc.Identity, bool) {
	p := a.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.kept().Bindings {
		if b.Certificate == certificate {
			return b.Identity, true
		}
	}
	return ibc.Identity{}, false
}

// Remember keeps a verified binding across restarts; the oldest of the same
// name makes room.
func (a *Agent) Remember(certificate [32]byte, id ibc.Identity) error {
	p := a.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	floor, ok := p.floor(id.Name)
	if !ok || id.Role != ibc.RoleCLM || id.Compare(floor) < 0 {
		return fmt.Errorf("remember binding: %s is no CLM of this device", id)
	}
	next := p.kept()
	next.Bindings = nil
	same := 0
	for _, b := range slices.Backward(p.kept().Bindings) {
		if _, ok := p.floor(b.Identity.Name); !ok || b.Certificate == certificate {
			continue
		}
		if b.Identity.Name == id.Name {
			if same++; same >= maxBindings {
				continue
			}
		}
		next.Bindings = append(next.Bindings, b)
	}
	slices.Reverse(next.Bindings)
	next.Bindings = append(next.Bindings, binding{certificate, id})
	return p.save(next)
}

func (p *peers) save(next peersFile) error {
	data, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return fmt.Errorf("encode peers: %w", err)
	}
	if err := p.dir.files.WriteDurable(p.dir.path(peersName), append(data, '\n'), keyfile.SecretPerm); err != nil {
		return fmt.Errorf("store peers: %w", err)
	}
	p.file = next
	return nil
}
