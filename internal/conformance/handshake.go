package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/pion/dtls/v3"
)

func handshakeRules() []rule {
	// seen makes a rule that looks at the first handshake.
	seen := func(test func(f *flight) verdict) func(context.Context, *tester) verdict {
		return func(_ context.Context, t *tester) verdict {
			if !t.first.hello {
				return skipped("no ServerHello was seen")
			}
			return test(t.first)
		}
	}
	return []rule{
		{name: "dtls.handshake", section: "3.1, RFC 6347", says: "a DTLS 1.2 handshake with both certificates completes", test: func(_ context.Context, t *tester) verdict {
			if t.offline != nil {
				return failed("%v", t.offline)
			}
			return verdict{}
		}},
		{name: "dtls.cookie", section: "3.1, RFC 6347 section 4.2.1", says: "the cookie exchange comes first", test: seen(func(f *flight) verdict {
			if !f.cookie {
				return failed("no HelloVerifyRequest: anybody can make it amplify traffic")
			}
			return verdict{}
		})},
		{name: "dtls.suite", section: "3.1", says: "ECDHE-ECDSA with AES-256-GCM is preferred, with AES-128-GCM allowed", test: seen(func(f *flight) verdict {
			if f.suite != dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
				return warned("it chose %s", f.suite)
			}
			return verdict{}
		})},
		{name: "dtls.ems", section: "3.1, RFC 7627", says: "the extended master secret is used", test: seen(func(f *flight) verdict {
			if !f.ems {
				return failed("the ServerHello lacks extended_master_secret")
			}
			return verdict{}
		})},
		{name: "dtls.cid", section: "3.1, RFC 9146", says: "a connection ID of 8 bytes, or none, is given out", test: seen(func(f *flight) verdict {
			switch f.cid {
			case 0:
				return passed("none: a NAT that forgets ends the connection")
			case 8:
				return passed("8 bytes")
			}
			return warned("%d bytes", f.cid)
		})},
		{name: "dtls.record", section: "8", says: "no record is longer than 2,048 bytes", test: seen(func(f *flight) verdict {
			if f.longest > maxRecord {
				return failed("a record of %d bytes", f.longest)
			}
			return verdict{}
		})},
		{name: "dtls.other-suite", section: "3.1", says: "other cipher suites are refused", test: refuses(func(*tester) (style, error) {
			s := proper()
			s.suites = []dtls.CipherSuiteID{dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}
			return s, nil
		}, "")},
		{name: "dtls.no-ems", section: "3.1, RFC 7627", says: "a client without extended master secret is refused", test: refuses(func(*tester) (style, error) {
			s := proper()
			s.ems = dtls.DisableExtendedMasterSecret
			return s, nil
		}, "")},
		{name: "dtls.no-certificate", section: "3.1", says: "a client without certificate is refused", test: refuses(func(*tester) (style, error) {
			s := proper()
			s.none = true
			return s, nil
		}, "")},
		{name: "dtls.stranger", section: "3.3 step 1", says: "a certificate without binding is refused with bad_certificate", test: refuses(func(*tester) (style, error) {
			return strangers(nil)
		}, "BadCertificate")},
		{name: "dtls.impostor", section: "3.3 step 8", says: "the CLM's binding around another key is refused with bad_certificate", test: refuses(func(t *tester) (style, error) {
			c, err := x509.ParseCertificate(t.Certificate.Certificate[0])
			if err != nil || len(c.Extensions) != 1 {
				return style{}, fmt.Errorf("the CLM's own certificate: %w", err)
			}
			return strangers(c.Extensions[0].Value)
		}, "BadCertificate")},
	}
}

// refuses makes a rule: such a handshake must not complete, and ends with the
// alert, if one is given.
func refuses(how func(*tester) (style, error), alert string) func(context.Context, *tester) verdict {
	return func(ctx context.Context, t *tester) verdict {
		if t.offline != nil {
			return skipped("%v", errOffline)
		}
		s, err := how(t)
		if err != nil {
			return skipped("%v", err)
		}
		c, _, err := t.connect(ctx, func() style { return s })
		if err == nil {
			defer c.close()
			// A device may learn too late that it has to refuse.
			if _, err = t.exchange(ctx, c, get("/status")); err == nil {
				return failed("it was accepted")
			}
		}
		if got := alertOf(err); alert != "" && got != alert {
			return warned("it was refused with %q", got)
		}
		return verdict{}
	}
}

// strangers makes a handshake key with a certificate around some binding.
func strangers(binding []byte) (style, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return style{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	if binding != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7250, 1}, Value: binding}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return style{}, fmt.Errorf("make a certificate: %w", err)
	}
	s := proper()
	s.certificate = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return s, nil
}
