package coaplink

import (
	"context"
	"fmt"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// ask sends a request, CBOR if it has a body, expects success in the given
// format and returns the body; format noFormat expects none.
func (l *link) ask(ctx context.Context, code codes.Code, path string, payload []byte, format message.MediaType) ([]byte, error) {
	return l.askWith(ctx, code, path, content{formatCBOR, payload}, format)
}

func (l *link) askWith(ctx context.Context, code codes.Code, path string, in content, format message.MediaType) ([]byte, error) {
	r := request{code: code, path: path, format: in.format, payload: in.body}
	if format != noFormat {
		r.accept = format
	}
	want := codes.Changed
	if code == codes.GET {
		want = codes.Content
	}
	out, err := l.call(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case out.code>>5 >= 4:
		return nil, fmt.Errorf("%s: %w", path, decodeProblem(out))
	case out.code != want || out.format != format:
		return nil, fmt.Errorf("%s: %w: code %d.%02d, content format %d", path, errReply, out.code>>5, out.code&0x1f, out.format)
	}
	return out.payload, nil
}

// RequestCSR implements enrol.Device.
func (l *link) RequestCSR(ctx context.Context, req enrol.CSRRequest) ([]byte, error) {
	payload, err := encodeCSRRequest(req)
	if err != nil {
		return nil, fmt.Errorf("CSR request: %w", err)
	}
	defer clear(payload)
	return l.ask(ctx, codes.POST, pathCSR, payload, formatPKCS10)
}

// VerifyCertificate implements enrol.Device.
func (l *link) VerifyCertificate(ctx context.Context, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	payload, err := encodeVerifyRequest(req)
	if err != nil {
		return enrol.VerifyResponse{}, fmt.Errorf("verification request: %w", err)
	}
	body, err := l.ask(ctx, codes.POST, pathVerify, payload, formatCBOR)
	if err != nil {
		return enrol.VerifyResponse{}, err
	}
	out, err := decodeVerifyResponse(body)
	if err != nil {
		return enrol.VerifyResponse{}, fmt.Errorf("%s: %w", pathVerify, err)
	}
	return out, nil
}

// Activate implements enrol.Device.
func (l *link) Activate(ctx context.Context, id enrol.ID, certificate [32]byte, confirmWithin time.Duration) error {
	return l.refer(ctx, pathActivate, id, certificate, confirmWithin)
}

// Confirm implements enrol.Device.
func (l *link) Confirm(ctx context.Context, id enrol.ID, certificate [32]byte) error {
	return l.refer(ctx, pathConfirm, id, certificate, 0)
}

// Rollback implements enrol.Device.
func (l *link) Rollback(ctx context.Context, id enrol.ID, certificate [32]byte) error {
	return l.refer(ctx, pathRollback, id, certificate, 0)
}

func (l *link) refer(ctx context.Context, path string, id enrol.ID, certificate [32]byte, within time.Duration) error {
	payload, err := encodeReference(id, certificate, within)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = l.ask(ctx, codes.POST, path, payload, noFormat)
	return err
}

// DeliverBundle implements enrol.Device.
func (l *link) DeliverBundle(ctx context.Context, sealed []byte) error {
	_, err := l.askWith(ctx, codes.POST, pathBundle, content{formatOctets, sealed}, noFormat)
	return err
}

// DeliverAnchors implements enrol.Device.
func (l *link) DeliverAnchors(ctx context.Context, change enrol.AnchorChange) error {
	in := content{formatOctets, change.Statement}
	if change.CrossSigned != nil {
		in = content{formatCert, change.CrossSigned}
	}
	_, err := l.askWith(ctx, codes.POST, pathAnchors, in, noFormat)
	return err
}

// Status implements enrol.Device.
func (l *link) Status(ctx context.Context) (enrol.DeviceStatus, error) {
	body, err := l.ask(ctx, codes.GET, pathStatus, nil, formatCBOR)
	if err != nil {
		return enrol.DeviceStatus{}, err
	}
	out, err := decodeStatus(body)
	if err != nil {
		return enrol.DeviceStatus{}, fmt.Errorf("%s: %w", pathStatus, err)
	}
	return out, nil
}
