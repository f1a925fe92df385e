package scep

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// ErrNotSCEP is wrapped when the server answered, but not as a SCEP service
// does.
var ErrNotSCEP = errors.New("no SCEP service answers there")

// CAInfo is what a SCEP service says of itself. Nothing of it is authentic
// before SelectAnchor has held it against a fingerprint.
type CAInfo struct {
	Capabilities Capabilities
	Certificates []*x509.Certificate // as sent
	Warnings     []string            // what the administrator should know
	Date         time.Time           // the CA's clock, zero if not told
}

// Media types of GetCACert (RFC 8894 section 4.2.1).
const (
	typeCA   = "application/x-x509-ca-cert"
	typeCARA = "application/x-x509-ca-ra-cert"
)

// Fetch asks a SCEP service for its capabilities and certificates. Errors wrap
// ErrURL, enrol.ErrCAUnavailable or ErrNotSCEP.
func Fetch(ctx context.Context, url string, o HTTPOptions, now func() time.Time) (CAInfo, error) {
	e, err := newEndpoint(url, o, now)
	if err != nil {
		return CAInfo{}, err
	}
	defer e.http.CloseIdleConnections()
	caps, err := e.get(ctx, opGetCACaps, "")
	if err != nil {
		return CAInfo{}, err
	}
	info := CAInfo{Date: caps.date}
	// A server without GetCACaps is an old one that can nothing.
	if caps.status == http.StatusOK {
		info.Capabilities = parseCapabilities(caps.body)
	}
	info.Warnings = info.Capabilities.warnings()
	certificates, err := e.get(ctx, opGetCACert, "")
	if err != nil {
		return CAInfo{}, err
	}
	if certificates.status != http.StatusOK {
		return CAInfo{}, fmt.Errorf("%w: %w", ErrNotSCEP, e.failure(opGetCACert, certificates))
	}
	info.Certificates, err = parseCACert(certificates.kind, certificates.body)
	return info, err
}

// parseCACert parses the answer to GetCACert: one certificate, or those of CA
// and RA as PKCS#7. Errors wrap ErrNotSCEP.
func parseCACert(kind string, body []byte) ([]*x509.Certificate, error) {
	switch kind {
	case typeCA:
		c, err := x509.ParseCertificate(body)
		if err != nil {
			return nil, fmt.Errorf("%w: the CA certificate does not parse: %w", ErrNotSCEP, err)
		}
		return []*x509.Certificate{c}, nil
	case typeCARA:
		certificates, err := pkimessage.ParseCertsOnly(body)
		if err != nil {
			return nil, fmt.Errorf("%w: the CA and RA certificates: %w", ErrNotSCEP, err)
		}
		return certificates, nil
	}
	return nil, fmt.Errorf("%w: GetCACert is answered with %q instead of certificates", ErrNotSCEP, clean(kind))
}
