package pkgen_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// rawBatch is the file of a batch, for whoever forges one.
type rawBatch struct {
	Version    int               `json:"version"`
	Params     json.RawMessage   `json:"params"`
	Sharing    pkgen.Hash        `json:"sharing_sha256"`
	Time       json.RawMessage   `json:"time"`
	Recipient  string            `json:"recipient"`
	Ledger     []byte            `json:"ledger"`
	Lines      []byte            `json:"lines"`
	Transcript []byte            `json:"transcript,omitempty"`
	Statements []pkgen.Statement `json:"statements"`
}

func parseRaw(t testing.TB, file []byte) *rawBatch {
	t.Helper()
	var b rawBatch
	if err := json.Unmarshal(file, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func (b *rawBatch) file(t testing.TB) []byte {
	t.Helper()
	file, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// replace changes a text in the documents of a kind.
func (b *rawBatch) replace(t testing.TB, kind ibc.Kind, old, new string) {
	t.Helper()
	changed := false
	for i, s := range b.Statements {
		if s.Kind == kind && bytes.Contains(s.Document, []byte(old)) {
			b.Statements[i].Document = bytes.Replace(s.Document, []byte(old), []byte(new), 1)
			changed = true
		}
	}
	if !changed {
		t.Fatalf("no document of kind %s has %q", kind, old)
	}
}

// unread begins an object in which a key stands that this release does not read.
const unread = `{"later":1,`

// relink computes anew what can be: hashes of payloads in the lines, the chain of
// lines, and the head. Whoever forges a batch can do all of that.
func (b *rawBatch) relink(t testing.TB) {
	t.Helper()
	log, err := hashlog.Read(bytes.NewReader(b.Ledger), func(_, _ []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var bodies []json.RawMessage
	var payloads []pkgen.Hash
	for _, s := range b.Statements {
		if s.Kind == ibc.KindBundle || s.Kind == ibc.KindAnchor {
			payloads = append(payloads, sha256.Sum256(s.Document))
		}
	}
	var at hashlog.Entry
	for line := range bytes.Lines(b.Lines) {
		if err := json.Unmarshal(line, &at); err != nil {
			t.Fatal(err)
		}
		var fact pkgen.Fact
		if err := json.Unmarshal(at.Body, &fact); err != nil {
			t.Fatal(err)
		}
		if len(payloads) > len(bodies) {
			fact.Payload = &payloads[len(bodies)]
		}
		body, err := json.Marshal(fact)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(at.Body, []byte(unread)) {
			body = append([]byte(unread), body[1:]...)
		}
		bodies = append(bodies, body)
	}
	lines, next, err := log.State.Add(at.Time, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	b.Lines = lines
	for i, s := range b.Statements {
		switch s.Kind {
		case ibc.KindLedger:
			b.Statements[i].Document = next.Head.Document()
		case ibc.KindManifest:
			var m struct {
				Version int               `json:"version"`
				Ledger  bundle.LedgerHead `json:"ledger"`
				Rows    []bundle.Row      `json:"rows"`
			}
			if err := json.Unmarshal(s.Document, &m); err != nil {
				t.Fatal(err)
			}
			m.Ledger = bundle.LedgerHead{Index: next.Head.Count, Hash: pkgen.Hash(next.Head.Hash)}
			if b.Statements[i].Document, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAttackBatchThatLies: whoever makes the batch wants a signature on something
// that the holder is not shown, or that the rules of issuing forbid. There is no
// text in a batch beside what is signed, so all he can do is to hide it there, or
// to let one document say something else than another. Whatever it is, the batch
// is refused.
func TestAttackBatchThatLies(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev := newParty(t)
	file := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	if _, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2)); err != nil {
		t.Fatal(err)
	}
	other := newCircle(t, 2)
	foreign := other.batch(t, pkgen.Task{Anchor: &pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{root(t, "root")}}})
	file = c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-2", dev)))

	genuine := parseRaw(t, file)
	genuine.relink(t)
	if b, err := pkgen.ParseBatch(genuine.file(t)); err != nil {
		t.Fatal(err)
	} else if _, err := b.Review(c.sharing); err != nil {
		t.Fatalf("the forger's tool spoils a batch: %v", err)
	}
	for what, forge := range map[string]func(b *rawBatch){
		"a key that the ledger gets no entry of": func(b *rawBatch) {
			s := b.Statements[0]
			s.Document = bytes.ReplaceAll(s.Document, []byte("plc-2"), []byte("plc-3"))
			b.Statements = append(b.Statements, s)
		},
		"the key of a CLM in the place of a device's": func(b *rawBatch) { b.replace(t, ibc.KindBundle, "v1/dev/plc-2", "v1/clm/plc-2") },
		"another identity":                            func(b *rawBatch) { b.replace(t, ibc.KindBundle, "dev/plc-2/", "dev/plc-9/"); b.relink(t) },
		"a generation that is superseded": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, "dev/plc-2/e1.g1", "dev/clm-0/e1.g1")
			b.Lines = bytes.ReplaceAll(b.Lines, []byte("dev/plc-2/e1.g1"), []byte("clm/clm-1/e1.g1"))
			b.relink(t)
		},
		"the same identity to another recipient": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, "dev/plc-2/", "dev/plc-1/")
			b.Lines = bytes.ReplaceAll(b.Lines, []byte("plc-2"), []byte("plc-1"))
			hash := pkgen.Hash(dev.to.Hash()).String()
			b.Lines = bytes.ReplaceAll(b.Lines, []byte(hash), []byte(strings.Repeat("0", 64)))
			b.replace(t, ibc.KindBundle, hash, strings.Repeat("0", 64))
			b.relink(t)
		},
		"a recipient that the ledger does not get": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, pkgen.Hash(dev.to.Hash()).String(), strings.Repeat("0", 64))
			b.relink(t)
		},
		"names that the ledger does not get": func(b *rawBatch) { b.replace(t, ibc.KindBundle, "cn:plc-2", "cn:admin"); b.relink(t) },
		"an address that the ledger does not get": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, `"recipient_sha256"`, `"address":"a:1","recipient_sha256"`)
			b.relink(t)
		},
		"a CLM that was never issued": func(b *rawBatch) { b.replace(t, ibc.KindBundle, `"clm-1"`, `"clm-9"`); b.relink(t) },
		"a floor that is not the CLM's latest": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, `"generation":1}`, `"generation":2}`)
			b.relink(t)
		},
		"another recovery key": func(b *rawBatch) {
			at := bytes.Index(b.Statements[0].Document, []byte(`"recovery_sha256":"`)) + 19
			copy(b.Statements[0].Document[at:], strings.Repeat("0", 64))
			b.relink(t)
		},
		"a key of JSON that this release does not read": func(b *rawBatch) {
			b.replace(t, ibc.KindBundle, `{"version":1,`, `{"version":1,"later":1,`)
			b.relink(t)
		},
		"the same in the ledger": func(b *rawBatch) {
			b.Lines = bytes.Replace(b.Lines, []byte(`"body":{`), []byte(`"body":`+unread), 1)
			b.relink(t)
		},
		"the same in the manifest":      func(b *rawBatch) { b.replace(t, ibc.KindManifest, `{"version":1,`, `{"version":1,"later":1,`) },
		"the head of another ledger":    func(b *rawBatch) { b.replace(t, ibc.KindLedger, "head\x00\x00", "head\x00\x01") },
		"a ledger that gets no entries": func(b *rawBatch) { b.Lines = nil },
		"no head of the ledger": func(b *rawBatch) {
			b.Statements = slices.DeleteFunc(b.Statements, func(s pkgen.Statement) bool { return s.Kind == ibc.KindLedger })
		},
		"no bundle": func(b *rawBatch) { b.Statements = b.Statements[1:] },
		"an anchor statement without entry": func(b *rawBatch) {
			b.Statements = append(b.Statements, parseRaw(t, foreign).Statements[0])
		},
		"an epoch statement": func(b *rawBatch) {
			b.Statements = append(b.Statements, pkgen.Statement{Kind: ibc.KindEpoch, Document: []byte("x")})
		},
		"an unknown kind": func(b *rawBatch) {
			b.Statements = append(b.Statements, pkgen.Statement{Kind: "Bundle", Document: b.Statements[0].Document})
		},
		"a transcript that is not shown": func(b *rawBatch) {
			b.Statements = append(b.Statements, pkgen.Statement{Kind: ibc.KindTranscript, Document: hashlog.Head{}.Document()})
		},
		"a bundle twice": func(b *rawBatch) { b.Statements = append(b.Statements, b.Statements[0]) },
		"the head of the ledger twice": func(b *rawBatch) {
			at := slices.IndexFunc(b.Statements, func(s pkgen.Statement) bool { return s.Kind == ibc.KindLedger })
			b.Statements = append(b.Statements, b.Statements[at])
		},
		"a manifest of another head": func(b *rawBatch) { b.replace(t, ibc.KindManifest, `"ledger":{"index":4`, `"ledger":{"index":3`) },
		"a row that nobody issued":   func(b *rawBatch) { b.replace(t, ibc.KindManifest, `"name":"plc-1"`, `"name":"plc-7"`) },
		"another address in the manifest": func(b *rawBatch) {
			b.replace(t, ibc.KindManifest, `"address":"clm.example:5684"`, `"address":"evil.example:5684"`)
		},
		"another public key in the manifest": func(b *rawBatch) {
			b.replace(t, ibc.KindManifest, `"public_key":"`, `"public_key":"00`)
		},
		"a ledger cut short":   func(b *rawBatch) { b.Ledger = b.Ledger[:bytes.LastIndexByte(b.Ledger[:len(b.Ledger)-1], '\n')+1] },
		"a ledger changed":     func(b *rawBatch) { b.Ledger = bytes.Replace(b.Ledger, []byte("plc-1"), []byte("plc-0"), 1) },
		"an empty ledger":      func(b *rawBatch) { b.Ledger = nil },
		"another PKG's ledger": func(b *rawBatch) { b.Ledger = parseRaw(t, foreign).Ledger },
		"another PKG":          func(b *rawBatch) { b.Params = parseRaw(t, foreign).Params },
		"another sharing":      func(b *rawBatch) { b.Sharing = parseRaw(t, foreign).Sharing },
		"another time":         func(b *rawBatch) { b.Time = json.RawMessage(`"2020-01-01T00:00:00Z"`) },
	} {
		raw := parseRaw(t, file)
		forge(raw)
		b, err := pkgen.ParseBatch(raw.file(t))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if r, err := b.Review(c.sharing); err == nil {
			t.Errorf("%s: shown as %+v", what, r.Keys)
		} else if testing.Verbose() {
			t.Logf("%s: %v", what, err)
		}
	}
	if b, err := pkgen.ParseBatch(foreign); err != nil {
		t.Fatal(err)
	} else if _, err := b.Review(c.sharing); !errors.Is(err, pkgen.ErrForeign) {
		t.Errorf("a whole batch of another PKG: %v", err)
	}
}

