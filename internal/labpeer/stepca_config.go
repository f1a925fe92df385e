package labpeer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// provisioner is the name of the only provisioner; it is part of the URL.
const provisioner = "edgeclm"

// aes256CBC is step-ca's encryptionAlgorithmIdentifier for AES-256 in CBC mode.
// Its own default is DES, which RFC 8894 no longer lists (section 2.9 makes AES
// mandatory).
const aes256CBC = 2

// stepConfig is the part of step-ca's ca.json that a lab needs.
type stepConfig struct {
	Root            string        `json:"root"`
	Cert            string        `json:"crt"`
	Key             string        `json:"key"`
	Address         string        `json:"address"`
	InsecureAddress string        `json:"insecureAddress"`
	DNSNames        []string      `json:"dnsNames"`
	Logger          stepLogger    `json:"logger"`
	Authority       stepAuthority `json:"authority"`
}

type stepLogger struct {
	Format string `json:"format"`
}

type stepAuthority struct {
	Backdate     string     `json:"backdate"`
	Provisioners []stepSCEP `json:"provisioners"`
}

// stepSCEP is a provisioner of type SCEP. The byte fields hold PEM, which JSON
// carries in base64.
type stepSCEP struct {
	Type                 string     `json:"type"`
	Name                 string     `json:"name"`
	Challenge            string     `json:"challenge,omitempty"`
	ForceCN              bool       `json:"forceCN"`
	IncludeRoot          bool       `json:"includeRoot"`
	MinimumRSABits       int        `json:"minimumPublicKeyLength"`
	DecrypterCertificate []byte     `json:"decrypterCertificate,omitempty"`
	DecrypterKeyPEM      []byte     `json:"decrypterKeyPEM,omitempty"`
	EncryptionAlgorithm  int        `json:"encryptionAlgorithmIdentifier"`
	Claims               stepClaims `json:"claims"`
}

type stepClaims struct {
	Min     string `json:"minTLSCertDuration"`
	Max     string `json:"maxTLSCertDuration"`
	Default string `json:"defaultTLSCertDuration"`
}

// writeStepCA fills dir with step-ca's configuration and keys, all 0600, and
// returns the path of the configuration.
func writeStepCA(dir string, h hierarchy, o StepCAOptions) (string, error) {
	scep := stepSCEP{
		Type:                "SCEP",
		Name:                provisioner,
		Challenge:           o.Challenge,
		ForceCN:             o.ForceCN,
		IncludeRoot:         o.IncludeRoot,
		MinimumRSABits:      o.MinimumRSABits,
		EncryptionAlgorithm: aes256CBC,
		Claims: stepClaims{
			Min:     min(o.Lifetime, time.Minute).String(),
			Max:     o.Lifetime.String(),
			Default: o.Lifetime.String(),
		},
	}
	if h.ra.cert != nil {
		key, err := h.ra.keyPEM()
		if err != nil {
			return "", err
		}
		scep.DecrypterCertificate, scep.DecrypterKeyPEM = h.ra.certPEM(), key
	}
	issuingKey, err := h.issuing.keyPEM()
	if err != nil {
		return "", err
	}
	config := stepConfig{
		Root: filepath.Join(dir, "root.pem"),
		Cert: filepath.Join(dir, "issuing.pem"),
		Key:  filepath.Join(dir, "issuing.key"),
		// The system chooses both ports; Listeners tells them.
		Address:         "127.0.0.1:0",
		InsecureAddress: "127.0.0.1:0",
		DNSNames:        []string{"127.0.0.1"},
		Logger:          stepLogger{Format: "text"},
		Authority:       stepAuthority{Backdate: o.Backdate.String(), Provisioners: []stepSCEP{scep}},
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode ca.json: %w", err)
	}
	path := filepath.Join(dir, "ca.json")
	for name, content := range map[string][]byte{
		config.Root: h.root.certPEM(),
		config.Cert: h.issuing.certPEM(),
		config.Key:  issuingKey,
		path:        text,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return "", fmt.Errorf("configure step-ca: %w", err)
		}
	}
	return path, nil
}
