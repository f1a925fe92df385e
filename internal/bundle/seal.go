package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Signer makes PKG statements; *ibc.MasterSecret is one.
type Signer interface {
	Sign(kind ibc.Kind, document []byte) ([]byte, error)
}

// Seal signs the payload of b, to whose recipient field it writes, and seals
// it with its key to one recipient. It returns the age file and the SHA-256 of
// the signed payload, which is what the ledger records.
func Seal(b *Bundle, signer Signer, to Recipient) (sealed []byte, payloadHash Hash, err error) {
	if b.Key == nil {
		return nil, Hash{}, fmt.Errorf("seal bundle of %s: %w", b.Identity, ibc.ErrKey)
	}
	signed, err := Sign(b, signer, to)
	if err != nil {
		return nil, Hash{}, err
	}
	sealed, err = signed.Seal(b.Key)
	return sealed, signed.Hash, err
}

// Signed is a bundle that the PKG has signed: all but its key.
type Signed struct {
	Hash      Hash // SHA-256 of the payload, which is what the ledger records
	bundle    *Bundle
	to        Recipient
	document  []byte
	signature []byte
}

// Sign signs the payload of b for one recipient, to whose recipient field it
// writes. The key is not needed.
func Sign(b *Bundle, signer Signer, to Recipient) (*Signed, error) {
	b.Recipient = Hash(to.hash)
	document, err := b.Payload()
	if err != nil {
		return nil, err
	}
	signature, err := signer.Sign(ibc.KindBundle, document)
	if err != nil {
		return nil, fmt.Errorf("sign bundle of %s: %w", b.Identity, err)
	}
	return &Signed{sha256.Sum256(document), b, to, document, signature}, nil
}

// Seal seals the bundle with its key to its recipient. Errors wrap ibc.ErrKey if
// the key is another's.
func (s *Signed) Seal(key *ibc.PrivateKey) (sealed []byte, err error) {
	b := s.bundle
	if key.Identity() != b.Identity || key.Params().ID() != b.Params.ID() {
		return nil, fmt.Errorf("seal bundle of %s: %w", b.Identity, ibc.ErrKey)
	}
	var epochs []byte
	if len(b.Epochs) > MaxEpochs {
		return nil, fmt.Errorf("%w: %d epoch statements, at most %d are allowed", ErrFormat, len(b.Epochs), MaxEpochs)
	} else if len(b.Epochs) > 0 {
		if epochs, err = json.Marshal(successions(b.Epochs)); err != nil {
			return nil, fmt.Errorf("epoch statements of %s: %w", b.Identity, err)
		}
	}
	plain := newEnvelope(s.document, s.signature, epochs, key)
	defer clear(plain)
	if sealed, err = s.to.Seal(plain); err != nil {
		return nil, fmt.Errorf("seal bundle of %s: %w", b.Identity, err)
	}
	return sealed, nil
}

// Seal encrypts something to the recipient, of which at most MaxSize bytes may
// come. Errors wrap ErrFormat.
func (r Recipient) Seal(plain []byte) ([]byte, error) { return r.SealWithin(plain, MaxSize) }

// SealWithin is Seal with another bound, in bytes.
func (r Recipient) SealWithin(plain []byte, limit int) ([]byte, error) {
	to, err := r.age()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if out.Len() > limit {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, out.Len())
	}
	return out.Bytes(), nil
}

// envelope is the plaintext of the age file.
type envelope struct {
	Version   int          `json:"version"`
	Payload   []byte       `json:"payload"`
	Signature hexBytes     `json:"signature"`
	Epochs    []succession `json:"epochs"`
	Key       secretHex    `json:"key"`
}

// succession is an ibc.Succession in JSON.
type succession struct {
	Params    *ibc.Params `json:"params"`
	Statement hexBytes    `json:"statement"`
}

func successions(chain []ibc.Succession) []succession {
	out := make([]succession, len(chain))
	for i, s := range chain {
		out[i] = succession{s.Params, s.Statement}
	}
	return out
}

// epochs returns the chain of an envelope; nothing of it is verified.
func (e *envelope) epochs() ([]ibc.Succession, error) {
	if len(e.Epochs) > MaxEpochs {
		return nil, fmt.Errorf("%w: %d epoch statements, at most %d are allowed", ErrFormat, len(e.Epochs), MaxEpochs)
	}
	var out []ibc.Succession
	for _, s := range e.Epochs {
		if s.Params == nil {
			return nil, fmt.Errorf("%w: an epoch statement without parameters", ErrFormat)
		}
		out = append(out, ibc.Succession{Params: s.Params, Statement: s.Statement})
	}
	return out, nil
}