// opened is what a holder contributed, as the combiner opens it.
type opened struct {
	Version int        `json:"version"`
	Batch   pkgen.Hash `json:"batch_sha256"`
	Sharing pkgen.Hash `json:"sharing_sha256"`
	Index   int        `json:"index"`
	Holder  string     `json:"holder"`
	Points  []byte     `json:"points"`
}

// open opens a contribution with the key that the PKG's directory keeps.
func (c *circle) open(t testing.TB, x pkgen.SealedContribution) opened {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.config.Dir, pkgen.BatchesDir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var task struct{ Identity string }
		if err := json.Unmarshal(data, &task); err != nil {
			t.Fatal(err)
		}
		o, _, err := bundle.ParseOpener([]byte(task.Identity))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := o.UnsealWithin(x.Sealed, pkgen.MaxContribution)
		if err != nil {
			continue
		}
		var out opened
		if err := json.Unmarshal(plain, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Fatal("nothing opens it")
	return opened{}
}

// sealed seals a contribution to a batch.
func (o opened) sealed(t testing.TB, file []byte, name string) pkgen.SealedContribution {
	t.Helper()
	b, err := pkgen.ParseBatch(file)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := b.Recipient.SealWithin(plain, pkgen.MaxContribution)
	if err != nil {
		t.Fatal(err)
	}
	return pkgen.SealedContribution{Name: name, Sealed: sealed}
}

// TestAttackMaliciousHolder: a holder contributes what is wrong, in any way that
// he can think of. He is named, by his name and by his file; the run goes on if
// enough others are honest, and what it makes is right.
func TestAttackMaliciousHolder(t *testing.T) {
	c := newCircle(t, 4)
	medium := c.withCLM(t)
	dev := newParty(t)
	requests := []pkgen.Request{device("plc-1", dev), device("plc-2", dev)}
	other := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-9", dev)))
	file := c.batch(t, issueTask(medium, []string{"clm-1"}, requests...))
	genuine := c.open(t, c.contribute(t, file, 3))
	second := c.open(t, c.contribute(t, file, 2))
	forged := func(change func(o *opened)) pkgen.SealedContribution {
		o := genuine
		o.Points = slices.Clone(o.Points)
		change(&o)
		return o.sealed(t, file, "malicious.age")
	}
	point := func(b []byte, i int) []byte { return b[i*48 : (i+1)*48] }
	for what, x := range map[string]struct {
		contribution pkgen.SealedContribution
		cause        error
		says         string
	}{
		"a flipped bit": {forged(func(o *opened) { o.Points[3*48+9] ^= 4 }), ibc.ErrShare, "holder-3"},
		"another identity's part": {forged(func(o *opened) {
			copy(point(o.Points, 0), point(genuine.Points, 2))
		}), ibc.ErrShare, "the key of edgeclm/v1/dev/plc-1/e1.g1"},
		"two parts exchanged": {forged(func(o *opened) {
			copy(point(o.Points, 0), point(genuine.Points, 2))
			copy(point(o.Points, 2), point(genuine.Points, 0))
		}), ibc.ErrShare, "the key of edgeclm/v1/dev/plc-1/e1.g1, the key of edgeclm/v1/dev/plc-2/e1.g1"},
		"another holder's points":   {forged(func(o *opened) { o.Points = second.Points }), ibc.ErrShare, "holder-3"},
		"too few points":            {forged(func(o *opened) { o.Points = o.Points[48:] }), ibc.ErrShare, "holder-3"},
		"no points":                 {forged(func(o *opened) { o.Points = nil }), ibc.ErrShare, "holder-3"},
		"another holder's name":     {forged(func(o *opened) { o.Holder = "holder-2" }), ibc.ErrShare, "malicious.age"},
		"a share that there is not": {forged(func(o *opened) { o.Index, o.Holder = 5, "" }), ibc.ErrShare, "malicious.age"},
		"another batch": {forged(func(o *opened) {
			o.Batch = sha256.Sum256(other)
		}), pkgen.ErrOtherBatch, "malicious.age"},
		"another sharing":         {forged(func(o *opened) { o.Sharing = pkgen.Hash{} }), custody.ErrSharing, "malicious.age"},
		"another version":         {forged(func(o *opened) { o.Version = 2 }), bundle.ErrVersion, "malicious.age"},
		"sealed for somebody":     {c.contribute(t, other, 3), bundle.ErrRecipient, "partial-3.age"},
		"not sealed":              {pkgen.SealedContribution{Name: "malicious.age", Sealed: []byte("{}")}, bundle.ErrFormat, "malicious.age"},
		"the same holder's twice": {c.contribute(t, file, 1), custody.ErrTwice, "partial-1.age"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := c.combine(file, medium, c.contribute(t, file, 1), x.contribution)
			if !errors.Is(err, custody.ErrTooFew) || !errors.Is(err, x.cause) || !strings.Contains(err.Error(), x.says) || !strings.Contains(err.Error(), "1 more, of holder-2, holder-3, holder-4") {
				t.Errorf("with one honest holder: %v", err)
			}
		})
	}
	// All of it at once, before two honest ones.
	wrong := forged(func(o *opened) { o.Points[3*48+9] ^= 4 })
	done, err := c.combine(file, medium, wrong, c.contribute(t, other, 3), c.contribute(t, file, 1), c.contribute(t, file, 1), c.contribute(t, file, 2))
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Refused) != 3 || strings.Join(done.Holders, " ") != "holder-1 holder-2" {
		t.Errorf("%v", done)
	}
	var partial *ibc.PartialError
	if !errors.As(done.Refused[0], &partial) || partial.Index != 3 || !strings.Contains(done.Refused[0].Error(), "malicious.age: holder-3:") {
		t.Errorf("%v", done.Refused[0])
	}
	_, m := verify(t, c.config, medium)
	for _, r := range m.Rows[1:] {
		open(t, medium, r, dev)
	}
}

