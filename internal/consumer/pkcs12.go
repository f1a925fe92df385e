package consumer

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"
)

// encodePKCS12 makes a PKCS#12 of a pair (RFC 7292): PBES2 with AES-256-CBC,
// MAC with SHA-256, which OpenSSL 1.1.1, Java 8u301 and later read.
func encodePKCS12(p pair, password []byte) ([]byte, error) {
	block, _ := pem.Decode(p.key)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the private key is not in PKCS#8 (it lives in a TPM?), so it cannot be in keystore.p12: leave that out")
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The parser's own words may quote the key.
		return nil, errors.New("keystore.p12: the private key does not parse")
	}
	var chain []*x509.Certificate
	for rest := p.chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("keystore.p12: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("keystore.p12: there is no certificate")
	}
	if !utf8.Valid(password) {
		return nil, errors.New("keystore.p12: the password is not UTF-8 text")
	}
	data, err := pkcs12.Modern2023.Encode(key, chain[0], chain[1:], string(password))
	if err != nil {
		return nil, fmt.Errorf("keystore.p12: %w", err)
	}
	return data, nil
}
