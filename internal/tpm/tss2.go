package tpm

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// PEMType is the label (RFC 7468) of what Generate and Seal return, as
// draft-bottomley-tpm2-keys and OpenSSL's tpm2 provider have it.
const PEMType = "TSS2 PRIVATE KEY"

// ErrFormat is wrapped when stored bytes are not what this package writes.
var ErrFormat = errors.New("malformed TPM key")

// maxStored bounds stored bytes.
const maxStored = 8 << 10

// object is what is stored of a key or a sealed secret: TPMKey of
// draft-bottomley-tpm2-keys, section 3.1. Its optional parts (policies,
// importable keys) are refused, since nothing here writes them.
type object struct {
	Type      asn1.ObjectIdentifier
	EmptyAuth bool  `asn1:"optional,explicit,tag:0"`
	Parent    int64 // TPM_HANDLE: a persistent key, or a hierarchy for its primary key
	Public    []byte
	Private   []byte
}

// The types of an object, in the arc 2.23.133 of the TCG.
func oidLoadable() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3} }
func oidSealed() asn1.ObjectIdentifier   { return asn1.ObjectIdentifier{2, 23, 133, 10, 1, 5} }

func encode(kind asn1.ObjectIdentifier, parent tpm2.TPMHandle, public tpm2.TPM2BPublic, private tpm2.TPM2BPrivate) ([]byte, error) {
	der, err := asn1.Marshal(object{
		Type: kind, EmptyAuth: true, Parent: int64(parent),
		Public: tpm2.Marshal(public), Private: tpm2.Marshal(private),
	})
	if err != nil {
		return nil, fmt.Errorf("encode TPM key: %w", err)
	}
	return der, nil
}

// loadable is a decoded object.
type loadable struct {
	parent   tpm2.TPMHandle
	public   tpm2.TPM2BPublic
	contents *tpm2.TPMTPublic // of public
	private  tpm2.TPM2BPrivate
}

// decode reads an object of one type. Errors wrap ErrFormat.
func decode(der []byte, kind asn1.ObjectIdentifier) (loadable, error) {
	var o object
	if len(der) > maxStored {
		return loadable{}, fmt.Errorf("%w: more than %d bytes", ErrFormat, maxStored)
	}
	if rest, err := asn1.Unmarshal(der, &o); err != nil || len(rest) > 0 {
		return loadable{}, fmt.Errorf("%w: it does not parse", ErrFormat)
	}
	switch {
	case !o.Type.Equal(kind):
		return loadable{}, fmt.Errorf("%w: it is of type %v, not %v", ErrFormat, o.Type, kind)
	case !o.EmptyAuth:
		return loadable{}, fmt.Errorf("%w: it has a password", ErrFormat)
	case o.Parent != int64(tpm2.TPMRHOwner) && o.Parent>>24 != persistent:
		return loadable{}, fmt.Errorf("%w: its parent is %#x", ErrFormat, o.Parent)
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](o.Public)
	if err != nil {
		return loadable{}, fmt.Errorf("%w: its public part does not parse", ErrFormat)
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](o.Private)
	if err != nil {
		return loadable{}, fmt.Errorf("%w: its private part does not parse", ErrFormat)
	}
	contents, err := public.Contents()
	if err != nil {
		return loadable{}, fmt.Errorf("%w: its public part does not parse", ErrFormat)
	}
	l := loadable{parent: tpm2.TPMHandle(o.Parent), public: *public, contents: contents, private: *private}
	// One encoding for each object: nothing hides behind it.
	if again, err := encode(kind, l.parent, l.public, l.private); err != nil || !bytes.Equal(again, der) {
		return loadable{}, fmt.Errorf("%w: not its own encoding", ErrFormat)
	}
	return l, nil
}

// persistent is the first byte of the handle of a persistent object.
const persistent = 0x81
