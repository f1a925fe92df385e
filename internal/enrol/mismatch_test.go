package enrol_test

import (
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// TestCAMismatches: authenticated answers that do not fit end the enrolment,
// and never reach the device.
func TestCAMismatches(t *testing.T) {
	var previous [][]byte
	for name, tt := range map[string]struct {
		alter func(*world) func(*x509.Certificate, *enrol.Answer)
		class enrol.Class
		text  string
	}{
		"another key's certificate": {func(w *world) func(*x509.Certificate, *enrol.Answer) {
			return func(_ *x509.Certificate, a *enrol.Answer) { a.Certificates = [][]byte{w.ca.Root.Raw} }
		}, enrol.ClassCAMismatch, "another key"},
		"the previous one again": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(_ *x509.Certificate, a *enrol.Answer) { a.Certificates = previous }
		}, enrol.ClassCAMismatch, "another key"},
		"a used serial number": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(c *x509.Certificate, _ *enrol.Answer) { c.SerialNumber.SetInt64(101) }
		}, enrol.ClassCAMismatch, "serial number 65 again"},
		"an expired one": {func(w *world) func(*x509.Certificate, *enrol.Answer) {
			return func(c *x509.Certificate, _ *enrol.Answer) { c.NotAfter = w.now.Add(-time.Second) }
		}, enrol.ClassCAMismatch, "expired"},
		"a foreign issuer": {func(w *world) func(*x509.Certificate, *enrol.Answer) {
			foreign := newCA(w, "lab CA")
			return func(c *x509.Certificate, a *enrol.Answer) {
				c.SerialNumber.SetInt64(999)
				spki := must[any](w.t)(x509.ParsePKIXPublicKey(mustSPKI(w)))
				a.Certificates = [][]byte{foreign.Root.Raw, must[[]byte](w.t)(x509.CreateCertificate(rand.Reader, c, foreign.Root, spki, foreign.Key))}
			}
		}, enrol.ClassCAMismatch, "foreign issuer"},
		"other names": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(c *x509.Certificate, _ *enrol.Answer) { c.DNSNames = []string{"plc-0002"} }
		}, enrol.ClassCLMVerify, "alternative names"},
		"another common name": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(c *x509.Certificate, _ *enrol.Answer) { c.Subject.CommonName = "plc-0002" }
		}, enrol.ClassCLMVerify, "common name"},
		"a CA certificate": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(c *x509.Certificate, _ *enrol.Answer) { c.IsCA, c.BasicConstraintsValid = true, true }
		}, enrol.ClassCLMVerify, "CA certificate"},
		"nothing": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(_ *x509.Certificate, a *enrol.Answer) { a.Certificates = [][]byte{} }
		}, enrol.ClassCLMVerify, "0 certificates"},
		"garbage": {func(*world) func(*x509.Certificate, *enrol.Answer) {
			return func(_ *x509.Certificate, a *enrol.Answer) { a.Certificates = [][]byte{{0x30, 0}} }
		}, enrol.ClassCLMVerify, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.renewed(false)
			before := w.row()
			previous = [][]byte{w.device.Active.Certificate, w.ca.Root.Raw}
			w.now = w.now.Add(24 * time.Hour)
			w.ca.Alter = tt.alter(w)
			w.expect(false, enrol.OutcomeFailed, tt.class, tt.text)
			after := w.row()
			if after.Certificate.SHA256 != before.Certificate.SHA256 || w.device.Calls["verify"] != 1 || after.Attempts != 1 {
				t.Errorf("row %+v", after)
			}
		})
	}
}

func mustSPKI(w *world) []byte {
	return must[[]byte](w.t)(x509.MarshalPKIXPublicKey(&w.device.Pending.Key.PublicKey))
}
