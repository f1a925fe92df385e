package coaplink

import (
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// maxPossession bounds a possession signature: RSA-4096.
const maxPossession = 512

// verifyRequest is the body of /verify-certificate.
type verifyRequest struct {
	Version   uint64 `cbor:"0,keyasint"`
	Enrolment []byte `cbor:"1,keyasint"`
	Nonce     []byte `cbor:"2,keyasint"`
	PKCS7     []byte `cbor:"3,keyasint"` // certs-only (content format 281)
}

// verifyResponse is the response of /verify-certificate.
type verifyResponse struct {
	Version     uint64 `cbor:"0,keyasint"`
	Certificate []byte `cbor:"1,keyasint"` // SHA-256
	Possession  []byte `cbor:"2,keyasint"`
	Statement   []byte `cbor:"3,keyasint"`
}

func encodeVerifyRequest(req enrol.VerifyRequest) ([]byte, error) {
	p7, err := encodeCertsOnly(req.Certificates)
	if err != nil {
		return nil, err
	}
	return encode(verifyRequest{wireVersion, req.Enrolment[:], req.Nonce[:], p7})
}

func decodeVerifyRequest(data []byte) (enrol.VerifyRequest, error) {
	var in verifyRequest
	if err := decode(data, &in); err != nil {
		return enrol.VerifyRequest{}, err
	}
	if err := checkVersion(in.Version); err != nil {
		return enrol.VerifyRequest{}, err
	}
	var out enrol.VerifyRequest
	if err := fixed(out.Enrolment[:], in.Enrolment, "enrolment ID"); err != nil {
		return enrol.VerifyRequest{}, err
	}
	if err := fixed(out.Nonce[:], in.Nonce, "nonce"); err != nil {
		return enrol.VerifyRequest{}, err
	}
	certificates, err := parseCertsOnly(in.PKCS7)
	if err != nil {
		return enrol.VerifyRequest{}, err
	}
	out.Certificates = certificates
	return out, nil
}

func encodeVerifyResponse(r enrol.VerifyResponse) ([]byte, error) {
	return encode(verifyResponse{wireVersion, r.Certificate[:], r.Possession, r.Statement})
}

func decodeVerifyResponse(data []byte) (enrol.VerifyResponse, error) {
	var in verifyResponse
	if err := decode(data, &in); err != nil {
		return enrol.VerifyResponse{}, err
	}
	if err := checkVersion(in.Version); err != nil {
		return enrol.VerifyResponse{}, err
	}
	out := enrol.VerifyResponse{Possession: in.Possession, Statement: in.Statement}
	if err := fixed(out.Certificate[:], in.Certificate, "certificate hash"); err != nil {
		return enrol.VerifyResponse{}, err
	}
	if err := bounded(in.Possession, maxPossession, "possession signature"); err != nil {
		return enrol.VerifyResponse{}, err
	}
	if len(in.Statement) != ibc.SignatureSize {
		return enrol.VerifyResponse{}, fmt.Errorf("%w: statement of %d bytes", errPayload, len(in.Statement))
	}
	return out, nil
}
