package coaplink

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// BindingOID identifies the binding extension. It lies in the arc reserved for
// documentation (RFC 5612) until a number is assigned.
const BindingOID = "1.3.6.1.4.1.32473.7250.1"

// ContextSize is the size in bytes of a device's binding context: the client
// random of the handshake (RFC 5246 section 7.4.1.2) without its time field.
const ContextSize = 28

const (
	labelBinding   = "edgeclm/v1/dtls-binding"
	bindingVersion = 1
)

// ErrBinding is wrapped by every refusal of a binding or of the certificate
// that carries it.
var ErrBinding = errors.New("not an acceptable binding certificate")

// StrangerOID identifies the extension, empty, of a peer that claims no identity:
// it wants to deliver a lifeboat. In the same arc.
const StrangerOID = "1.3.6.1.4.1.32473.7250.2"

func strangerOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7250, 2}
}

func bindingOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7250, 1}
}

// BindingMessage is what an identity key signs to bind a handshake key to the
// identity: LP(label, identity, SHA-256(SPKI), context).
func BindingMessage(id ibc.Identity, spki [32]byte, context []byte) ([]byte, error) {
	return ibc.LP([]byte(labelBinding), []byte(id.String()), spki[:], context)
}

// Binding is the content of the extension.
type Binding struct {
	ParamsID  [ibc.ParamsIDSize]byte // of the parameters that verify Signature
	Identity  ibc.Identity
	Context   []byte // ContextSize bytes of a device, empty of a CLM
	Signature []byte // by Identity over BindingMessage, ibc.SignatureSize bytes
}

// bindingASN1 is SEQUENCE { version INTEGER (1), paramsID OCTET STRING,
// identity UTF8String, context OCTET STRING, signature OCTET STRING }.
type bindingASN1 struct {
	Version   int
	ParamsID  []byte
	Identity  string `asn1:"utf8"`
	Context   []byte
	Signature []byte
}

// NewBinding signs a binding of the handshake key whose SPKI has this SHA-256.
func NewBinding(key *ibc.PrivateKey, random io.Reader, spki [32]byte, context []byte) (*Binding, error) {
	m, err := BindingMessage(key.Identity(), spki, context)
	if err != nil {
		return nil, fmt.Errorf("binding message: %w", err)
	}
	signature, err := key.Sign(random, m)
	if err != nil {
		return nil, fmt.Errorf("sign binding: %w", err)
	}
	return &Binding{ParamsID: key.Params().ID(), Identity: key.Identity(), Context: context, Signature: signature}, nil
}

// Marshal encodes the binding in DER.
func (b *Binding) Marshal() ([]byte, error) {
	der, err := asn1.Marshal(bindingASN1{
		Version: bindingVersion, ParamsID: b.ParamsID[:], Identity: b.Identity.String(),
		Context: b.Context, Signature: b.Signature,
	})
	if err != nil {
		return nil, fmt.Errorf("encode binding: %w", err)
	}
	return der, nil
}

// ParseBinding decodes a binding. It must equal its own re-encoding, so that
// there is one encoding of each. Nothing is verified yet. Errors wrap ErrBinding.
func ParseBinding(der []byte) (*Binding, error) {
	var v bindingASN1
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the binding", ErrBinding, len(rest))
	}
	if again, err := asn1.Marshal(v); err != nil || !bytes.Equal(again, der) {
		return nil, fmt.Errorf("%w: the binding is not in its only encoding", ErrBinding)
	}
	if v.Version != bindingVersion {
		return nil, fmt.Errorf("%w: version %d of the binding, only %d is known", ErrBinding, v.Version, bindingVersion)
	}
	id, err := ibc.ParseIdentity(v.Identity)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if len(v.ParamsID) != ibc.ParamsIDSize || len(v.Signature) != ibc.SignatureSize {
		return nil, fmt.Errorf("%w: parameters of %d and a signature of %d bytes", ErrBinding, len(v.ParamsID), len(v.Signature))
	}
	if len(v.Context) != 0 && len(v.Context) != ContextSize {
		return nil, fmt.Errorf("%w: a context of %d bytes", ErrBinding, len(v.Context))
	}
	return &Binding{
		ParamsID: [ibc.ParamsIDSize]byte(v.ParamsID), Identity: id,
		Context: v.Context, Signature: v.Signature,
	}, nil
}
