package pkgen

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// BatchesDir holds, of every batch that is not combined yet, what only the PKG's
// directory knows: what is to be done, the key that opens the contributions, and
// the seed of PINs.
const BatchesDir = "batches"

const (
	taskVersion = 1
	taskSuffix  = ".json"
	maxTask     = 1 << 30
	seedSize    = 32
)

// Task is a run that the holders of shares contribute to; one of the two.
type Task struct {
	Issue  *IssueTask
	Anchor *AnchorRequest
}

// IssueTask is what Issue is asked for.
type IssueTask struct {
	Requests []Request
	Options  IssueOptions
}

// Done is what a Task came to: one of the two.
type Done struct {
	Issued *Issued
	Stated *Stated
}

// run does the task with a PKG.
func (t Task) run(ctx context.Context, p *PKG) (Done, error) {
	switch {
	case t.Issue != nil:
		issued, err := p.Issue(ctx, t.Issue.Requests, t.Issue.Options)
		return Done{Issued: issued}, err
	case t.Anchor != nil:
		stated, err := p.Anchor(*t.Anchor)
		return Done{Stated: stated}, err
	}
	return Done{}, fmt.Errorf("%w: nothing was asked for", ErrRequest)
}

// on returns the task with what is not kept of it: the medium, the passphrase of
// bundles, and who is told of progress.
func (t Task) on(o CombineOptions) Task {
	switch {
	case t.Issue != nil:
		issue := *t.Issue
		issue.Options.Medium, issue.Options.Passphrase, issue.Options.Progress = o.Medium, o.Passphrase, o.Progress
		t.Issue = &issue
	case t.Anchor != nil:
		anchor := *t.Anchor
		anchor.Medium = o.Medium
		t.Anchor = &anchor
	}
	return t
}

// pendingTask is a Task whose batch was made.
type pendingTask struct {
	Task
	batch    Hash
	time     time.Time
	after    bundle.LedgerHead
	run      *Hash  // the transcript that the ledger's entries name
	identity []byte // age secret key of the batch's recipient
	seed     []byte
}

func (t *pendingTask) destroy() {
	clear(t.identity)
	clear(t.seed)
}

// taskJSON is the form of a file in BatchesDir.
type taskJSON struct {
	Version    int               `json:"version"`
	Batch      Hash              `json:"batch_sha256"`
	Time       time.Time         `json:"time"`
	After      bundle.LedgerHead `json:"after"`
	Transcript *Hash             `json:"transcript_sha256,omitempty"`
	Identity   string            `json:"identity"`
	Seed       string            `json:"seed"` // hex
	Issue      *issueJSON        `json:"issue,omitempty"`
	Anchor     *anchorJSON       `json:"anchor,omitempty"`
}

type issueJSON struct {
	Requests []requestJSON `json:"requests"`
	CLMs     []string      `json:"clms,omitempty"`
	Anchors  [][]byte      `json:"anchors,omitempty"`
	PINs     bool          `json:"pins,omitempty"`
	Lab      bool          `json:"lab,omitempty"`
}

