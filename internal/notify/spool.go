package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Bounds of the spool.
const (
	spoolVersion = 1
	maxItem      = 4 << 20
	maxWaiting   = 1000
	maxDead      = 100
	maxDamaged   = 10
	maxAge       = 72 * time.Hour // a long weekend
	minTries     = 8              // before a message is too old
	maxTries     = 200
	firstWait    = time.Minute
	longestWait  = time.Hour
)

// item is a message on its way, a file of the spool.
type item struct {
	Version  int                  `json:"version"`
	Message  Message              `json:"message"`
	Channels map[string]*delivery `json:"channels"` // those that have not got it
	Queued   time.Time            `json:"queued"`
	Dead     time.Time            `json:"dead,omitzero"`

	name string // of its file
}

// delivery is how it goes with one channel.
type delivery struct {
	Tries int       `json:"tries"`
	Next  time.Time `json:"next"`
	Error string    `json:"error,omitempty"` // of the last try
	Final bool      `json:"final,omitempty"` // it is not tried again
}

// errDamaged is wrapped when what a file of the spool holds is no message, which
// will not change; unlike a file that could not be read just now.
var errDamaged = errors.New("damaged")

// spool is a directory of messages. Who uses it holds its lock.
type spool struct {
	dir   string
	files keyfile.Files
}

func (s spool) queue() string { return filepath.Join(s.dir, "queue") }
func (s spool) dead() string  { return filepath.Join(s.dir, "dead") }

func (s spool) prepare() error {
	for _, dir := range []string{s.dir, s.queue(), s.dead()} {
		if err := s.files.EnsureDir(dir); err != nil {
			return fmt.Errorf("prepare the notifications' spool: %w", err)
		}
	}
	return nil
}

// sweep removes the temporary files that a crash has left.
func (s spool) sweep() error {
	for _, dir := range []string{s.dir, s.queue(), s.dead()} {
		if err := s.files.Sweep(dir); err != nil {
			return err
		}
	}
	return nil
}

// names returns the files of a directory in the order of their sequence.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

func itemName(sequence uint64) string { return fmt.Sprintf("%020d.json", sequence) }

// parseItem reads a file of the spool.
func parseItem(data []byte) (*item, error) {
	var it item
	if err := json.Unmarshal(data, &it); err != nil {
		return nil, err
	}
	if it.Version != spoolVersion {
		return nil, fmt.Errorf("unknown version %d", it.Version)
	}
	if len(it.Channels) > maxChannels || !strings.HasPrefix(it.Message.Data.ID, "msg_") || len(it.Message.Data.ID) > 64 {
		return nil, errors.New("not a message of this spool")
	}
	for _, d := range it.Channels {
		if d == nil {
			return nil, errors.New("a channel without a state")
		}
	}
	return &it, nil
}

func (s spool) read(dir, name string) (*item, error) {
	data, err := keyfile.Read(filepath.Join(dir, name), maxItem)
	if errors.Is(err, keyfile.ErrTooLarge) {
		return nil, fmt.Errorf("read the message %s: %w: %w", name, errDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the message %s: %w", name, err)
	}
	it, err := parseItem(data)
	if err != nil {
		return nil, fmt.Errorf("read the message %s: %w: %w", name, errDamaged, err)
	}
	it.name = name
	return it, nil
}

func (s spool) write(dir string, it *item) error {
	it.Version = spoolVersion
	data, err := json.Marshal(it)
	if err != nil {
		return err
	}
	return s.files.WriteDurable(filepath.Join(dir, it.name), data, keyfile.SecretPerm)
}

// put adds a message. One of the same sequence is replaced: it belongs to a
// digest that was never taken down as told, and was not sent.
func (s spool) put(m Message, channels []Channel, now time.Time) error {
	it := &item{Message: m, Channels: map[string]*delivery{}, Queued: now, name: itemName(m.Data.Sequence)}
	for _, c := range channels {
		it.Channels[c.Name()] = &delivery{Next: now}
	}
	return s.write(s.queue(), it)
}

// bury moves a message to the dead ones, of which the oldest make room.
func (s spool) bury(it *item, now time.Time) error {
	it.Dead = now
	if err := s.write(s.dead(), it); err != nil {
		return err
	}
	if err := s.files.RemoveDurable(filepath.Join(s.queue(), it.name)); err != nil {
		return err
	}
	dead, err := names(s.dead())
	if err != nil {
		return err
	}
	for _, name := range dead[:max(0, len(dead)-maxDead)] {
		if err := s.files.RemoveDurable(filepath.Join(s.dead(), name)); err != nil {
			return err
		}
	}
	return nil
}

// damagedMark is at the end of the name of what was set aside.
const damagedMark = ".damaged"

// setAside takes a file that is damaged out of the way, and keeps it; of those,
// the first make room.
func (s spool) setAside(dir, name string) error {
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+damagedMark)); err != nil {
		return err
	}
	aside, err := filepath.Glob(filepath.Join(dir, "*"+damagedMark))
	if err != nil {
		return err
	}
	for _, path := range aside[:max(0, len(aside)-maxDamaged)] {
		if err := s.files.RemoveDurable(path); err != nil {
			return err
		}
	}
	return nil
}
