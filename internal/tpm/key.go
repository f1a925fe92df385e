package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Generate makes a key pair in the TPM: ECDSA on P-256 or P-384, RSA of 2048 or
// 3072 bits, as far as the TPM can. It returns the key and what is to be
// stored, the content of a PEM block of PEMType. An error that wraps
// fleet.ErrProfile says that there are no such keys here.
func (t *TPM) Generate(algorithm fleet.KeyAlgorithm) (crypto.Signer, []byte, error) {
	template, err := signingTemplate(algorithm)
	if err != nil {
		return nil, nil, err
	}
	var der []byte
	err = t.with(srkHandle, func(r *root) error {
		made, err := r.create(template, tpm2.TPMSSensitiveCreate{})
		if err != nil {
			return fmt.Errorf("make an %s key: %w", algorithm, err)
		}
		der, err = encode(oidLoadable(), r.stored, made.OutPublic, made.OutPrivate)
		return err
	})
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCCurve, tpm2.TPMRCKeySize, tpm2.TPMRCValue} {
		if errors.Is(err, code) {
			return nil, nil, fmt.Errorf("%w: this TPM makes no %s keys: %w", fleet.ErrProfile, algorithm, err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := t.Load(der)
	return key, der, err
}

// Supports returns an error that wraps fleet.ErrProfile if no TPM makes such
// keys here.
func Supports(algorithm fleet.KeyAlgorithm) error {
	_, err := signingTemplate(algorithm)
	return err
}

// Load returns a key that Generate stored. It does not need the TPM, which the
// key does when it signs. Errors wrap ErrFormat.
func (t *TPM) Load(der []byte) (crypto.Signer, error) {
	l, err := decode(der, oidLoadable())
	if err != nil {
		return nil, err
	}
	// A key that could have been anywhere else is not what this package promises.
	if l.contents.ObjectAttributes != signingAttributes() || len(l.contents.AuthPolicy.Buffer) > 0 {
		return nil, fmt.Errorf("%w: no signing key that its TPM made", ErrFormat)
	}
	public, err := publicKey(l.contents)
	if err != nil {
		return nil, err
	}
	return &key{tpm: t, object: l, public: public}, nil
}

// signingAttributes say that the key was made by the TPM, leaves neither it nor
// its parent, and signs. A lockout of the TPM does not concern it, for it has
// no password to guess.
func signingAttributes() tpm2.TPMAObject {
	return tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
}

func signingTemplate(algorithm fleet.KeyAlgorithm) (tpm2.TPMTPublic, error) {
	t := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: signingAttributes()}
	ecc := func(curve tpm2.TPMECCCurve) {
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSECCParms{CurveID: curve})
	}
	rsa := func(bits tpm2.TPMKeyBits) {
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(t.Type, &tpm2.TPMSRSAParms{KeyBits: bits})
	}
	switch algorithm {
	case fleet.ECDSAP256:
		ecc(tpm2.TPMECCNistP256)
	case fleet.ECDSAP384:
		ecc(tpm2.TPMECCNistP384)
	case fleet.RSA2048:
		rsa(2048)
	case fleet.RSA3072:
		rsa(3072)
	default:
		return t, fmt.Errorf("%w: a TPM makes no %s keys, only %s, %s, %s and %s", fleet.ErrProfile, algorithm,
			fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048, fleet.RSA3072)
	}
	return t, nil
}

func publicKey(p *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	public, err := tpm2.Pub(*p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil {
			return nil, fmt.Errorf("%w: its point is not on the curve", ErrFormat)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); (bits != 2048 && bits != 3072) || k.E != 65537 {
			return nil, fmt.Errorf("%w: an RSA key of %d bits with exponent %d", ErrFormat, bits, k.E)
		}
	}
	return public, nil
}

// key is a private key in the TPM.
type key struct {
	tpm    *TPM
	object loadable
	public crypto.PublicKey
}

// Public implements crypto.Signer.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer: ECDSA, or RSA with PKCS #1 v1.5 padding. The
// randomness is the TPM's.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	hash, err := hashOf(opts, digest)
	if err != nil {
		return nil, err
	}
	err = k.tpm.with(k.object.parent, func(r *root) error {
		return r.load(k.object, func(handle tpm2.TPMHandle, name tpm2.TPM2BName) error {
			signed, err := tpm2.Sign{
				KeyHandle:  tpm2.AuthHandle{Handle: handle, Name: name, Auth: r.session(in())},
				Digest:     tpm2.TPM2BDigest{Buffer: digest},
				InScheme:   k.scheme(hash),
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(r.c)
			if err != nil {
				return fmt.Errorf("sign: %w", err)
			}
			signature, err = k.check(signed.Signature, digest, opts.HashFunc())
			return err
		})
	})
	return signature, err
}

func hashOf(opts crypto.SignerOpts, digest []byte) (tpm2.TPMIAlgHash, error) {
	_, pss := opts.(*rsa.PSSOptions)
	switch hash := opts.HashFunc(); {
	case !pss && hash == crypto.SHA256 && len(digest) == hash.Size():
		return tpm2.TPMAlgSHA256, nil
	case !pss && hash == crypto.SHA384 && len(digest) == hash.Size():
		return tpm2.TPMAlgSHA384, nil
	}
	return 0, errors.New("the TPM signs digests of SHA-256 and SHA-384, by ECDSA or PKCS #1 v1.5")
}

func (k *key) scheme(hash tpm2.TPMIAlgHash) tpm2.TPMTSigScheme {
	if k.object.contents.Type == tpm2.TPMAlgRSA {
		return tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSchemeHash{HashAlg: hash})}
	}
	return tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hash})}
}

// check encodes a signature as crypto.Signer has it, and verifies it: a TPM
// that fails must not look like a device that lies.
func (k *key) check(s tpm2.TPMTSignature, digest []byte, hash crypto.Hash) ([]byte, error) {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		e, err := s.Signature.ECDSA()
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer),
		})
		if err != nil || !ecdsa.VerifyASN1(public, digest, der) {
			return nil, errors.New("the TPM made a wrong signature")
		}
		return der, nil
	case *rsa.PublicKey:
		e, err := s.Signature.RSASSA()
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		if rsa.VerifyPKCS1v15(public, hash, digest, e.Sig.Buffer) != nil {
			return nil, errors.New("the TPM made a wrong signature")
		}
		return e.Sig.Buffer, nil
	}
	return nil, fmt.Errorf("sign: a key of type %T", k.public)
}
