package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

// Recipient is whom a bundle is sealed to. It keeps the text only: a parsed
// post-quantum key takes fifty kilobytes, and a list has thousands.
type Recipient struct {
	text       string                 // "" of a passphrase, and if it is elsewhere
	read       func() (string, error) // the text, if it is elsewhere
	hybrid     bool                   // of a text that is elsewhere
	passphrase age.Recipient          // nil of a key
	hash       [sha256.Size]byte
}

// Elsewhere returns the recipient without its text, which read returns whenever
// it is needed: nothing else is taken for it. A hybrid one has two kilobytes.
func (r Recipient) Elsewhere(read func() (string, error)) Recipient {
	return Recipient{hash: r.hash, hybrid: r.PostQuantum(), read: read}
}

// hybridPrefix is what the text of a post-quantum recipient begins with.
const hybridPrefix = "age1pq1"

// maxRecipientLen bounds the text of a recipient; a hybrid one has 1,959
// characters.
const maxRecipientLen = 4096

// ParseRecipient parses an age recipient: "age1pq1…" (ML-KEM-768 with X25519,
// the default of the product) or "age1…" (X25519). Errors wrap ErrFormat.
func ParseRecipient(s string) (Recipient, error) {
	_, text, err := parseRecipient(s)
	if err != nil {
		return Recipient{}, err
	}
	return keyRecipient(text), nil
}

// parseRecipient returns the recipient and its canonical text.
func parseRecipient(s string) (age.Recipient, string, error) {
	if len(s) > maxRecipientLen {
		return nil, "", fmt.Errorf("%w: an age recipient of %d characters", ErrFormat, len(s))
	}
	if strings.HasPrefix(s, hybridPrefix) {
		r, err := age.ParseHybridRecipient(s)
		if err != nil {
			return nil, "", fmt.Errorf("%w: not a post-quantum age recipient (age1pq1…)", ErrFormat)
		}
		return r, r.String(), nil
	}
	r, err := age.ParseX25519Recipient(s)
	if err != nil {
		// The text stays out of the error: it may be a private key by mistake.
		return nil, "", fmt.Errorf("%w: not an age recipient (age1pq1… or age1…)", ErrFormat)
	}
	return r, r.String(), nil
}

// age returns what age seals to.
func (r Recipient) age() (age.Recipient, error) {
	if r.passphrase != nil {
		return r.passphrase, nil
	}
	text, _, err := r.Text()
	if err != nil {
		return nil, err
	}
	parsed, _, err := parseRecipient(text)
	return parsed, err
}

// ParseRecipientFile parses the content of a recipient file: one recipient on
// one line; empty lines and lines that begin with '#' are ignored. Errors wrap
// ErrFormat.
func ParseRecipientFile(data []byte) (Recipient, error) {
	line, err := onlyLine(data, "recipient")
	if err != nil {
		return Recipient{}, err
	}
	return ParseRecipient(string(line))
}

// onlyLine returns the one line of an age file that is not empty and no comment,
// without copying it.
func onlyLine(data []byte, what string) ([]byte, error) {
	var found []byte
	for line := range bytes.Lines(data) {
		text := bytes.TrimSpace(line)
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: more than one %s", ErrFormat, what)
		}
		found = text
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no %s", ErrFormat, what)
	}
	return found, nil
}

func keyRecipient(text string) Recipient {
	return Recipient{text: text, hash: sha256.Sum256([]byte(text))}
}

