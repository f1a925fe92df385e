package conformance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

const (
	bindingOID     = "1.3.6.1.4.1.32473.7250.1"
	bindingLabel   = "edgeclm/v1/dtls-binding"
	maxCertificate = 1024
)

// binding is the extension as section 3.2 has it.
type binding struct {
	Version   int
	ParamsID  []byte
	Identity  string `asn1:"utf8"`
	Context   []byte
	Signature []byte
}

// bound is a device's certificate, taken apart.
type bound struct {
	binding
	identity ibc.Identity
	raw      []byte // of the extension
	spki     [32]byte
}

var errNoBinding = errors.New("there is no binding to look at")

// bound takes the certificate of the handshake apart, as far as it goes; the
// rule binding.certificate tells what is wrong with the rest.
func (f *flight) bound() (*bound, error) {
	if len(f.certificates) == 0 {
		return nil, errNoBinding
	}
	c, err := x509.ParseCertificate(f.certificates[0])
	if err != nil {
		return nil, errNoBinding
	}
	for _, e := range c.Extensions {
		if e.Id.String() != bindingOID {
			continue
		}
		b := &bound{raw: e.Value, spki: sha256.Sum256(c.RawSubjectPublicKeyInfo)}
		if _, err := asn1.Unmarshal(e.Value, &b.binding); err != nil {
			return nil, errNoBinding
		}
		b.identity, _ = ibc.ParseIdentity(b.Identity)
		return b, nil
	}
	return nil, errNoBinding
}

func bindingRules() []rule {
	of := func(test func(t *tester, f *flight, b *bound) verdict) func(context.Context, *tester) verdict {
		return func(_ context.Context, t *tester) verdict {
			b, err := t.first.bound()
			if err != nil {
				return skipped("%v", err)
			}
			return test(t, t.first, b)
		}
	}
	return []rule{
		{name: "binding.one", section: "3.2", says: "exactly one certificate is presented", test: func(_ context.Context, t *tester) verdict {
			if n := len(t.first.certificates); n != 1 {
				return failed("%d certificates", n)
			}
			return verdict{}
		}},
		{name: "binding.size", section: "3.3 step 1", says: "the certificate has at most 1,024 bytes", test: func(_ context.Context, t *tester) verdict {
			if len(t.first.certificates) == 0 {
				return skipped("there is none")
			}
			if n := len(t.first.certificates[0]); n > maxCertificate {
				return failed("%d bytes", n)
			}
			return verdict{}
		}},
		{name: "binding.certificate", section: "3.2", says: "the certificate is DER with an ECDSA P-256 key and the binding as its only extension", test: bindingCertificate},
		{name: "binding.encoding", section: "3.2", says: "the binding is in DER, of version 1, its parts of the right sizes", test: of(bindingEncoding)},
		{name: "binding.params", section: "3.3 step 3", says: "its parameters are those of the PKG and epoch", test: of(func(t *tester, _ *flight, b *bound) verdict {
			_, v := t.paramsOf(b)
			return v
		})},
		{name: "binding.identity", section: "3.3 steps 4 and 5", says: "it names the device, under the present (epoch, generation) or a later one", test: of(bindingIdentity)},
		{name: "binding.context", section: "3.2", says: "its context is the last 28 bytes of the client random", test: of(func(_ *tester, f *flight, b *bound) verdict {
			if !bytes.Equal(b.Context, f.clientRandom[:]) {
				return failed("context %x, client random %x", b.Context, f.clientRandom)
			}
			return verdict{}
		})},
		{name: "binding.signature", section: "3.2", says: "the identity's key has signed label, identity, handshake key and context", test: of(bindingSignature)},
		{name: "binding.fresh", section: "3.2", says: "every handshake has a binding of its own", test: bindingFresh},
		{name: "binding.key", section: "3.2", says: "the handshake key is the same in all of them, until the device restarts", test: func(_ context.Context, t *tester) verdict {
			one, err1 := t.first.bound()
			if err1 != nil || t.second == nil {
				return skipped("there are no two bindings to compare")
			}
			if one.spki != t.second.spki {
				return warned("two handshakes had two: with two addresses it would look like a clone of itself")
			}
			return verdict{}
		}},
	}
}

