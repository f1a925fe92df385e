package pkgen

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// RecipientsFile keeps the age recipients that bundles were sealed to, one a
// line: they are public, and the ledger names each by its SHA-256 alone. From
// it everything is issued again in a new epoch. What a damaged line said is
// asked for again; a line that somebody added is named by no entry.
const RecipientsFile = "recipients.txt"

const (
	recipientsBuffer = 1 << 16 // bytes
	recipientsAtOnce = 1000    // that are written
)

// ReadRecipients returns the recipients that a PKG's directory knows, by what
// the ledger calls them, in text. There may be none.
func ReadRecipients(dir string) (map[Hash]string, error) {
	known := map[Hash]string{}
	_, err := Config{Dir: dir}.eachRecipient(func(hash Hash, text string) { known[hash] = text })
	return known, err
}

// eachRecipient goes through the lines of the file, with their SHA-256, and
// reports whether the last one has an end, or there is none.
func (c Config) eachRecipient(do func(hash Hash, text string)) (whole bool, err error) {
	f, err := os.Open(c.path(RecipientsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	in := bufio.NewReaderSize(f, recipientsBuffer)
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return line == "", nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", c.path(RecipientsFile), err)
		}
		text := strings.TrimSuffix(line, "\n")
		do(sha256.Sum256([]byte(text)), text)
	}
}

// keepRecipients adds the recipients of jobs to the file, durably: before the
// ledger names them.
func (p *PKG) keepRecipients(jobs []job) error {
	if p.proposing() {
		return nil
	}
	missing := make(map[Hash]bool, len(jobs))
	for i := range jobs {
		if jobs[i].recipient.HasText() {
			missing[jobs[i].recipient.Hash()] = true
		}
	}
	whole, err := p.eachRecipient(func(hash Hash, _ string) { delete(missing, hash) })
	if err != nil || len(missing) == 0 {
		return err
	}
	file := p.path(RecipientsFile)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if err := p.Files.WriteDurable(file, nil, keyfile.SecretPerm); err != nil {
			return err
		}
	}
	for group := range slices.Chunk(jobs, recipientsAtOnce) {
		var lines bytes.Buffer
		added := false
		if !whole {
			lines.WriteByte('\n') // what was cut is a line of its own
		}
		for i := range group {
			to := group[i].recipient
			if !missing[to.Hash()] {
				continue
			}
			delete(missing, to.Hash())
			text, _, err := to.Text()
			if err != nil {
				return err
			}
			lines.WriteString(text + "\n")
			added = true
		}
		if !added {
			continue
		}
		if err := p.Files.AppendDurable(file, lines.Bytes()); err != nil {
			return err
		}
		whole = true
	}
	return nil
}

// Reissue asks for everything again that was issued to a role: the latest
// identity of each name, in the order of the ledger, but those excepted. Who has
// no known recipient (it was a passphrase or a PIN, or issued by a release that
// did not keep them) has none in the request, and is named.
func (l *Ledger) Reissue(role ibc.Role, known map[Hash]string, except []string) (requests []Request, without []string, err error) {
	for _, e := range l.Entries {
		if e.Type != typeIssue || e.Identity.Role != role || slices.Contains(except, e.Identity.Name) || l.latest[subject(*e.Identity)] != e.Index {
			continue
		}
		r := Request{Role: role, Name: e.Identity.Name}
		if text, ok := known[*e.Recipient]; ok {
			to, err := bundle.ParseRecipient(text)
			if err != nil {
				return nil, nil, fmt.Errorf("recipient of %s: %w", r.Name, err)
			}
			r.Recipient = &to
		} else {
			without = append(without, r.Name)
		}
		requests = append(requests, r)
	}
	return requests, without, nil
}