// TestAttackBatchChanged: the batch is changed on its way to a holder or back:
// the holder contributes to the one that he has read, and the combiner takes none
// but the one that he has made.
func TestAttackBatchChanged(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev := newParty(t)
	file := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	// Somebody on the way puts himself into the place of the device.
	thief := newParty(t)
	raw := parseRaw(t, file)
	raw.Recipient = thief.to.String()
	changed := raw.file(t)
	x := []pkgen.SealedContribution{c.contribute(t, changed, 1), c.contribute(t, changed, 2)}
	if _, err := c.combine(file, medium, x...); !errors.Is(err, bundle.ErrRecipient) {
		t.Errorf("contributions for the thief: %v", err)
	}
	if _, err := c.combine(changed, medium, x...); !errors.Is(err, pkgen.ErrMoved) {
		t.Errorf("the batch of the thief: %v", err)
	}
	good, other := c.contribute(t, file, 1), c.contribute(t, file, 2)
	step := len(file)/150 + 1
	for at := 0; at < len(file); at += step {
		flipped := bytes.Clone(file)
		flipped[at] ^= 1 << (at % 7)
		if _, err := c.combine(flipped, medium, good, other); err == nil {
			t.Fatalf("bit of byte %d flipped: combined", at)
		}
	}
	for at := 0; at < len(good.Sealed); at += len(good.Sealed)/60 + 1 {
		flipped := pkgen.SealedContribution{Name: "p", Sealed: bytes.Clone(good.Sealed)}
		flipped.Sealed[at] ^= 1 << (at % 7)
		if _, err := c.combine(file, medium, flipped, other); !errors.Is(err, custody.ErrTooFew) {
			t.Fatalf("bit of byte %d flipped: %v", at, err)
		}
	}
	if _, err := c.combine(file, medium, good, other); err != nil {
		t.Error(err)
	}
}