func bindingCertificate(_ context.Context, t *tester) verdict {
	if len(t.first.certificates) == 0 {
		return skipped("there is none")
	}
	c, err := x509.ParseCertificate(t.first.certificates[0])
	if err != nil {
		return failed("%v", err)
	}
	if len(c.Extensions) != 1 || c.Extensions[0].Id.String() != bindingOID {
		var ids []string
		for _, e := range c.Extensions {
			ids = append(ids, e.Id.String())
		}
		return failed("its extensions are %q, only %s is allowed", ids, bindingOID)
	}
	if pub, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return failed("its key is not ECDSA on P-256")
	}
	if c.Extensions[0].Critical {
		return warned("the extension is critical")
	}
	return verdict{}
}

func bindingEncoding(_ *tester, _ *flight, b *bound) verdict {
	again, err := asn1.Marshal(b.binding)
	switch {
	case err != nil || !bytes.Equal(again, b.raw):
		return failed("it is not in its only encoding: %x", b.raw)
	case b.Version != 1:
		return failed("version %d", b.Version)
	case len(b.ParamsID) != 32 || len(b.Signature) != 96 || len(b.Context) != contextSize:
		return failed("parameters of %d bytes instead of 32, a context of %d instead of %d, a signature of %d instead of 96",
			len(b.ParamsID), len(b.Context), contextSize, len(b.Signature))
	}
	if _, err := ibc.ParseIdentity(b.Identity); err != nil {
		return failed("%v", err)
	}
	return verdict{}
}

// paramsOf finds the parameters that a binding names.
func (t *tester) paramsOf(b *bound) (*ibc.Params, verdict) {
	for _, p := range t.Params {
		id := p.ID()
		if !bytes.Equal(id[:], b.ParamsID) {
			continue
		}
		if b.identity != (ibc.Identity{}) && b.identity.Epoch != p.Epoch() {
			return nil, failed("%s, but the parameters are those of epoch %d", b.identity, p.Epoch())
		}
		return p, verdict{}
	}
	return nil, failed("parameters %x are not known here", b.ParamsID)
}

func bindingIdentity(t *tester, _ *flight, b *bound) verdict {
	got := b.identity
	if got == (ibc.Identity{}) {
		return skipped("it is not canonical")
	}
	if got.Role != ibc.RoleDevice || got.Name != t.Identity.Name {
		return failed("it names %s instead of %s", got, t.Identity)
	}
	if got.Compare(t.Identity) < 0 {
		return failed("%s is earlier than %s", got, t.Identity)
	}
	if got != t.Identity {
		return passed("%s, later than the inventory's", got)
	}
	return verdict{}
}

func bindingSignature(t *tester, _ *flight, b *bound) verdict {
	params, v := t.paramsOf(b)
	if v.outcome == Fail || b.identity == (ibc.Identity{}) {
		return skipped("it cannot be checked without parameters and identity")
	}
	return judge(b.verify(params))
}

// verify checks the signature over what section 3.2 says.
func (b *bound) verify(params *ibc.Params) error {
	message, err := ibc.LP([]byte(bindingLabel), []byte(b.Identity), b.spki[:], b.Context)
	if err != nil {
		return err
	}
	if err := params.Verify(b.identity, message, b.Signature); err != nil {
		return fmt.Errorf("the binding's signature: %w", err)
	}
	return nil
}

// bindingFresh makes a second handshake. A device that goes on with its first
// certificate is right in one handshake only.
func bindingFresh(ctx context.Context, t *tester) verdict {
	if t.offline != nil {
		return skipped("%v", errOffline)
	}
	c, seen, err := t.connect(ctx, proper)
	if err != nil {
		return failed("a second handshake beside the first: %v", err)
	}
	c.close()
	one, err1 := t.first.bound()
	two, err2 := seen.bound()
	if err1 != nil || err2 != nil {
		return skipped("%v", errNoBinding)
	}
	t.second = two
	switch {
	case bytes.Equal(one.Context, two.Context):
		return failed("two handshakes with different randoms have the context %x", two.Context)
	case bytes.Equal(one.Signature, two.Signature):
		return failed("two handshakes have the same signature")
	}
	return verdict{}
}
