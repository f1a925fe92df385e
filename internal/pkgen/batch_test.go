package pkgen_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// circle is a PKG in shares with their holders.
type circle struct {
	config  pkgen.Config
	sharing *custody.Sharing
	holders []party
	files   []string // of the shares
}

// newCircle makes a PKG whose master secret is in shares, three of them needed
// by default.
func newCircle(t testing.TB, n int) *circle {
	t.Helper()
	c := &circle{config: config(filepath.Join(t.TempDir(), "pkg"))}
	c.config.Random = rand.Reader // each has a master secret of its own
	o := &pkgen.SharesOptions{Threshold: 2}
	for i := range n {
		p := newParty(t)
		c.holders = append(c.holders, p)
		o.Holders = append(o.Holders, pkgen.Holder{Name: fmt.Sprintf("holder-%d", i+1), To: p.to})
	}
	ledger, err := pkgen.Init(c.config, passphrase, pkgen.InitOptions{Shares: o})
	if err != nil {
		t.Fatal(err)
	}
	c.settle(t, ledger)
	return c
}

// settle reads which sharing is in force, and where its shares are.
func (c *circle) settle(t testing.TB, ledger *pkgen.Ledger) {
	t.Helper()
	var err error
	if c.sharing, err = pkgen.ReadSharing(c.config.Dir, ledger); err != nil {
		t.Fatal(err)
	}
	c.files = nil
	for i := range c.holders {
		c.files = append(c.files, filepath.Join(c.config.Dir, pkgen.SharesDir, c.sharing.FileName(i+1)))
	}
}

// share opens the share of a holder, numbered from 1.
func (c *circle) share(t testing.TB, i int) *custody.Share {
	t.Helper()
	sealed, err := os.ReadFile(c.files[i-1])
	if err != nil {
		t.Fatal(err)
	}
	x, err := custody.Open(sealed, c.holders[i-1].opener, c.sharing)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// batch makes a batch of a task.
func (c *circle) batch(t testing.TB, task pkgen.Task) []byte {
	t.Helper()
	file, _, err := pkgen.MakeBatch(context.Background(), c.config, task, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// contribute is what a holder does on his machine.
func (c *circle) contribute(t testing.TB, file []byte, i int) pkgen.SealedContribution {
	t.Helper()
	b, err := pkgen.ParseBatch(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Review(c.sharing)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := r.Contribute(c.share(t, i))
	if err != nil {
		t.Fatal(err)
	}
	return pkgen.SealedContribution{Name: fmt.Sprintf("partial-%d.age", i), Sealed: sealed}
}

func (c *circle) combine(file []byte, medium string, x ...pkgen.SealedContribution) (*pkgen.Combined, error) {
	return pkgen.Combine(context.Background(), c.config, file, pkgen.CombineOptions{Medium: medium, Contributions: x})
}

func issueTask(medium string, clms []string, requests ...pkgen.Request) pkgen.Task {
	return pkgen.Task{Issue: &pkgen.IssueTask{Requests: requests, Options: pkgen.IssueOptions{Medium: medium, CLMs: clms}}}
}

// withCLM issues clm-1 to a medium, by the first and the last holder.
func (c *circle) withCLM(t testing.TB) string {
	t.Helper()
	medium := filepath.Join(t.TempDir(), "usb")
	clm := newParty(t)
	file := c.batch(t, issueTask(medium, nil, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to, Address: "clm.example:5684"}))
	done, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, len(c.holders)))
	if err != nil || len(done.Refused) > 0 {
		t.Fatal(err, done)
	}
	return medium
}

// TestDistributedIssue: keys are made by holders who never bring their shares
// together, and ledger, manifest and bundles hold as those of any PKG do.
func TestDistributedIssue(t *testing.T) {
	c := newCircle(t, 3)
	medium := c.withCLM(t)
	dev := newParty(t)
	before := snapshot(t, c.config.Dir, medium)
	file := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev), device("plc-2", dev)))
	for path, data := range before {
		now, err := os.ReadFile(path)
		if err != nil || string(now) != data {
			t.Errorf("a batch was made, and %s changed: %v", path, err)
		}
	}
	// Any two of the three.
	done, err := c.combine(file, medium, c.contribute(t, file, 3), c.contribute(t, file, 2))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(done.Holders, " ") != "holder-3 holder-2" || len(done.Issued.Rows) != 2 {
		t.Errorf("%+v", done)
	}
	ledger, m := verify(t, c.config, medium)
	if len(m.Rows) != 3 || len(ledger.Entries) != 4 {
		t.Fatalf("%d rows, %d entries", len(m.Rows), len(ledger.Entries))
	}
	b := open(t, medium, m.Rows[1], dev)
	if err := b.HeldTo(ledger.Params.ID()); err != nil {
		t.Error(err)
	}
	if b.Peers[0].Name != "clm-1" || b.CLMAddresses[0] != "clm.example:5684" {
		t.Errorf("%+v", b)
	}
	if left, err := os.ReadDir(filepath.Join(c.config.Dir, pkgen.BatchesDir)); err != nil || len(left) > 0 {
		t.Errorf("left of the batch: %v %v", left, err)
	}
	again, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2))
	if err != nil || !again.Already {
		t.Errorf("combined again: %+v %v", again, err)
	}
	// The same key again to the same recipient is an entry of its own: the
	// holders see it.
	file = c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	if _, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2)); err != nil {
		t.Fatal(err)
	}
	ledger, m = verify(t, c.config, medium)
	if len(ledger.Entries) != 5 || m.Rows[1].LedgerIndex != 5 {
		t.Errorf("%d entries, row of %d", len(ledger.Entries), m.Rows[1].LedgerIndex)
	}
}

