package pkgen

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// maxWorkFactor bounds the scrypt work that a file of the PKG may ask for.
const maxWorkFactor = 22

// seal encrypts plain to a passphrase.
func seal(plain, passphrase []byte, workFactor int) ([]byte, error) {
	r, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	if workFactor != 0 {
		r.SetWorkFactor(workFactor)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unseal decrypts what seal made. The caller zeroes the result after use.
func unseal(sealed, passphrase []byte) ([]byte, error) {
	i, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, err
	}
	i.SetMaxWorkFactor(maxWorkFactor)
	r, err := age.Decrypt(bytes.NewReader(sealed), i)
	if err != nil {
		var mismatch *age.NoIdentityMatchError
		if errors.As(err, &mismatch) {
			return nil, ErrPassphrase
		}
		return nil, fmt.Errorf("the sealed file is damaged: %w", err)
	}
	plain := make([]byte, len(sealed)) // the plaintext is shorter than the file
	n, err := io.ReadFull(r, plain)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(plain)
		return nil, errors.New("the sealed file is damaged")
	}
	return plain[:n], nil
}

const masterVersion = 1

// encodeMaster encodes a master secret as JSON in a buffer of its own.
func encodeMaster(m *ibc.MasterSecret) []byte {
	s := m.Bytes()
	defer clear(s)
	out := make([]byte, 0, 256)
	out = fmt.Appendf(out, `{"version":%d,"suite":%s,"epoch":%d,"secret":"`, masterVersion, strconv.Quote(ibc.Suite), m.Params().Epoch())
	out = hex.AppendEncode(out, s)
	return append(out, `"}`...)
}

func decodeMaster(plain []byte) (*ibc.MasterSecret, error) {
	var j struct {
		Version int             `json:"version"`
		Suite   string          `json:"suite"`
		Epoch   uint32          `json:"epoch"`
		Secret  json.RawMessage `json:"secret"`
	}
	defer func() { clear(j.Secret) }()
	if err := json.Unmarshal(plain, &j); err != nil {
		return nil, errors.New("not a master secret")
	}
	if j.Version != masterVersion || j.Suite != ibc.Suite {
		return nil, fmt.Errorf("master secret of version %d, suite %.40q: this release reads %d, %q", j.Version, j.Suite, masterVersion, ibc.Suite)
	}
	digits := bytes.Trim(j.Secret, `"`)
	s := make([]byte, hex.DecodedLen(len(digits)))
	defer clear(s)
	if _, err := hex.Decode(s, digits); err != nil {
		return nil, errors.New("the master secret is not in hex")
	}
	return ibc.NewMasterSecret(j.Epoch, s)
}
