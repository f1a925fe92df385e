package clmctl

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/scep"
)

// authority is a CA as ca.json keeps it.
type authority struct {
	Name         string            `json:"name"`
	URL          string            `json:"url"`
	Anchor       []byte            `json:"anchor"`       // DER
	Certificates [][]byte          `json:"certificates"` // pinned CA and RA certificates, DER
	Capabilities scep.Capabilities `json:"capabilities"`
	// ChallengeFile names the file in the data directory that holds the
	// challenge; "" if the CA wants none. Each challenge has a file of its own,
	// so that ca.json changes CA and challenge in one step.
	ChallengeFile string    `json:"challenge_file,omitempty"`
	AddedAt       time.Time `json:"added_at"`
}

// authorityJSON is the form of ca.json. The first CA is the one in use. During
// a rollover the second is the one that takes its place. The failover CAs are
// asked, in their order, when the one in use cannot be had.
type authorityJSON struct {
	Version     int         `json:"version"`
	Authorities []authority `json:"authorities"`
	Rollover    *rollover   `json:"rollover,omitempty"` // nil: none is under way
	Failover    []authority `json:"failover,omitempty"`
}

// all returns every CA of the file: those in use, and the failover ones.
func (f authorityJSON) all() []authority { return slices.Concat(f.Authorities, f.Failover) }

// inUse returns the CAs that devices are enrolled at when nothing is wrong: one,
// or two during a rollover.
func (f authorityJSON) inUse() []authority {
	if f.Rollover == nil {
		return f.Authorities[:1]
	}
	return f.Authorities
}

const (
	maxFailover      = 7
	authorityVersion = 1
	maxAuthority     = 1 << 20 // bytes
	maxChallenge     = 4096    // bytes
	challengePrefix  = "challenge-"
)

// errNoCA: no CA was added yet.
var errNoCA = errors.New("no CA was added yet")

// authority returns the CA in use.
func (d dataDir) authority() (authority, error) {
	f, err := d.authorities()
	if err != nil {
		return authority{}, err
	}
	return f.Authorities[0], nil
}

// authorities returns what ca.json holds.
func (d dataDir) authorities() (authorityJSON, error) {
	data, err := keyfile.ReadSecret(d.path(authorityFile), maxAuthority)
	if errors.Is(err, fs.ErrNotExist) {
		return authorityJSON{}, clikit.WithHint(clikit.WithCode(errNoCA, clikit.ExitUsage),
			"clmctl ca add URL --challenge-file FILE --fingerprint sha256:HEX")
	}
	if err != nil {
		return authorityJSON{}, err
	}
	f, err := parseAuthorities(data)
	if err != nil {
		return authorityJSON{}, fmt.Errorf("%s: %w", d.path(authorityFile), err)
	}
	return f, nil
}

// parseAuthorities parses ca.json.
func parseAuthorities(data []byte) (authorityJSON, error) {
	var f authorityJSON
	if err := json.Unmarshal(data, &f); err != nil {
		return f, err
	}
	if f.Version != authorityVersion {
		return f, fmt.Errorf("version %d, this release reads %d", f.Version, authorityVersion)
	}
	if len(f.Authorities) == 0 {
		return f, errors.New("it lists no CA")
	}
	if len(f.Failover) > maxFailover {
		return f, fmt.Errorf("%d failover CAs, at most %d are allowed", len(f.Failover), maxFailover)
	}
	names := map[string]bool{}
	for _, a := range f.Authorities {
		names[a.Name] = true
	}
	for _, a := range f.Failover {
		if names[a.Name] {
			return f, fmt.Errorf("two CAs have the name %.80q", a.Name)
		}
		names[a.Name] = true
	}
	for _, a := range f.all() {
		if a.ChallengeFile != "" && (filepath.Base(a.ChallengeFile) != a.ChallengeFile || !strings.HasPrefix(a.ChallengeFile, challengePrefix)) {
			return f, fmt.Errorf("%.80q is not the name of a challenge file", a.ChallengeFile)
		}
	}
	return f, f.checkRollover()
}

