package custody

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Share is a holder's share of a master secret, found to be what the commitments
// of its sharing say. The caller destroys it after use.
type Share struct {
	*ibc.Share
	Sharing *Sharing
	Holder  string
}

// Seal seals the share for its holder.
func (x *Share) Seal(to bundle.Recipient) ([]byte, error) {
	plain, err := x.encode()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	sealed, err := to.Seal(plain)
	if err != nil {
		return nil, fmt.Errorf("seal share %d of %s: %w", x.Index(), x.Holder, err)
	}
	return sealed, nil
}

// encode encodes the share by hand into a buffer of its own, since encoding/json
// would leave copies of the value behind.
func (x *Share) encode() ([]byte, error) {
	value, err := x.Bytes()
	if err != nil {
		return nil, err
	}
	defer clear(value)
	params := x.Sharing.Params()
	out := make([]byte, 0, 640)
	out = fmt.Appendf(out, `{"version":%d,"suite":%s,"epoch":%d,"params_id":"%x","sharing_sha256":"%s","serial":%d,"index":%d,"holder":%s,"value":"`,
		Version, strconv.Quote(ibc.Suite), params.Epoch(), params.ID(), x.Sharing.ID(), x.Sharing.Serial(), x.Index(), strconv.Quote(x.Holder))
	out = hex.AppendEncode(out, value)
	return append(out, `"}`...), nil
}

// Open opens the file of a share and checks it against its sharing. Errors wrap
// ErrFormat, ErrVersion, ErrCeremony, ErrSharing, ibc.ErrShare, or those of
// bundle.Opener.Unseal.
func Open(sealed []byte, opener bundle.Opener, sharing *Sharing) (*Share, error) {
	if len(sealed) > MaxShareFile {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxShareFile)
	}
	plain, err := opener.Unseal(sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parseShare(plain, sharing)
}

// shareJSON is the plaintext of a share's file.
type shareJSON struct {
	Version  int     `json:"version"`
	Kind     string  `json:"kind"` // "" of a master secret
	Suite    string  `json:"suite"`
	Epoch    uint32  `json:"epoch"`
	ParamsID Hash    `json:"params_id"`
	Sharing  Hash    `json:"sharing_sha256"`
	Serial   uint64  `json:"serial"`
	Index    int     `json:"index"`
	Holder   string  `json:"holder"`
	Value    hexCopy `json:"value"`
}

func parseShare(plain []byte, sharing *Sharing) (*Share, error) {
	var j shareJSON
	defer func() { clear(j.Value) }()
	if err := decode(plain, MaxShareFile, &j); err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	if err := j.belongs(sharing); err != nil {
		return nil, err
	}
	secret, err := ibc.NewShare(sharing.Commitments(), j.Index, j.Value)
	if err != nil {
		return nil, err
	}
	return &Share{Share: secret, Sharing: sharing, Holder: j.Holder}, nil
}

// belongs checks that the share says it is one of a sharing.
func (j *shareJSON) belongs(s *Sharing) error {
	params, id := s.Params(), Hash(s.Params().ID())
	switch {
	case j.Kind != "":
		return fmt.Errorf("%w: it is a %.40q, and a share of a master secret is wanted", ErrKind, j.Kind)
	case j.Suite != ibc.Suite:
		return fmt.Errorf("share: %w: suite %.40q, this release reads %q", ErrVersion, j.Suite, ibc.Suite)
	case j.ParamsID != id || j.Epoch != params.Epoch():
		return fmt.Errorf("%w: its params_id is %s in epoch %d, this PKG's is %s in epoch %d", ErrCeremony, j.ParamsID, j.Epoch, id, params.Epoch())
	case j.Serial < s.serial:
		return fmt.Errorf("%w: of sharing %d, which was refreshed since: this is sharing %d", ErrSharing, j.Serial, s.serial)
	case j.Serial > s.serial:
		return fmt.Errorf("%w: of sharing %d, which is later: this is sharing %d", ErrSharing, j.Serial, s.serial)
	case j.Sharing != s.id:
		return fmt.Errorf("%w: its sharing_sha256 is %s, this sharing's is %s", ErrSharing, j.Sharing, s.id)
	case j.Holder == "" || j.Holder != s.Holder(j.Index):
		return fmt.Errorf("%w: share %d is not one of %.40q", ibc.ErrShare, j.Index, j.Holder)
	}
	return nil
}

// Together returns the master secret of shares that were brought together; all
// are of one sharing. The caller destroys it. Errors wrap ErrSharing, ErrTwice,
// ErrTooFew or ibc.ErrShare and name the share.
func Together(shares []*Share) (*ibc.MasterSecret, error) {
	secrets, err := quorum(shares)
	if err != nil {
		return nil, err
	}
	return ibc.Recombine(secrets)
}

// Recover returns the share with a number, from enough of the others. Errors are
// those of Together.
func Recover(shares []*Share, index int) (*Share, error) {
	secrets, err := quorum(shares)
	if err != nil {
		return nil, err
	}
	secret, err := ibc.RecoverShare(secrets, index)
	if err != nil {
		return nil, err
	}
	s := shares[0].Sharing
	return &Share{Share: secret, Sharing: s, Holder: s.Holder(index)}, nil
}

// quorum checks that shares are enough and each its own.
func quorum(shares []*Share) ([]*ibc.Share, error) {
	secrets := make([]*ibc.Share, len(shares))
	for i, x := range shares {
		secrets[i] = x.Share
	}
	if len(shares) == 0 {
		return nil, fmt.Errorf("%w: there are none", ErrTooFew)
	}
	return secrets, checkQuorum(shares, shares[0].Sharing.Threshold(), shares[0].Sharing.holders)
}

func (x *Share) holder() string { return x.Holder }

func (x *Share) sharing() Hash { return x.Sharing.id }

// checkQuorum checks that shares, at least one, are of one sharing, each its own,
// and enough.
func checkQuorum[S interface {
	Index() int
	holder() string
	sharing() Hash
}](shares []S, threshold int, holders []string) error {
	first := shares[0]
	seen := map[int]bool{}
	for _, x := range shares {
		switch {
		case x.sharing() != first.sharing():
			return fmt.Errorf("%w: share %d of %s is of another than share %d of %s", ErrSharing, x.Index(), x.holder(), first.Index(), first.holder())
		case seen[x.Index()]:
			return fmt.Errorf("%w: share %d of %s", ErrTwice, x.Index(), x.holder())
		}
		seen[x.Index()] = true
	}
	if missing := threshold - len(shares); missing > 0 {
		var others []string
		for i, name := range holders {
			if !seen[i+1] {
				others = append(others, name)
			}
		}
		return fmt.Errorf("%w: %d of the %d that are needed; bring %d more, of %s", ErrTooFew, len(shares), threshold, missing, strings.Join(others, ", "))
	}
	return nil
}

// hexCopy is a secret, hex in JSON, that is decoded without a copy that nobody
// could zero.
type hexCopy []byte

// UnmarshalJSON implements json.Unmarshaler.
func (h *hexCopy) UnmarshalJSON(data []byte) error {
	if len(data) != 2*ibc.ScalarSize+2 || data[0] != '"' || data[len(data)-1] != '"' {
		return errors.New("not a value")
	}
	*h = make([]byte, ibc.ScalarSize)
	_, err := hex.Decode(*h, data[1:len(data)-1])
	return err
}

var _ json.Unmarshaler = (*hexCopy)(nil)