// TestDistributedAnchor: a statement about trust anchors goes the same way.
func TestDistributedAnchor(t *testing.T) {
	c := newCircle(t, 2)
	medium := t.TempDir()
	task := pkgen.Task{Anchor: &pkgen.AnchorRequest{Medium: medium, Pattern: "plc-*", Anchors: [][]byte{root(t, "root")}}}
	for range 2 { // the second time it says what it said
		file := c.batch(t, task)
		done, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2))
		if err != nil {
			t.Fatal(err)
		}
		if done.Stated.Set.Serial != 1 || done.Stated.Index != 2 {
			t.Errorf("%+v", done.Stated)
		}
		ledger, err := pkgen.VerifyDir(c.config.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pkgen.VerifyAnchors(done.Stated.File, ledger.Params, ledger); err != nil {
			t.Error(err)
		}
	}
}

// TestReview: what a holder is shown, and what he has to agree to by itself.
func TestReview(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev, other := newParty(t), newParty(t)
	file := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	if _, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2)); err != nil {
		t.Fatal(err)
	}
	clm := pkgen.Request{Role: ibc.RoleCLM, Name: "clm-2", Recipient: &dev.to}
	next := device("plc-1", other)
	next.Generation = 2
	for _, x := range []struct {
		task pkgen.Task
		want string
	}{
		{issueTask(medium, []string{"clm-1"}, device("plc-2", dev)), ""},
		{issueTask(medium, nil, clm), "clm=clm-2"},
		{issueTask(medium, []string{"clm-1"}, device("plc-1", dev)), "reissue=plc-1"},
		{issueTask(medium, []string{"clm-1"}, next, device("plc-3", dev)), "reissue=plc-1"},
		{pkgen.Task{Anchor: &pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{root(t, "root")}}}, "anchor=1"},
	} {
		b, err := pkgen.ParseBatch(c.batch(t, x.task))
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Review(c.sharing)
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, consent := range r.Consents() {
			words = append(words, consent.Word())
		}
		if got := strings.Join(words, " "); got != x.want {
			t.Errorf("consents %q, want %q", got, x.want)
		}
		if x.task.Issue != nil && (len(r.Keys) != len(x.task.Issue.Requests) || r.After.Index != r.Before.Index+uint64(len(r.Keys)) || r.Keys[0].Bundle == nil) {
			t.Errorf("%+v", r)
		}
	}
}

