package pkgen

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

const batchVersion = 1

// MaxBatchFile is the size in bytes of the largest batch.
const MaxBatchFile = 1 << 30

// Batch is what the holders of shares are asked to sign, each on a machine of
// his own. It says nothing but the documents themselves, and what they are to be
// read against: the ledger. A document of kind bundle asks for the key of its
// identity too.
//
// It is signed by nobody: whoever is asked reads all of it (Review).
type Batch struct {
	Params     *ibc.Params
	Sharing    Hash             // custody.Sharing.ID
	Time       time.Time        // that the run takes for now
	Recipient  bundle.Recipient // of the contributions
	Ledger     []byte           // the file, up to its last head
	Lines      []byte           // that the run adds to it, without their head
	Transcript []byte           // of the run that made the batch, up to its head; nil: none
	Statements []Statement
	id         Hash
}

// Statement is a document to be signed.
type Statement struct {
	Kind     ibc.Kind `json:"kind"`
	Document []byte   `json:"document"` // base64 in JSON
}

type batchJSON struct {
	Version    int         `json:"version"`
	Params     *ibc.Params `json:"params"`
	Sharing    Hash        `json:"sharing_sha256"`
	Time       time.Time   `json:"time"`
	Recipient  string      `json:"recipient"`
	Ledger     []byte      `json:"ledger"` // base64, as the lines
	Lines      []byte      `json:"lines"`
	Transcript []byte      `json:"transcript,omitempty"`
	Statements []Statement `json:"statements"`
}

// marshal returns the file.
func (b *Batch) marshal() ([]byte, error) {
	data, err := json.MarshalIndent(batchJSON{
		batchVersion, b.Params, b.Sharing, b.Time, b.Recipient.String(), b.Ledger, b.Lines, b.Transcript, b.Statements,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode batch: %w", err)
	}
	data = append(data, '\n')
	if len(data) > MaxBatchFile {
		return nil, fmt.Errorf("encode batch: %w: %d bytes", ErrRequest, len(data))
	}
	b.id = sha256.Sum256(data)
	return data, nil
}

// ParseBatch parses the file of a batch. What it asks for is not looked at:
// Review does. Errors wrap bundle.ErrFormat or bundle.ErrVersion.
func ParseBatch(data []byte) (*Batch, error) {
	b, err := parseBatch(data)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	return b, nil
}

func parseBatch(data []byte) (*Batch, error) {
	var j batchJSON
	if err := decodeVersioned(data, MaxBatchFile, batchVersion, &j); err != nil {
		return nil, err
	}
	to, err := bundle.ParseRecipient(j.Recipient)
	if err != nil {
		return nil, err
	}
	if j.Params == nil || j.Time.IsZero() || len(j.Statements) == 0 {
		return nil, fmt.Errorf("%w: parameters, time or statements are missing", bundle.ErrFormat)
	}
	return &Batch{
		Params: j.Params, Sharing: j.Sharing, Time: j.Time, Recipient: to,
		Ledger: j.Ledger, Lines: j.Lines, Transcript: j.Transcript, Statements: j.Statements, id: sha256.Sum256(data),
	}, nil
}

// ID is the SHA-256 of the file: holders compare it, and a contribution names it.
func (b *Batch) ID() Hash { return b.id }

// work is what the holders contribute to, in the order of the statements: of a
// bundle, the key of its identity goes before its statement.
func (b *Batch) work(c *ibc.Commitments) (*ibc.Work, error) {
	w := ibc.NewWork(c)
	for _, s := range b.Statements {
		if s.Kind == ibc.KindBundle {
			content, err := bundle.ParsePayload(s.Document)
			if err != nil {
				return nil, err
			}
			if err := w.Key(content.Identity); err != nil {
				return nil, err
			}
		}
		if err := w.Statement(s.Kind, s.Document); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// contribution is the plaintext of what a holder contributes: sealed to the
// recipient of the batch.
type contribution struct {
	Version int    `json:"version"`
	Batch   Hash   `json:"batch_sha256"`
	Sharing Hash   `json:"sharing_sha256"`
	Index   int    `json:"index"`
	Holder  string `json:"holder"`
	Points  []byte `json:"points"` // ibc.Contribution.Points, base64
}

const contributionVersion = 1

// MaxContribution is the size in bytes of the largest contribution.
const MaxContribution = bundle.MaxRows*2*ibc.PublicKeySize*2 + 1<<20

func sealContribution(b *Batch, x *custody.Share, w *ibc.Work) ([]byte, error) {
	c, err := x.Contribute(w)
	if err != nil {
		return nil, err
	}
	defer clear(c.Points)
	plain, err := json.Marshal(contribution{contributionVersion, b.id, x.Sharing.ID(), x.Index(), x.Holder, c.Points})
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return b.Recipient.SealWithin(plain, MaxContribution)
}

// openContribution opens what a holder contributed and checks that it is for
// this batch and sharing; whether it holds is left to ibc.Work.Check.
func openContribution(sealed []byte, opener bundle.Opener, b *Batch, s *custody.Sharing) (ibc.Contribution, error) {
	plain, err := opener.UnsealWithin(sealed, MaxContribution)
	if err != nil {
		return ibc.Contribution{}, err
	}
	defer clear(plain)
	return parseContribution(plain, b, s)
}

func parseContribution(plain []byte, b *Batch, s *custody.Sharing) (ibc.Contribution, error) {
	var c contribution
	if err := decodeVersioned(plain, MaxContribution, contributionVersion, &c); err != nil {
		return ibc.Contribution{}, err
	}
	switch {
	case c.Sharing != s.ID():
		return ibc.Contribution{}, fmt.Errorf("%w: its sharing_sha256 is %s, this sharing's is %s", custody.ErrSharing, c.Sharing, s.ID())
	case c.Batch != b.id:
		return ibc.Contribution{}, fmt.Errorf("%w: it is for %s", ErrOtherBatch, c.Batch)
	case c.Holder == "" || c.Holder != s.Holder(c.Index):
		return ibc.Contribution{}, fmt.Errorf("%w: share %d is not one of %.40q", ibc.ErrShare, c.Index, c.Holder)
	}
	return ibc.Contribution{Index: c.Index, Points: c.Points}, nil
}

// decodeVersioned parses one JSON object of at most limit bytes into v after its
// version was found to be ours. Unknown keys are ignored.
//
//nolint:unparam // each format has a version of its own, all are at their first
func decodeVersioned(data []byte, limit, version int, v any) error {
	if len(data) > limit {
		return fmt.Errorf("%w: more than %d bytes", bundle.ErrFormat, limit)
	}
	var probe struct {
		Version int `json:"version"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&probe); err != nil || d.More() {
		return fmt.Errorf("%w: not one JSON object", bundle.ErrFormat)
	}
	if probe.Version != version {
		return fmt.Errorf("%w: %d, this release reads %d", bundle.ErrVersion, probe.Version, version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		// The text stays out of the error: it may be a secret.
		return fmt.Errorf("%w: a member is missing or of another type", bundle.ErrFormat)
	}
	return nil
}
