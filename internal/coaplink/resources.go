package coaplink

import (
	"context"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// coreLinks describes the resources (RFC 6690, RFC 7252 section 7.2).
const coreLinks = `</csr-generation-request>;rt="edgeclm.csr";ct=286,` +
	`</verify-certificate>;rt="edgeclm.verify";ct=60,` +
	`</activate>;rt="edgeclm.activate",` +
	`</confirm>;rt="edgeclm.confirm",` +
	`</rollback>;rt="edgeclm.rollback",` +
	`</bundle>;rt="edgeclm.bundle",` +
	`</anchors>;rt="edgeclm.anchors",` +
	`</status>;rt="edgeclm.status";ct=60`

// resource is one entry of a device's interface.
type resource struct {
	path   string
	method codes.Code
	takes  []message.MediaType // of the request's body; empty: it has none
	format message.MediaType   // of a successful response, noFormat if it is empty
	run    func(ctx context.Context, from *session, in content) ([]byte, error)
}

// content is the body of a request, of one of the formats that its resource takes.
type content struct {
	format message.MediaType // noFormat if it is empty
	body   []byte
}

// resource finds what a path names.
func (v *serving) resource(path string) (resource, bool) {
	post := func(format message.MediaType, run func(context.Context, *session, content) ([]byte, error)) (resource, bool) {
		return resource{path, codes.POST, []message.MediaType{formatCBOR}, format, run}, true
	}
	switch path {
	case pathCSR:
		return post(formatPKCS10, v.csr)
	case pathVerify:
		return post(formatCBOR, v.verify)
	case pathActivate:
		return post(noFormat, v.refer(func(ctx context.Context, peer ibc.Identity, a activation) error {
			return v.Services.Activate(ctx, peer, a.enrolment, a.certificate, a.within)
		}))
	case pathConfirm:
		return post(noFormat, v.refer(func(ctx context.Context, peer ibc.Identity, a activation) error {
			return v.Services.Confirm(ctx, peer, a.enrolment, a.certificate)
		}))
	case pathRollback:
		return post(noFormat, v.refer(func(ctx context.Context, peer ibc.Identity, a activation) error {
			return v.Services.Rollback(ctx, peer, a.enrolment, a.certificate)
		}))
	case pathBundle:
		return resource{path, codes.POST, []message.MediaType{formatOctets}, noFormat, v.bundle}, true
	case pathAnchors:
		// An anchor statement; a new root, cross-signed by a present one.
		return resource{path, codes.POST, []message.MediaType{formatOctets, formatCert}, noFormat, v.anchors}, true
	case pathStatus:
		return resource{path, codes.GET, nil, formatCBOR, v.status}, true
	case pathCore:
		return resource{path, codes.GET, nil, formatLinks, func(context.Context, *session, content) ([]byte, error) {
			return []byte(coreLinks), nil
		}}, true
	}
	return resource{}, false
}

func (v *serving) csr(ctx context.Context, from *session, in content) ([]byte, error) {
	defer clear(in.body)
	req, err := decodeCSRRequest(in.body)
	if err != nil {
		return nil, err
	}
	return v.Services.CSR(ctx, from.peer, req)
}

func (v *serving) verify(ctx context.Context, from *session, in content) ([]byte, error) {
	req, err := decodeVerifyRequest(in.body)
	if err != nil {
		return nil, err
	}
	response, err := v.Services.Verify(ctx, from.peer, req)
	if err != nil {
		return nil, err
	}
	return encodeVerifyResponse(response)
}

func (v *serving) anchors(ctx context.Context, from *session, in content) ([]byte, error) {
	change := enrol.AnchorChange{Statement: in.body}
	if in.format == formatCert {
		change = enrol.AnchorChange{CrossSigned: in.body}
	}
	return nil, v.Services.Anchors(ctx, from.peer, change)
}

func (v *serving) status(ctx context.Context, from *session, _ content) ([]byte, error) {
	s, err := v.Services.Status(ctx, from.peer)
	if err != nil {
		return nil, err
	}
	return encodeStatus(s)
}

func (v *serving) refer(run func(context.Context, ibc.Identity, activation) error) func(context.Context, *session, content) ([]byte, error) {
	return func(ctx context.Context, from *session, in content) ([]byte, error) {
		a, err := decodeReference(in.body)
		if err != nil {
			return nil, err
		}
		return nil, run(ctx, from.peer, a)
	}
}