// TestBatchOutOfDate: a batch is for one state of ledger, shares and medium.
func TestBatchOutOfDate(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev := newParty(t)
	first := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-1", dev)))
	second := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-2", dev)))
	both := func(file []byte) []pkgen.SealedContribution {
		return []pkgen.SealedContribution{c.contribute(t, file, 1), c.contribute(t, file, 2)}
	}
	x := both(second)
	empty := t.TempDir()
	before := snapshot(t, c.config.Dir, empty)
	if _, err := c.combine(first, empty, both(first)...); !errors.Is(err, pkgen.ErrMoved) || !strings.Contains(fmt.Sprint(err), "medium") {
		t.Errorf("another medium: %v", err)
	}
	if after := snapshot(t, c.config.Dir, empty); len(after) != len(before) {
		t.Errorf("something was written: %d files, before %d", len(after), len(before))
	}
	if _, err := c.combine(first, medium, both(first)...); err != nil {
		t.Fatal(err)
	}
	if _, err := c.combine(second, medium, x...); !errors.Is(err, pkgen.ErrMoved) {
		t.Errorf("another batch was combined since: %v", err)
	}
	third := c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-3", dev)))
	x = both(third)
	p, err := pkgen.OpenShares(c.config, []*custody.Share{c.share(t, 1), c.share(t, 2)})
	if err != nil {
		t.Fatal(err)
	}
	o := pkgen.SharesOptions{Threshold: 2, Out: t.TempDir()}
	for i, h := range c.holders {
		o.Holders = append(o.Holders, pkgen.Holder{Name: c.sharing.Holder(i + 1), To: h.to})
	}
	if _, err := p.Reshare(o); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.combine(third, medium, x...); !errors.Is(err, pkgen.ErrMoved) || !errors.Is(err, custody.ErrSharing) {
		t.Errorf("the shares were refreshed since: %v", err)
	}
	// And whoever keeps an earlier shares.json and share contributes to nothing new.
	old := c.sharing
	ledger, err := pkgen.ReadPublic(c.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	c.settle(t, ledger)
	b, err := pkgen.ParseBatch(c.batch(t, issueTask(medium, []string{"clm-1"}, device("plc-3", dev))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Review(old); !errors.Is(err, custody.ErrSharing) {
		t.Errorf("an earlier shares.json: %v", err)
	}
}
