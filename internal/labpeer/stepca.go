package labpeer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// StepCAOptions say what a step-ca shall be like. The zero value accepts
// requests without a challenge and issues for a day.
type StepCAOptions struct {
	// Challenge is the password that a request must carry; "" accepts any.
	Challenge string
	// SeparateRA has SCEP messages encrypted to, and answered by, an RSA
	// registration authority of its own, below an ECDSA issuing CA. Without it
	// the issuing CA is RSA and does both.
	SeparateRA bool
	// IncludeRoot has GetCACert send the root too.
	IncludeRoot bool
	// ForceCN fills an empty common name from the alternative names.
	ForceCN bool
	// Lifetime is that of each certificate, from the moment of issue; 0 is 24 h.
	Lifetime time.Duration
	// Backdate is how long before the moment of issue a certificate begins.
	Backdate time.Duration
	// MinimumRSABits is the shortest RSA key certified, a multiple of 8; 0 is
	// 2048.
	MinimumRSABits int
}

// StepCARunning is a step-ca that runs on this machine's loopback.
type StepCARunning struct {
	// URL is where it answers SCEP, over HTTP.
	URL string
	// Root and Issuing are the certificates of its two tiers.
	Root, Issuing *x509.Certificate
	// Recipient is the certificate that requests are encrypted to and answers
	// signed by: Issuing, or the separate RA's.
	Recipient *x509.Certificate
	// LogFile is the path of its log.
	LogFile string

	process *Process
}

// startTimeout is far above what step-ca needs (a second on a small machine).
const startTimeout = 30 * time.Second

// StartStepCA makes keys, certificates and configuration in dir, which must be
// empty or not exist, and runs the binary there until Stop, until ctx is done
// or until this process ends. It returns once the CA answers.
func StartStepCA(ctx context.Context, dir, binary string, o StepCAOptions) (*StepCARunning, error) {
	o.Lifetime = cmp.Or(o.Lifetime, 24*time.Hour)
	o.MinimumRSABits = cmp.Or(o.MinimumRSABits, 2048)
	if o.Lifetime < time.Second || o.Backdate < 0 {
		return nil, fmt.Errorf("start step-ca: lifetime %v or backdate %v out of range", o.Lifetime, o.Backdate)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start step-ca: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start step-ca: %w", err)
	}
	h, err := newHierarchy(o.SeparateRA, time.Now())
	if err != nil {
		return nil, fmt.Errorf("start step-ca: %w", err)
	}
	config, err := writeStepCA(dir, h, o)
	if err != nil {
		return nil, err
	}
	ca := &StepCARunning{
		Root:      h.root.cert,
		Issuing:   h.issuing.cert,
		Recipient: h.issuing.cert,
		LogFile:   filepath.Join(dir, "step-ca.log"),
	}
	if o.SeparateRA {
		ca.Recipient = h.ra.cert
	}
	if err := ca.run(ctx, dir, binary, config); err != nil {
		return nil, err
	}
	return ca, nil
}

// run starts the program and finds its URL.
func (ca *StepCARunning) run(ctx context.Context, dir, binary, config string) error {
	log, err := os.OpenFile(ca.LogFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("start step-ca: %w", err)
	}
	defer func() { _ = log.Close() }() // the program has its own descriptor
	// STEPPATH keeps the program away from a user's own step configuration.
	ca.process, err = StartProcess(ctx, binary, []string{config}, []string{"STEPPATH=" + dir}, log)
	if err != nil {
		return err
	}
	if ca.URL, err = ca.await(ctx); err != nil {
		ca.Stop()
		return err
	}
	return nil
}

// Stop ends the CA and waits for its end; its files stay.
func (ca *StepCARunning) Stop() { ca.process.Stop() }

// await asks until the CA answers, and returns its URL.
func (ca *StepCARunning) await(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-ca.process.Done():
			return "", fmt.Errorf("step-ca ended at its start: %s", ca.lastLog())
		case <-ctx.Done():
			return "", fmt.Errorf("step-ca does not answer: %w: %s", ctx.Err(), ca.lastLog())
		case <-again.C:
		}
		// An error here is that of a process that has just ended, seen above.
		listeners, _ := Listeners(ca.process.PID())
		for _, address := range listeners {
			url := fmt.Sprintf("http://%s/scep/%s", address, provisioner)
			if ca.answers(ctx, url) == nil {
				return url, nil
			}
		}
	}
}

var errNotOurs = errors.New("the answer does not hold the CA's certificate")

// answers asks for the CA's certificate (RFC 8894, section 4.2). The other of
// the two listeners speaks HTTPS and fails.
func (ca *StepCARunning) answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"?operation=GetCACert", http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if !bytes.Contains(body, ca.Recipient.Raw) {
		return errNotOurs
	}
	return nil
}

// lastLog returns the last line of the log.
func (ca *StepCARunning) lastLog() string {
	text, err := os.ReadFile(ca.LogFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