// saveAuthority makes a CA the one in use, or with failover the last one that is
// asked in its place, with its challenge (nil: none), and removes the
// challenges of CAs that are gone. A CA of the same name is replaced. The caller
// holds the lock.
func (d dataDir) saveAuthority(a authority, challenge []byte, failover bool) error {
	f, err := d.authorities()
	if err != nil && (failover || !errors.Is(err, errNoCA)) {
		return err
	}
	sameName := func(other authority) bool { return other.Name == a.Name }
	if failover && slices.ContainsFunc(f.Authorities, sameName) {
		return clikit.WithHint(clikit.Usage("CA %s is the one in use", a.Name), "give the other CA another name: --name NAME")
	}
	if err := d.keepChallenge(&a, challenge); err != nil {
		return err
	}
	f.Failover = slices.DeleteFunc(f.Failover, sameName)
	if failover {
		f.Failover = append(f.Failover, a)
	} else {
		f.Authorities = []authority{a}
	}
	if len(f.Failover) > maxFailover {
		return clikit.WithHint(clikit.Usage("there are %d failover CAs already", maxFailover), "remove one: clmctl ca remove NAME")
	}
	return d.saveAuthorities(f)
}

// removeFailover forgets a failover CA and its challenge.
func (d dataDir) removeFailover(name string) (err error) {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	f, err := d.authorities()
	if err != nil {
		return err
	}
	if _, err := f.find(name); err != nil {
		return err
	}
	sameName := func(ca authority) bool { return ca.Name == name }
	if slices.ContainsFunc(f.Authorities, sameName) {
		return clikit.WithHint(clikit.Usage("CA %s is in use", name), "clmctl ca add, or clmctl ca rollover, puts another one in its place")
	}
	f.Failover = slices.DeleteFunc(f.Failover, sameName)
	return d.saveAuthorities(f)
}

// keepChallenge writes the challenge of a CA (nil: none) to a file of its own.
func (d dataDir) keepChallenge(a *authority, challenge []byte) error {
	a.ChallengeFile = ""
	if challenge == nil {
		return nil
	}
	var suffix [8]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return err
	}
	a.ChallengeFile = challengePrefix + hex.EncodeToString(suffix[:])
	return keyfile.CreateDurable(d.path(a.ChallengeFile), challenge, keyfile.SecretPerm)
}

// saveAuthorities writes ca.json and removes the challenges that no CA in it
// uses. The caller holds the lock.
func (d dataDir) saveAuthorities(f authorityJSON) error {
	f.Version = authorityVersion
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return fmt.Errorf("encode CA: %w", err)
	}
	if err := keyfile.WriteDurable(d.path(authorityFile), append(data, '\n'), keyfile.SecretPerm); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, a := range f.all() {
		keep[a.ChallengeFile] = true
	}
	return d.dropChallenges(keep)
}

// dropChallenges removes the challenges that no CA uses any more.
func (d dataDir) dropChallenges(keep map[string]bool) error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), challengePrefix) && !keep[e.Name()] {
			if err := (keyfile.Files{}).RemoveDurable(d.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// challenge returns how to obtain the CA's challenge, nil if it wants none.
// It is read for each enrolment, so that it is in memory only then.
func (d dataDir) challenge(a authority) func(context.Context, string) ([]byte, error) {
	if a.ChallengeFile == "" {
		return nil
	}
	return func(context.Context, string) ([]byte, error) {
		return keyfile.ReadSecret(d.path(a.ChallengeFile), maxChallenge)
	}
}

// anchor returns the trust anchor.
func (ca authority) anchor() (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(ca.Anchor)
	if err != nil {
		return nil, fmt.Errorf("the trust anchor of CA %s does not parse: %w", ca.Name, err)
	}
	return c, nil
}