type requestJSON struct {
	Role       ibc.Role          `json:"role"`
	Name       string            `json:"name"`
	Generation uint32            `json:"generation,omitempty"`
	Recipient  string            `json:"recipient,omitempty"`
	Address    string            `json:"address,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Names      []fleet.Name      `json:"names,omitempty"`
}

type anchorJSON struct {
	Pattern bundle.Pattern `json:"pattern"`
	Anchors [][]byte       `json:"anchors"`
	Lab     bool           `json:"lab,omitempty"`
}

func (t *pendingTask) marshal() ([]byte, error) {
	j := taskJSON{
		Version: taskVersion, Batch: t.batch, Time: t.time, After: t.after, Transcript: t.run,
		Identity: string(t.identity), Seed: hex.EncodeToString(t.seed),
	}
	if i := t.Issue; i != nil {
		o := i.Options
		j.Issue = &issueJSON{CLMs: o.CLMs, Anchors: o.Anchors, PINs: o.PINs, Lab: o.Lab}
		for _, r := range i.Requests {
			to := ""
			if r.Recipient != nil {
				var err error
				if to, _, err = r.Recipient.Text(); err != nil {
					return nil, err
				}
			}
			j.Issue.Requests = append(j.Issue.Requests, requestJSON{r.Role, r.Name, r.Generation, to, r.Address, r.Labels, r.Names})
		}
	}
	if a := t.Anchor; a != nil {
		j.Anchor = &anchorJSON{a.Pattern, a.Anchors, a.Lab}
	}
	return json.Marshal(j)
}

func parseTask(data []byte) (*pendingTask, error) {
	var j taskJSON
	if err := decodeVersioned(data, maxTask, taskVersion, &j); err != nil {
		return nil, err
	}
	t := &pendingTask{batch: j.Batch, time: j.Time, after: j.After, run: j.Transcript, identity: []byte(j.Identity)}
	var err error
	if t.seed, err = hex.DecodeString(j.Seed); err != nil || len(t.seed) != seedSize {
		return nil, fmt.Errorf("%w: no seed", bundle.ErrFormat)
	}
	if i := j.Issue; i != nil {
		t.Issue = &IssueTask{Options: IssueOptions{CLMs: i.CLMs, Anchors: i.Anchors, PINs: i.PINs, Lab: i.Lab}}
		for _, r := range i.Requests {
			request := Request{Role: r.Role, Name: r.Name, Generation: r.Generation, Address: r.Address, Labels: r.Labels, Names: r.Names}
			if r.Recipient != "" {
				to, err := bundle.ParseRecipient(r.Recipient)
				if err != nil {
					return nil, err
				}
				request.Recipient = &to
			}
			t.Issue.Requests = append(t.Issue.Requests, request)
		}
	}
	if a := j.Anchor; a != nil {
		t.Anchor = &AnchorRequest{Pattern: a.Pattern, Anchors: a.Anchors, Lab: a.Lab}
	}
	return t, nil
}

// taskFile is where the task of a batch lies.
func (c Config) taskFile(batch Hash) string {
	return filepath.Join(c.path(BatchesDir), batch.String()[:32]+taskSuffix)
}

func (c Config) writeTask(t *pendingTask) error {
	if err := c.Files.EnsureDir(c.path(BatchesDir)); err != nil {
		return err
	}
	data, err := t.marshal()
	if err != nil {
		return err
	}
	defer clear(data)
	return c.Files.WriteDurable(c.taskFile(t.batch), data, keyfile.SecretPerm)
}

// readTask reads the task of a batch. Errors wrap fs.ErrNotExist if there is
// none, or bundle.ErrFormat if the file is damaged, as one that was being wiped.
func (c Config) readTask(batch Hash) (*pendingTask, error) {
	data, err := keyfile.ReadSecret(c.taskFile(batch), maxTask)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	t, err := parseTask(data)
	if err == nil && t.batch != batch {
		err = bundle.ErrFormat
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.taskFile(batch), err)
	}
	return t, nil
}

// wipeTasks overwrites and removes the tasks whose time is over: that of a batch
// that was combined, and of those that were made of an earlier state of the
// ledger and cannot be combined any more.
func (p *PKG) wipeTasks(done Hash) error {
	dir := p.path(BatchesDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		// What was cut when it was written has a key in it too.
		stale := keyfile.IsTemp(path)
		task := !e.IsDir() && strings.HasSuffix(e.Name(), taskSuffix)
		if !stale && (!task || path != p.taskFile(done) && !p.overtaken(path)) {
			continue
		}
		failed = errors.Join(failed, p.Files.Wipe(path))
	}
	return failed
}

// overtaken reports whether a task was made of an earlier state of the ledger.
// One that cannot be read is left alone.
func (p *PKG) overtaken(path string) bool {
	data, err := keyfile.ReadSecret(path, maxTask)
	if err != nil {
		return false
	}
	defer clear(data)
	t, err := parseTask(data)
	if err != nil {
		return false
	}
	defer t.destroy()
	return t.after != p.Ledger.Head()
}

// draw returns the secrets of a new batch.
func draw(random io.Reader) (identity []byte, to bundle.Recipient, seed []byte, err error) {
	seed = make([]byte, seedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, bundle.Recipient{}, nil, fmt.Errorf("read random: %w", err)
	}
	identity, to, err = bundle.GenerateOpener()
	return identity, to, seed, err
}

// committed returns the bytes of a ledger up to its last head.
func committed(path string, log *hashlog.Log) ([]byte, error) {
	data, err := keyfile.Read(path, maxLedger)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) < log.State.Size {
		return nil, fmt.Errorf("%s: %w", path, hashlog.ErrTruncated)
	}
	return bytes.Clone(data[:log.State.Size]), nil
}
