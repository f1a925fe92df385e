package pkgen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// Bounds of what is taken back from a medium at once.
const (
	maxReceiptFiles = 1_000_000
	receiptBatch    = 256 // signatures that are verified together
)

// TakenBack says what a medium brought.
type TakenBack struct {
	New     int // receipts that were not known
	Known   int
	Refused []Unknown // files that are no receipt of this PKG; they are not kept
}

// Take takes the receipts of media back: a directory with a folder receipts, that
// folder, or the file of one receipt. What does not verify is refused and
// returned; what does is durable when Take returns. When ctx ends, the rest is
// left for another run. Progress may be nil.
func (b *ReceiptBook) Take(ctx context.Context, paths []string, progress func(done, total int)) (*TakenBack, error) {
	var files []string
	for _, path := range paths {
		found, err := ReceiptsOf(path)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	taken := &TakenBack{}
	for done := 0; done < len(files) && ctx.Err() == nil; {
		batch := files[done:min(done+receiptBatch, len(files))]
		if err := b.takeBatch(batch, taken); err != nil {
			return nil, err
		}
		if done += len(batch); progress != nil {
			progress(done, len(files))
		}
	}
	return taken, errors.Join(b.flush(), ctx.Err())
}

func (b *ReceiptBook) takeBatch(files []string, taken *TakenBack) error {
	var batch receiptChecks
	for _, path := range files {
		data, err := keyfile.Read(path, receipt.MaxSize)
		if err != nil && !errors.Is(err, keyfile.ErrTooLarge) {
			return err // the medium fails: what it holds is not known
		}
		s, err := parseReceipt(data, err)
		switch {
		case err != nil:
			taken.Refused = append(taken.Refused, Unknown{File: path, Reason: err.Error()})
			continue
		case b.known[s.File]:
			taken.Known++
			continue
		}
		if err := batch.add(path, data, s); err != nil {
			return err
		}
		// Those of CLMs may be large: they are not gathered.
		if s.Commissioned != nil {
			if err := b.takeChecked(&batch, taken); err != nil {
				return err
			}
		}
	}
	return b.takeChecked(&batch, taken)
}

func parseReceipt(data []byte, err error) (*receipt.Signed, error) {
	if err != nil {
		return nil, err
	}
	return receipt.Parse(data)
}

func (b *ReceiptBook) takeChecked(batch *receiptChecks, taken *TakenBack) error {
	failed, err := batch.verify(b.config.Random, b.ledger.Epochs())
	if err != nil {
		return err
	}
	for i, c := range batch.list {
		switch {
		case failed[i] != nil:
			taken.Refused = append(taken.Refused, refusal(c.path, c.signed, failed[i]))
		case b.known[c.signed.File]: // twice on the media
			taken.Known++
		default:
			if err := b.keep(c.signed, c.data); err != nil {
				return err
			}
			taken.New++
		}
	}
	batch.list = nil
	return nil
}

func refusal(path string, s *receipt.Signed, err error) Unknown {
	return Unknown{File: path, Signer: &s.Signer, Kind: s.Kind(), Time: &s.Time, Reason: err.Error()}
}

// receiptChecks are receipts that are verified together.
type receiptChecks struct{ list []receiptCheck }

type receiptCheck struct {
	path   string
	data   []byte
	signed *receipt.Signed
	claim  ibc.Claim
}

func (b *receiptChecks) add(path string, data []byte, s *receipt.Signed) error {
	claim, err := s.Claim()
	b.list = append(b.list, receiptCheck{path, data, s, claim})
	return err
}

// verify returns what is wrong with each, under the parameters that are known.
func (b *receiptChecks) verify(random io.Reader, known []*ibc.Params) ([]error, error) {
	failed := make([]error, len(b.list))
	of := map[Hash][]int{}
	for i, r := range b.list {
		of[r.signed.ParamsID] = append(of[r.signed.ParamsID], i)
	}
	for id, list := range of {
		epoch := slices.IndexFunc(known, func(p *ibc.Params) bool { return p.ID() == id })
		claims := make([]ibc.Claim, len(list))
		for i, at := range list {
			claims[i] = b.list[at].claim
			if epoch < 0 {
				failed[at] = fmt.Errorf("it is %w: its params_id is %s", bundle.ErrParams, id)
			}
		}
		if epoch < 0 {
			continue
		}
		errs, err := known[epoch].VerifyAll(random, claims)
		if err != nil {
			return nil, err
		}
		for i, at := range list {
			failed[at] = errs[i]
		}
	}
	return failed, nil
}

// ReceiptsOf lists the receipts of a medium, of its folder of receipts, or the
// one that is the file itself. That there are none is no error.
func ReceiptsOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	if inside := filepath.Join(path, receipt.DirName); isDir(inside) {
		path = inside
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != path && filepath.Dir(file) != path {
				return fs.SkipDir
			}
			return nil
		}
		// What other systems leave as companions, and writers that were cut, begins
		// with a dot.
		if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") || !strings.HasSuffix(strings.ToLower(d.Name()), receipt.Suffix) {
			return nil
		}
		if files = append(files, file); len(files) > maxReceiptFiles {
			return fmt.Errorf("%s holds more than %d receipts", path, maxReceiptFiles)
		}
		return nil
	})
	return files, err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// VerifyReceipts verifies all receipts of a medium, or of a PKG's directory, by
// their signatures under the parameters that are known, and returns how many
// there are. The first that does not hold is the error.
func VerifyReceipts(random io.Reader, path string, known []*ibc.Params) (n int, err error) {
	var batch receiptChecks
	check := func() error {
		failed, err := batch.verify(random, known)
		for i, f := range failed {
			if err == nil && f != nil {
				err = fmt.Errorf("%s: receipt of %s: %w", batch.list[i].path, batch.list[i].signed.Signer, f)
			}
		}
		n += len(batch.list)
		batch.list = nil
		return err
	}
	add := func(path string, s *receipt.Signed) error {
		if err := batch.add(path, nil, s); err != nil || len(batch.list) < receiptBatch {
			return err
		}
		return check()
	}
	stored, err := receiptFiles(path)
	if err != nil {
		return 0, err
	}
	for _, file := range stored {
		if err := readReceipts(file, func(s *receipt.Signed) error { return add(file, s) }); err != nil {
			return n, err
		}
	}
	files, err := ReceiptsOf(path)
	if err != nil {
		return n, err
	}
	for _, file := range files {
		s, err := receipt.Read(file)
		if err == nil {
			err = add(file, s)
		}
		if err != nil {
			return n, err
		}
	}
	return n, check()
}
