package pkgen_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// FuzzBatch: whatever a batch is, a holder is shown it or it is refused; and what
// he is shown is all that he signs.
func FuzzBatch(f *testing.F) {
	c := newCircle(f, 2)
	medium := c.withCLM(f)
	dev := newParty(f)
	f.Add(c.batch(f, issueTask(medium, []string{"clm-1"}, device("plc-1", dev))))
	f.Add(c.batch(f, pkgen.Task{Anchor: &pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{root(f, "root")}}}))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := pkgen.ParseBatch(data)
		if err != nil {
			return
		}
		r, err := b.Review(c.sharing)
		if err != nil {
			return
		}
		bundles := 0
		for _, s := range b.Statements {
			if s.Kind == ibc.KindBundle {
				bundles++
			}
		}
		if bundles != len(r.Keys) || r.After.Index != r.Before.Index+uint64(bytes.Count(b.Lines, []byte("\n"))) {
			t.Fatalf("%d keys for %d bundles, ledger from %d to %d", len(r.Keys), bundles, r.Before.Index, r.After.Index)
		}
		for _, k := range r.Keys {
			if k.Bundle == nil || k.Bundle.Identity != k.Identity {
				t.Fatalf("shown: %+v", k)
			}
		}
	})
}

// FuzzContribution: the plaintext of what a holder contributes is parsed and
// checked, or refused.
func FuzzContribution(f *testing.F) {
	c := newCircle(f, 2)
	clm := newParty(f)
	file := c.batch(f, issueTask(f.TempDir(), nil, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to}))
	b, err := pkgen.ParseBatch(file)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := json.Marshal(c.open(f, c.contribute(f, file, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(bytes.Replace(plain, []byte(`"index":1`), []byte(`"index":2`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := pkgen.ParseContribution(data, b, c.sharing)
		if err != nil {
			return
		}
		if c.sharing.Holder(x.Index) == "" {
			t.Fatalf("share %d", x.Index)
		}
		w := ibc.NewWork(c.sharing.Commitments())
		if ok, err := w.Check(constantReader(7), x); err == nil && (ok.Index() != x.Index || len(x.Points) != 0) {
			t.Fatal("accepted for nothing")
		}
	})
}

type constantReader byte

func (c constantReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

// FuzzTask: what a batch is kept by is read as it was written.
func FuzzTask(f *testing.F) {
	c := newCircle(f, 2)
	clm := newParty(f)
	c.batch(f, issueTask(f.TempDir(), nil, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to}))
	c.batch(f, pkgen.Task{Anchor: &pkgen.AnchorRequest{Medium: f.TempDir(), Pattern: "*", Anchors: [][]byte{root(f, "root")}}})
	files, err := filepath.Glob(filepath.Join(c.config.Dir, pkgen.BatchesDir, "*"))
	if err != nil || len(files) != 2 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if again, err := pkgen.ParseTask(data); err != nil || !bytes.Equal(again, data) {
			f.Fatalf("written again: %v\n%s\n%s", err, data, again)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := pkgen.ParseTask(data)
		if err != nil {
			return
		}
		twice, err := pkgen.ParseTask(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}
