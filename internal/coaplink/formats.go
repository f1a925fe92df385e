package coaplink

import "github.com/plgd-dev/go-coap/v3/message"

// Content formats (IANA registry "CoAP Content-Formats").
const (
	formatLinks     message.MediaType = 40     // application/link-format (RFC 6690)
	formatOctets    message.MediaType = 42     // application/octet-stream
	formatCBOR      message.MediaType = 60     // application/cbor (RFC 8949)
	formatProblem   message.MediaType = 257    // application/concise-problem-details+cbor (RFC 9290)
	formatCertsOnly message.MediaType = 281    // application/pkcs7-mime; smime-type=certs-only (RFC 9148)
	formatPKCS10    message.MediaType = 286    // application/pkcs10 (RFC 9148)
	formatCert      message.MediaType = 287    // application/pkix-cert (RFC 9148)
	noFormat        message.MediaType = 0xffff // reserved: none given
)

// The resources of a device.
const (
	pathCSR      = "/csr-generation-request"
	pathVerify   = "/verify-certificate"
	pathActivate = "/activate"
	pathConfirm  = "/confirm"
	pathRollback = "/rollback"
	pathBundle   = "/bundle"
	pathAnchors  = "/anchors"
	pathStatus   = "/status"
	pathCore     = "/.well-known/core" // RFC 6690
)
