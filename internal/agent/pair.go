package agent

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Files of a pair.
const (
	keyName   = "key.pem"   // as its KeyStore wants it: PKCS#8 (RFC 5958), or what a TPM can load
	csrName   = "csr.der"   // PKCS#10; until the activation
	caName    = "ca.pem"    // trust anchor of the enrolment
	chainName = "chain.pem" // the certificate and those of its issuers, without the anchor
	certName  = "cert.pem"  // the certificate; written last
)

// PEM types (RFC 7468).
const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// maxPairFile bounds each file of a pair in bytes.
const maxPairFile = 256 << 10

// createPair writes a pair without certificate.
func (s store) createPair(id enrol.ID, key keptKey, csr, ca []byte) error {
	if err := s.removePair(id); err != nil {
		return err
	}
	if err := s.files.EnsureDir(s.pair(id, "")); err != nil {
		return fmt.Errorf("make directory of pair: %w", err)
	}
	keyPEM := key.encode()
	defer clear(keyPEM)
	b := s.files.NewBatch()
	if err := b.Write(s.pair(id, keyName), keyPEM, keyfile.SecretPerm); err != nil {
		return err
	}
	if err := b.Write(s.pair(id, csrName), csr, keyfile.SecretPerm); err != nil {
		return err
	}
	if err := b.Write(s.pair(id, caName), encodeCertificates(ca), keyfile.SecretPerm); err != nil {
		return err
	}
	return b.Commit()
}

// completePair writes the certificate of a pair; cert.pem goes first if there
// is another one, and comes last, so that it is never beside a chain that is
// not its own.
func (s store) completePair(id enrol.ID, leaf *x509.Certificate, chain []*x509.Certificate) error {
	if err := s.files.RemoveDurable(s.pair(id, certName)); err != nil {
		return err
	}
	ders := [][]byte{leaf.Raw}
	for _, c := range chain {
		ders = append(ders, c.Raw)
	}
	b := s.files.NewBatch()
	if err := b.Write(s.pair(id, chainName), encodeCertificates(ders...), keyfile.SecretPerm); err != nil {
		return err
	}
	if err := b.Write(s.pair(id, certName), encodeCertificates(leaf.Raw), keyfile.SecretPerm); err != nil {
		return err
	}
	return b.Commit()
}

// readLeaf reads the certificate of a pair and checks that its key is there;
// fs.ErrNotExist says that the pair is not complete.
func (s store) readLeaf(id enrol.ID) (*x509.Certificate, error) {
	leaf, err := s.readCertificate(id, certName)
	if err != nil {
		return nil, err
	}
	key, err := s.readKey(id)
	if err != nil {
		return nil, err
	}
	defer clear(key.kept)
	if !matches(key, leaf) {
		return nil, fmt.Errorf("%s: %w: it is not for the private key", certName, ErrState)
	}
	return leaf, nil
}

// readChain reads the certificates of a complete pair, its own first. That the
// chain is another certificate's, or missing, is fs.ErrNotExist too: a power cut
// may leave one without the other, and such a pair is not complete.
func (s store) readChain(id enrol.ID) (chain []*x509.Certificate, err error) {
	leaf, err := s.readLeaf(id)
	if err != nil {
		return nil, err
	}
	chain, err = s.readCertificates(id, chainName)
	if err != nil {
		return nil, err
	}
	if !chain[0].Equal(leaf) {
		return nil, fmt.Errorf("%s is that of another certificate: %w", chainName, fs.ErrNotExist)
	}
	return chain, nil
}

// readCertificate reads the first certificate of a PEM file of a pair.
func (s store) readCertificate(id enrol.ID, name string) (*x509.Certificate, error) {
	certificates, err := s.readCertificates(id, name)
	if err != nil {
		return nil, err
	}
	return certificates[0], nil
}

// readCertificates reads a PEM file of a pair; it holds at least one.
func (s store) readCertificates(id enrol.ID, name string) ([]*x509.Certificate, error) {
	data, err := keyfile.ReadSecret(s.pair(id, name), maxPairFile)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil && len(out) > 0 {
			return out, nil
		}
		if block == nil || block.Type != pemCertificate {
			return nil, fmt.Errorf("%s: %w", name, ErrState)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, ErrState, err)
		}
		out, data = append(out, c), rest
	}
}

func encodeCertificates(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})...)
	}
	return out
}

// matches reports whether a certificate is for a private key.
func matches(key crypto.Signer, c *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(c.PublicKey)
}

// removePair removes a pair that the state does not name.
func (s store) removePair(id enrol.ID) error { return s.files.DiscardDir(s.pair(id, "")) }

// tidy removes the pairs that the state does not name, and the CSRs of those
// that were activated: a CSR may hold the CA's challenge. What a power cut
// brings back the next start removes, so nothing is synced. But if the pair
// goes that the link has just left, the link must not come back without it:
// services may look before the agent has started. left is what expose returned.
func (s store) tidy(st state, left string) error {
	keep := map[string]bool{}
	for _, p := range st.pairs() {
		keep[p.id().String()] = true
		if len(p.Request) > 0 {
			continue
		}
		if err := s.layer.Remove(s.pair(p.id(), csrName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	entries, err := os.ReadDir(s.path(pairsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if e.Name() == left {
			if err := s.layer.SyncDir(s.dir); err != nil {
				return err
			}
		}
		if err := s.files.DiscardDir(filepath.Join(s.path(pairsName), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// expose makes the link follow the state, and returns the name of the pair that
// it leaves, "" if it leaves none.
func (s store) expose(st state) (left string, err error) {
	link := s.path(activeName)
	present, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist) && st.Active == nil:
		return "", nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read link: %w", err)
	case st.Active == nil:
		return "", s.files.RemoveDurable(link)
	}
	if want := filepath.Join(pairsName, st.Active.id().String()); present != want {
		// Not synced, to spare the flash memory: a start of the agent makes the
		// link follow the state again.
		return filepath.Base(present), s.files.Link(want, link)
	}
	return "", nil
}

// sweep removes what interrupted writes left.
func (s store) sweep(st state) error {
	if err := s.files.Sweep(s.dir); err != nil {
		return err
	}
	for _, p := range st.pairs() {
		if err := s.files.Sweep(s.pair(p.id(), "")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
