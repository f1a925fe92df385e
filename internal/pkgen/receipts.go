package pkgen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// ReceiptsDir is the folder of a PKG's directory with the receipts that came
// back: files 000001.jsonl and so on, each line a hash and a receipt,
//
//	<SHA-256 of the receipt> SP <receipt>
//
// A file is written whole, once, and never changed. Its receipts were verified;
// the hash is against accidents, since reading them does not verify them again.
// VerifyReceipts does.
const ReceiptsDir = "receipts"

const receiptsSuffix = ".jsonl"

// Bounds of a file of the folder: one is begun when either is reached.
const (
	receiptsPerFile  = 1000
	receiptsFileSize = receipt.MaxSize
)

// ReceiptBook holds the receipts that came back. It is not safe for concurrent use.
type ReceiptBook struct {
	config Config
	ledger *Ledger
	unlock func() error // nil: it is only read

	known   map[Hash]bool // by Signed.File
	account *account
	last    int // number of the last file
	pending bytes.Buffer
	waiting int // receipts in pending
}

// OpenReceipts reads the receipts of a PKG's directory. To take others, for
// which it needs the lock of the directory, write is set; the caller closes the
// book. No secret is needed.
func OpenReceipts(c Config, write bool) (_ *ReceiptBook, err error) {
	b := &ReceiptBook{config: c, known: map[Hash]bool{}}
	if b.ledger, err = ReadPublic(c.Dir); err != nil {
		return nil, err
	}
	b.account = newAccount(b.ledger)
	if write {
		if b.unlock, err = keyfile.Lock(c.path(lockFile)); err != nil {
			return nil, err
		}
	}
	if err := b.load(write); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Close releases the lock.
func (b *ReceiptBook) Close() error {
	if b.unlock == nil {
		return nil
	}
	return b.unlock()
}

// Ledger returns the ledger that the receipts are held to.
func (b *ReceiptBook) Ledger() *Ledger { return b.ledger }

func (b *ReceiptBook) load(write bool) error {
	names, err := receiptFiles(b.config.Dir)
	if err != nil {
		return err
	}
	if write && len(names) > 0 {
		if err := b.config.Files.Sweep(b.config.path(ReceiptsDir)); err != nil {
			return err
		}
	}
	for _, name := range names {
		err := readReceipts(name, func(s *receipt.Signed) error {
			b.known[s.File] = true
			b.account.add(s)
			return nil
		})
		if err != nil {
			return err
		}
		b.last, _ = receiptsNumber(filepath.Base(name))
	}
	return nil
}

// receiptFiles lists the files of a PKG's directory in their order.
func receiptFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, ReceiptsDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, ok := receiptsNumber(e.Name()); ok {
			names = append(names, filepath.Join(dir, ReceiptsDir, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

// receiptsNumber returns the number in the name of a file.
func receiptsNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, receiptsSuffix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n > 0 && receiptsName(n) == name
}

func receiptsName(n int) string { return fmt.Sprintf("%06d%s", n, receiptsSuffix) }

// readReceipts reads a file of the folder line by line.
func readReceipts(path string, each func(*receipt.Signed) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, receipt.MaxSize+128)
	n := 0
	for lines.Scan() {
		n++
		s, err := parseReceiptLine(lines.Bytes())
		if err == nil {
			err = each(s)
		}
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: line %d: %w", path, n+1, err)
	}
	return nil
}

func parseReceiptLine(line []byte) (*receipt.Signed, error) {
	var want Hash
	digest, data, _ := bytes.Cut(line, []byte{' '})
	if err := want.UnmarshalText(digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipts, err)
	}
	s, err := receipt.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipts, err)
	}
	if s.File != want {
		return nil, fmt.Errorf("%w: it was changed since it was verified", ErrReceipts)
	}
	return s, nil
}

// keep adds a verified receipt to those that the next flush writes.
func (b *ReceiptBook) keep(s *receipt.Signed, data []byte) error {
	line, err := receipt.Compact(data)
	if err != nil {
		return err
	}
	if b.pending.Len() > 0 && (b.waiting >= receiptsPerFile || b.pending.Len()+len(line) > receiptsFileSize) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.pending.WriteString(s.File.String())
	b.pending.WriteByte(' ')
	b.pending.Write(line)
	b.pending.WriteByte('\n')
	b.waiting++
	b.known[s.File] = true
	b.account.add(s)
	return nil
}

// flush makes what was kept durable.
func (b *ReceiptBook) flush() error {
	if b.pending.Len() == 0 {
		return nil
	}
	if err := b.config.Files.EnsureDir(b.config.path(ReceiptsDir)); err != nil {
		return err
	}
	path := filepath.Join(b.config.path(ReceiptsDir), receiptsName(b.last+1))
	if err := b.config.Files.CreateDurable(path, b.pending.Bytes(), keyfile.SecretPerm); err != nil {
		return err
	}
	b.last++
	b.pending.Reset()
	b.waiting = 0
	return nil
}