// PassphraseRecipient seals to a passphrase (age scrypt). The hash identifies
// the recipient in the PKG's ledger: no public function of a passphrase may,
// since it could be guessed from it. logN is the work factor; 0 means age's
// default of 18, about a second on a PC.
func PassphraseRecipient(passphrase []byte, hash [32]byte, logN int) (Recipient, error) {
	r, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return Recipient{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if logN != 0 {
		r.SetWorkFactor(logN)
	}
	return Recipient{passphrase: r, hash: hash}, nil
}

// Hash returns what a bundle's payload and the ledger call the recipient: the
// SHA-256 of its text, or the hash given with a passphrase.
func (r Recipient) Hash() [32]byte { return r.hash }

// Text returns the recipient's text; a passphrase has none. Errors wrap
// ErrRecipient if the text is elsewhere, and not there any more.
func (r Recipient) Text() (text string, ok bool, err error) {
	if r.read == nil {
		return r.text, r.text != "", nil
	}
	if text, err = r.read(); err != nil {
		return "", false, err
	}
	again, err := ParseRecipient(text)
	if err == nil && again.hash != r.hash {
		err = fmt.Errorf("%w: the one with SHA-256 %s was changed where it was read", ErrRecipient, Hash(r.hash))
	}
	return again.text, err == nil, err
}

// HasText reports whether it is a key, which has a text, and no passphrase.
func (r Recipient) HasText() bool { return r.passphrase == nil }

// PostQuantum reports whether a quantum attacker who has recorded what is
// sealed cannot open it: it is sealed to a hybrid key or to a passphrase.
func (r Recipient) PostQuantum() bool {
	return r.passphrase != nil || r.hybrid || strings.HasPrefix(r.text, hybridPrefix)
}

// String returns the recipient's text; "passphrase" if it is one, and its hash if
// the text is elsewhere.
func (r Recipient) String() string {
	switch {
	case r.read != nil:
		return Hash(r.hash).String()
	case r.text == "":
		return "passphrase"
	}
	return r.text
}

// Opener opens bundles: the private half of a Recipient.
type Opener struct {
	identity  age.Identity
	recipient *[32]byte // nil: a passphrase, which has no public hash
}

// maxWorkFactor bounds the scrypt work that a file may ask for: four times the
// default.
const maxWorkFactor = 20

// PassphraseOpener opens what was sealed to a passphrase.
func PassphraseOpener(passphrase []byte) (Opener, error) {
	i, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return Opener{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	i.SetMaxWorkFactor(maxWorkFactor)
	return Opener{identity: i}, nil
}

// GenerateOpener makes a post-quantum hybrid key. It returns the text to keep
// secret ("AGE-SECRET-KEY-PQ-1…") and the recipient to publish.
func GenerateOpener() (secret []byte, recipient Recipient, err error) {
	i, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, Recipient{}, err
	}
	return []byte(i.String()), keyRecipient(i.Recipient().String()), nil
}

// ParseOpener parses the secret text of one age key, hybrid or X25519, as
// age-keygen writes it: empty lines and lines that begin with '#' are ignored.
// It returns the key's recipient too. Errors wrap ErrFormat and never hold the
// text.
func ParseOpener(secret []byte) (Opener, Recipient, error) {
	line, err := onlyLine(secret, "age identity (AGE-SECRET-KEY-…)")
	if err != nil {
		return Opener{}, Recipient{}, err
	}
	text := string(line)
	if strings.HasPrefix(text, "AGE-SECRET-KEY-PQ-1") {
		i, err := age.ParseHybridIdentity(text)
		if err != nil {
			return Opener{}, Recipient{}, fmt.Errorf("%w: not a post-quantum age identity", ErrFormat)
		}
		o, r := keyOpener(i, keyRecipient(i.Recipient().String()))
		return o, r, nil
	}
	i, err := age.ParseX25519Identity(text)
	if err != nil {
		return Opener{}, Recipient{}, fmt.Errorf("%w: not an age identity (AGE-SECRET-KEY-…)", ErrFormat)
	}
	o, r := keyOpener(i, keyRecipient(i.Recipient().String()))
	return o, r, nil
}

func keyOpener(i age.Identity, r Recipient) (Opener, Recipient) {
	return Opener{identity: i, recipient: &r.hash}, r
}

// SealedTo names the kinds of recipient an age file is sealed to, without any
// key: "mlkem768x25519", "X25519" or "scrypt". Errors wrap ErrFormat.
func SealedTo(sealed []byte) ([]string, error) {
	header, err := age.ExtractHeader(bytes.NewReader(sealed))
	if err != nil {
		return nil, fmt.Errorf("%w: not an age file", ErrFormat)
	}
	var kinds []string
	for line := range bytes.Lines(header) {
		if stanza, ok := bytes.CutPrefix(line, []byte("-> ")); ok {
			kind, _, _ := strings.Cut(strings.TrimSpace(string(stanza)), " ")
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		return nil, fmt.Errorf("%w: an age file without recipient", ErrFormat)
	}
	return kinds, nil
}

// refusal turns an error of age.Decrypt into one that says what to do.
func (o Opener) refusal(kinds []string, err error) error {
	scrypt := len(kinds) == 1 && kinds[0] == "scrypt"
	var mismatch *age.NoIdentityMatchError
	switch {
	case o.recipient == nil && !scrypt:
		return fmt.Errorf("%w: it is sealed to an age key, not to a passphrase", ErrRecipient)
	case o.recipient != nil && scrypt:
		return fmt.Errorf("%w: it is sealed to a passphrase, not to an age key", ErrRecipient)
	case !errors.As(err, &mismatch):
		return fmt.Errorf("%w: the sealed file is damaged: %w", ErrFormat, err)
	case scrypt:
		return ErrPassphrase
	}
	return ErrRecipient
}