// TestDistributedPINs: PINs are drawn for the batch; the second run, after a cut,
// has the same. They are nowhere in what the holders get.
func TestDistributedPINs(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	task := issueTask(medium, []string{"clm-1"}, pkgen.Request{Role: ibc.RoleDevice, Name: "plc-1"})
	task.Issue.Options.PINs = true
	file := c.batch(t, task)
	x := []pkgen.SealedContribution{c.contribute(t, file, 1), c.contribute(t, file, 2)}
	cut := errors.New("the power failed")
	var pins []string
	for _, err := range []error{cut, nil} {
		_, got := pkgen.Combine(t.Context(), c.config, file, pkgen.CombineOptions{Medium: medium, Contributions: x,
			Finish: func(d pkgen.Done, _ *pkgen.Hash, _ func([]byte) ([]byte, error)) error {
				pins = append(pins, d.Issued.PINs[0].Text())
				return err
			}})
		if !errors.Is(got, err) {
			t.Fatalf("%v, want %v", got, err)
		}
	}
	if len(pins) != 2 || pins[0] != pins[1] || bytes.Contains(file, []byte(pins[0])) {
		t.Errorf("PINs %q", pins)
	}
	_, m := verify(t, c.config, medium)
	sealed, err := os.ReadFile(filepath.Join(medium, m.Rows[1].File))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.OpenTyped(sealed, []byte(pins[0])); err != nil {
		t.Error(err)
	}
}

// TestAttackLedgerWithTwoHistories: whoever makes the batches keeps an earlier
// copy of the ledger and has a second history signed on it, in which a CLM or a
// recipient is another one. A holder who contributed to the first notices.
func TestAttackLedgerWithTwoHistories(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev := newParty(t)
	earlier := filepath.Join(t.TempDir(), "pkg")
	copyDir(t, c.config.Dir, earlier)
	memory := ""
	read := func(file []byte) *pkgen.Review {
		t.Helper()
		b, err := pkgen.ParseBatch(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Review(c.sharing)
		if err != nil {
			t.Fatal(err)
		}
		if memory == "" {
			memory = r.SeenFile(t.TempDir())
		}
		return r
	}
	see := func(file []byte) (words []string, err error) {
		t.Helper()
		r := read(file)
		if err := r.Recall(memory); err != nil {
			return nil, err
		}
		for _, consent := range r.Consents() {
			words = append(words, consent.Kind)
		}
		return words, r.Remember(c.config.Files, memory)
	}
	first := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	if words, err := see(first); err != nil || len(words) > 0 {
		t.Fatal(words, err)
	}
	if words, err := see(first); err != nil || len(words) > 0 {
		t.Errorf("the same batch again: %v %v", words, err)
	}
	fork := *c
	fork.config.Dir = earlier
	usb := filepath.Join(t.TempDir(), "usb")
	copyDir(t, medium, usb)
	second := fork.batch(t, issueTask(usb, []string{"clm-1"}, device("plc-1", newParty(t))))
	if words, err := see(second); err != nil || strings.Join(words, " ") != "other" {
		t.Errorf("another batch of the same state: %v %v", words, err)
	}
	if _, err := c.combine(first, medium, c.contribute(t, first, 1), c.contribute(t, first, 2)); err != nil {
		t.Fatal(err)
	}
	next := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-2", dev)))
	if words, err := see(next); err != nil || len(words) > 0 {
		t.Errorf("the next batch: %v %v", words, err)
	}
	if _, err := see(second); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("a batch of an earlier state: %v", err)
	}
	if _, err := fork.combine(second, usb, fork.contribute(t, second, 1), fork.contribute(t, second, 2)); err != nil {
		t.Fatal(err)
	}
	longer := fork.batch(t, issueTask(usb, []string{"clm-1"}, device("plc-3", dev)))
	if _, err := see(longer); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("another history, as long: %v", err)
	}
	if err := os.WriteFile(memory, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := see(next); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("a damaged memory: %v", err)
	}
}