// newEnvelope encodes the envelope by hand into a buffer of its own, since
// encoding/json would leave copies of the key behind. epochs is in JSON; nil
// leaves it out.
func newEnvelope(document, signature, epochs []byte, key *ibc.PrivateKey) []byte {
	d := key.Bytes()
	defer clear(d)
	size := base64.StdEncoding.EncodedLen(len(document)) + 2*(len(signature)+len(d)) + len(epochs) + 128
	out := make([]byte, 0, size)
	out = fmt.Appendf(out, `{"version":%d,"payload":"`, Version)
	out = base64.StdEncoding.AppendEncode(out, document)
	out = append(out, `","signature":"`...)
	out = hex.AppendEncode(out, signature)
	out = append(out, '"')
	if epochs != nil {
		out = append(out, `,"epochs":`...)
		out = append(out, epochs...)
	}
	out = append(out, `,"key":"`...)
	out = hex.AppendEncode(out, d)
	return append(out, `"}`...)
}

// Open opens an age file of at most MaxSize bytes and checks everything that
// it can by itself: that it was sealed for the opener, its version and form,
// the PKG's signature under the parameters inside, and the key by its pairing.
// The caller checks whose parameters they are (Bundle.HeldTo, Bundle.Follows).
//
// Errors wrap ErrFormat, ErrVersion, ErrRecipient, ErrPassphrase,
// ibc.ErrSignature or ibc.ErrKey.
func Open(sealed []byte, opener Opener) (*Bundle, error) {
	b, err := open(sealed, opener)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	return b, nil
}

func open(sealed []byte, opener Opener) (*Bundle, error) {
	plain, err := opener.Unseal(sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parseEnvelope(plain, opener)
}

// Unseal decrypts an age file of at most MaxSize bytes. The caller zeroes the
// result after use. Errors wrap ErrFormat, ErrRecipient or ErrPassphrase.
func (o Opener) Unseal(sealed []byte) ([]byte, error) { return o.UnsealWithin(sealed, MaxSize) }

// UnsealWithin is Unseal with another bound, in bytes.
func (o Opener) UnsealWithin(sealed []byte, limit int) ([]byte, error) {
	if len(sealed) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, limit)
	}
	kinds, err := SealedTo(sealed)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), o.identity)
	if err != nil {
		return nil, o.refusal(kinds, err)
	}
	plain := make([]byte, len(sealed)) // the plaintext is shorter than the file
	n, err := io.ReadFull(r, plain)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(plain)
		return nil, fmt.Errorf("%w: the sealed file is damaged", ErrFormat)
	}
	return plain[:n], nil
}

func parseEnvelope(plain []byte, opener Opener) (*Bundle, error) {
	var e envelope
	defer func() { clear(e.Key) }()
	if err := decode(plain, &e); err != nil {
		return nil, err
	}
	b, err := parsePayload(e.Payload)
	if err != nil {
		return nil, err
	}
	if err := b.Params.VerifyStatement(ibc.KindBundle, e.Payload, e.Signature); err != nil {
		return nil, fmt.Errorf("payload of %s: %w", b.Identity, err)
	}
	b.Signed = sha256.Sum256(e.Payload)
	if b.Epochs, err = e.epochs(); err != nil {
		return nil, err
	}
	if opener.recipient != nil && Hash(*opener.recipient) != b.Recipient {
		return nil, fmt.Errorf("%w: the PKG sealed the bundle of %s for the recipient with SHA-256 %s, somebody resealed it for this one", ErrRecipient, b.Identity, b.Recipient)
	}
	if b.Key, err = ibc.NewPrivateKey(b.Params, b.Identity, e.Key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return b, nil
}

// decode parses one JSON object into v after its version was found to be ours.
// Unknown keys are ignored.
func decode(data []byte, v any) error {
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if probe.Version != Version {
		return fmt.Errorf("%w: %d, this release reads %d", ErrVersion, probe.Version, Version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// hexBytes is a byte string, hex in JSON.
type hexBytes []byte

// MarshalText implements encoding.TextMarshaler.
func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// secretHex is hexBytes for a secret: it leaves no copy behind.
type secretHex []byte

// UnmarshalJSON implements json.Unmarshaler.
func (h *secretHex) UnmarshalJSON(data []byte) error {
	if len(data) < 2 || data[0] != '"' || data[len(data)-1] != '"' {
		return errors.New("the key is not a string")
	}
	digits := data[1 : len(data)-1]
	*h = make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(*h, digits); err != nil {
		return errors.New("the key is not in hex")
	}
	return nil
}
