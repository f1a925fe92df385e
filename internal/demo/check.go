package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// record is what the demo reads of a device's history.
type record struct {
	Enrolments []struct {
		ID    string `json:"id"`
		State string `json:"state"`
		Steps struct {
			CSRRequest    float64 `json:"csr_request"`
			KeyAndCSR     float64 `json:"key_and_csr"`
			Enrolment     float64 `json:"enrolment"`
			VerifyRequest float64 `json:"verify_request"`
			Verification  float64 `json:"verification"`
			Total         float64 `json:"total"`
		} `json:"steps_ms"`
	} `json:"enrolments"`
	Certificates []struct {
		Enrolment string `json:"enrolment"`
		Active    bool   `json:"active"`
		DER       string `json:"der"`
		Receipt   *struct {
			Identity   string `json:"identity"`
			Nonce      string `json:"nonce"`
			Possession string `json:"possession"`
			Statement  string `json:"statement"`
		} `json:"receipt"`
	} `json:"certificates"`
}

func (s *show) check(ctx context.Context) error {
	records := make([]record, len(s.devices))
	for i, d := range s.devices {
		out, err := s.capture(ctx, "clmctl --data-dir clm device history "+d.name+" -o json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &records[i]); err != nil {
			return fmt.Errorf("read the history of %s: %w", d.name, err)
		}
		if n := len(records[i].Certificates); n < 2 {
			return fmt.Errorf("%s has %d certificates on record, not those of the enrolment and of the renewal", d.name, n)
		}
	}
	s.timings(records)
	if err := s.checkChains(ctx, records); err != nil {
		return err
	}
	return s.checkStatements(records)
}

// timings shows the five steps of the paper.
func (s *show) timings(records []record) {
	s.title("How long it took",
		"The five steps of the paper, in milliseconds (clmctl device history NAME has them).")
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "DEVICE\tKEY\tRUN\tCSR REQUEST\tKEY, CSR\tENROLMENT\tVERIFY REQUEST\tVERIFICATION\tTOTAL\t")
	for i, r := range records {
		for j, e := range r.Enrolments {
			run := "enrol"
			if j > 0 {
				run = "renew"
			}
			x := e.Steps
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", s.devices[i].name, s.devices[i].key, run,
				x.CSRRequest, x.KeyAndCSR, x.Enrolment, x.VerifyRequest, x.Verification, x.Total)
		}
	}
	_ = w.Flush()
	s.say("%s", indent(b.Bytes()))
}

// checkChains checks every device's active certificate up to the root, and
// that it is the one on record.
func (s *show) checkChains(ctx context.Context, records []record) error {
	s.title("Check the chains",
		"What each device serves now, up to the CA's root, with OpenSSL.")
	_, err := labpeer.Find("openssl")
	withOpenSSL := err == nil
	if !withOpenSSL {
		s.say("   NOTICE: openssl is not installed; the chains are checked with Go alone.\n")
	}
	for i, d := range s.devices {
		certificate, chain := d.dir+"/active/cert.pem", d.dir+"/active/chain.pem"
		if withOpenSSL {
			if _, err := s.run(ctx, fmt.Sprintf("openssl verify -CAfile %s -untrusted %s %s", s.root, chain, certificate)); err != nil {
				return err
			}
		}
		leaf, err := s.verify(certificate, chain)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		active := ""
		for _, c := range records[i].Certificates {
			if c.Active {
				active = c.DER
			}
		}
		if active != base64.StdEncoding.EncodeToString(leaf.Raw) {
			return fmt.Errorf("%s serves another certificate than the inventory says", d.name)
		}
	}
	return nil
}

// verify checks a chain with crypto/x509.
func (s *show) verify(certificate, chain string) (*x509.Certificate, error) {
	leaf, err := s.readCertificates(certificate)
	if err != nil {
		return nil, err
	}
	others, err := s.readCertificates(chain)
	if err != nil {
		return nil, err
	}
	root, err := s.readCertificates(s.root)
	if err != nil {
		return nil, err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root[0])
	for _, c := range others {
		intermediates.AddCert(c)
	}
	_, err = leaf[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: s.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return leaf[0], err
}

func (s *show) readCertificates(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", name)
	}
	return out, nil
}

// checkStatements checks what an auditor would, trusting neither the CLM nor
// its database: for each certificate the device's two signatures, with the
// PKG's public parameters alone.
func (s *show) checkStatements(records []record) error {
	s.title("Check the statements",
		`"I, this identity, made this key and verified this certificate": with pkg/params.json alone.`)
	data, err := os.ReadFile(s.path("pkg/params.json"))
	if err != nil {
		return err
	}
	var params ibc.Params
	if err := json.Unmarshal(data, &params); err != nil {
		return err
	}
	for i, r := range records {
		for _, c := range r.Certificates {
			if c.Receipt == nil {
				return fmt.Errorf("a certificate of %s has no statement", s.devices[i].name)
			}
			der, err := base64.StdEncoding.DecodeString(c.DER)
			if err != nil {
				return err
			}
			leaf, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			id, err := enrol.ParseID(c.Enrolment)
			if err != nil {
				return err
			}
			receipt, err := newReceipt(leaf, c.Receipt.Identity, c.Receipt.Nonce, c.Receipt.Possession, c.Receipt.Statement)
			if err != nil {
				return err
			}
			if err := enrol.CheckReceipt(&params, id, leaf, receipt); err != nil {
				return fmt.Errorf("%s, certificate %s: %w", s.devices[i].name, enrol.Describe(leaf).Serial, err)
			}
			s.say("     %s  %s: OK\n", receipt.Identity, enrol.Describe(leaf).Serial)
		}
	}
	return nil
}

// newReceipt reads a receipt from its text forms.
func newReceipt(leaf *x509.Certificate, identity, nonce, possession, statement string) (enrol.Receipt, error) {
	r := enrol.Receipt{Certificate: sha256.Sum256(leaf.Raw), SPKI: sha256.Sum256(leaf.RawSubjectPublicKeyInfo)}
	id, err := ibc.ParseIdentity(identity)
	if err != nil {
		return r, err
	}
	r.Identity = id
	drawn, err := hex.DecodeString(nonce)
	if err == nil && len(drawn) != len(r.Nonce) {
		err = errors.New("the nonce has a wrong length")
	}
	if err != nil {
		return r, err
	}
	r.Nonce = [enrol.NonceSize]byte(drawn)
	if r.Possession, err = hex.DecodeString(possession); err != nil {
		return r, err
	}
	r.Statement, err = hex.DecodeString(statement)
	return r, err
}
