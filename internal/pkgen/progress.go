package pkgen

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ProgressFile is the name of the note on a medium by which a run that was cut
// is taken up again: which bundles are durable there. It is gone when a run is
// complete.
const ProgressFile = "issue.progress"

// Bounds of the note: a line for each chunk.
const (
	maxProgress     = bundle.MaxRows * maxProgressLine / chunk
	maxProgressLine = chunk*(160+64+64) + 128
)

// written is a bundle that is on the medium: a line of the note has those of one
// chunk.
type written struct {
	File   string `json:"file"`
	SHA256 Hash   `json:"sha256"`
	Index  uint64 `json:"ledger_index"`
}

// progress is the note of what a run has written. Each line is "<MAC> <JSON>\n"
// with HMAC-SHA-256 in hex under a key derived from the master secret: whoever
// has the stick for a while cannot have another file taken for a bundle. A line
// that does not hold, the torn last one as a rule, ends it.
type progress struct {
	key   []byte
	path  string
	files keyfile.Files
	known map[string]written // by file
	kept  []byte             // the lines that hold
	begun bool               // the file has them and nothing else
}

// openProgress reads the note of a run that was cut, if there is one.
func (p *PKG) openProgress(m *medium) (*progress, error) {
	id := p.Params().ID()
	key, err := p.authority.Derive("edgeclm/v1/issue-progress/"+hex.EncodeToString(id[:]), sha256.Size)
	if err != nil {
		return nil, err
	}
	n := &progress{key: key, path: m.path(ProgressFile), files: m.files, known: map[string]written{}}
	data, err := keyfile.Read(n.path, maxProgress)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	n.parse(data)
	return n, nil
}

func (n *progress) parse(data []byte) {
	for rest := data; ; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		mac, body, ok := bytes.Cut(line, []byte(" "))
		if !whole || !ok || len(line) > maxProgressLine || !hmac.Equal(mac, n.mac(body)) {
			return
		}
		var some []written
		if err := json.Unmarshal(body, &some); err != nil {
			return
		}
		for _, w := range some {
			n.known[w.File] = w
		}
		rest = after
		n.kept = data[:len(data)-len(rest)]
	}
}

func (n *progress) mac(body []byte) []byte {
	mac := hmac.New(sha256.New, n.key)
	mac.Write(body)
	return hex.AppendEncode(nil, mac.Sum(nil))
}

// has reports whether the bundle that an entry of the ledger records is on the
// medium, and its hash. The file is read.
func (n *progress) has(m *medium, j *job, entry Entry) (Hash, bool) {
	if n == nil {
		return Hash{}, false
	}
	w, ok := n.known[j.file]
	if !ok || w.Index != entry.Index {
		return Hash{}, false
	}
	data, err := keyfile.Read(m.path(j.file), bundle.MaxSize)
	return w.SHA256, err == nil && Hash(sha256.Sum256(data)) == w.SHA256
}

// note adds what is durable now.
func (n *progress) note(some []written) error {
	if n == nil || len(some) == 0 {
		return nil
	}
	body, err := json.Marshal(some)
	if err != nil {
		return err
	}
	line := append(append(n.mac(body), ' '), append(body, '\n')...)
	if !n.begun {
		// Lines behind one that does not hold would never be read.
		err = n.files.WriteDurable(n.path, append(bytes.Clone(n.kept), line...), keyfile.PublicPerm)
		n.begun, n.kept = err == nil, nil
		return err
	}
	return n.files.AppendDurable(n.path, line)
}

// end removes the note of a run that is complete.
func (n *progress) end() error {
	if n == nil {
		return nil
	}
	clear(n.key)
	return n.files.RemoveDurable(n.path)
}

// factOf returns the fact of a job whose payload is known.
func factOf(j *job, payload *Hash) Fact {
	id, recipient := j.identity, Hash(j.recipient.Hash())
	return Fact{
		Type: typeIssue, Identity: &id, Payload: payload, Recipient: &recipient,
		Address: j.address, Labels: j.labels, Names: j.names, CLMs: j.clms(),
	}
}

// onMedium finds out whether a job was done by a run that was cut: no key is
// extracted and nothing is signed for it then.
func (p *PKG) onMedium(m *medium, j *job) (w written, done bool, err error) {
	last, ok := p.Ledger.Latest(subject(j.identity))
	if m.progress == nil || !ok {
		return w, false, nil
	}
	hash, ok := m.progress.has(m, j, last)
	if !ok {
		return w, false, nil
	}
	document, err := j.bundle().Payload()
	if err != nil {
		return w, false, err
	}
	payload := Hash(sha256.Sum256(document))
	return written{j.file, hash, last.Index}, last.same(factOf(j, &payload)), nil
}

// publicKey is the public key of an identity as a manifest has it, in hex.
func publicKey(id ibc.Identity) string {
	q := id.PublicKey()
	return fmt.Sprintf("%x", q[:])
}
