package consumer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
)

// Files of a set.
const (
	KeyFile       = "key.pem"       // the private key as the agent keeps it: PKCS#8, or TSS2 PRIVATE KEY of a TPM
	CertFile      = "cert.pem"      // the certificate
	ChainFile     = "chain.pem"     // the certificate and those of its issuers, without the anchor
	FullChainFile = "fullchain.pem" // the same, under the name that other ACME and SCEP clients use
	CAFile        = "ca.pem"        // the trust anchor
	CombinedFile  = "combined.pem"  // key, certificate and those of its issuers
	PKCS12File    = "keystore.p12"  // the same as PKCS#12 (RFC 7292)
)

// Default modes.
const (
	DefaultMode         fs.FileMode = 0o644
	DefaultKeyMode      fs.FileMode = 0o600
	DefaultGroupKeyMode fs.FileMode = 0o640 // where a group is named
)

// Bounds of a configuration.
const (
	MaxConsumers = 16
	maxPath      = 4096
)

// ErrInvalid is wrapped by every error about a consumer that can never be
// served as it is described.
var ErrInvalid = errors.New("invalid consumer")

// Consumer is a service of the device that uses the active pair.
type Consumer struct {
	Name string // [a-z0-9][a-z0-9-]{0,31}; "" for the one that has a hook alone
	// Dir is where its files appear; "": none of its own, its hook gets the
	// paths of the agent's active pair.
	Dir   string
	Files []string          // of Dir; nil: key.pem, cert.pem, chain.pem, ca.pem
	Links map[string]string // further absolute paths, by the file of Dir that they lead to

	Owner, Group  string      // of the files, names or numbers; "": the agent's
	Mode, KeyMode fs.FileMode // of files without and with the private key; 0: the defaults

	// PKCS12Password is the file with the password of keystore.p12; "": no
	// keystore.p12.
	PKCS12Password string

	Hook []string // run after each switch; nil: none
}

func knownFiles() []string {
	return []string{KeyFile, CertFile, ChainFile, FullChainFile, CAFile, CombinedFile}
}

func defaultFiles() []string { return []string{KeyFile, CertFile, ChainFile, CAFile} }

// private reports whether a file holds the private key.
func private(name string) bool {
	return name == KeyFile || name == CombinedFile || name == PKCS12File
}

// names returns the files that the consumer gets.
func (c Consumer) names() []string {
	names := slices.Clone(c.Files)
	if names == nil {
		names = defaultFiles()
	}
	if c.PKCS12Password != "" {
		names = append(names, PKCS12File)
	}
	return names
}

// mode returns the permissions of one of the consumer's files.
func (c Consumer) mode(name string) fs.FileMode {
	switch {
	case !private(name) && c.Mode != 0:
		return c.Mode
	case !private(name):
		return DefaultMode
	case c.KeyMode != 0:
		return c.KeyMode
	case c.Group != "":
		return DefaultGroupKeyMode
	}
	return DefaultKeyMode
}

// Validate checks what does not depend on the state of the machine: a user or
// directory that is missing today fails an activation, not the agent's start.
// Errors wrap ErrInvalid.
func (c Consumer) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w %q: %s", ErrInvalid, c.Name, fmt.Sprintf(format, args...))
	}
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(c.Name) {
		return bad("the name is not 1 to 32 lower-case letters, digits and hyphens")
	}
	if c.Dir == "" {
		if c.Files != nil || c.Links != nil || c.Owner+c.Group != "" || c.Mode|c.KeyMode != 0 || c.PKCS12Password != "" {
			return bad("files need a dir")
		}
		if len(c.Hook) == 0 {
			return bad("it has neither dir nor hook")
		}
		return nil
	}
	if !absolute(c.Dir) || c.Dir == "/" {
		return bad("dir %.100q is not a clean absolute path", c.Dir)
	}
	if c.Files != nil && len(c.Files) == 0 {
		return bad("the list of files is empty")
	}
	for i, name := range c.Files {
		if !slices.Contains(knownFiles(), name) || slices.Contains(c.Files[:i], name) {
			return bad("files: %.40q is none of %v, or given twice", name, knownFiles())
		}
	}
	if err := c.validateLinks(bad); err != nil {
		return err
	}
	if c.PKCS12Password != "" && !absolute(c.PKCS12Password) {
		return bad("the password file %.100q is not a clean absolute path", c.PKCS12Password)
	}
	if c.Mode&^0o644 != 0 {
		return bad("mode %04o gives more than to read the files (0644)", c.Mode)
	}
	if c.KeyMode&^0o640 != 0 {
		return bad("key mode %04o lets others than the owner and the group read the private key (0640)", c.KeyMode)
	}
	return nil
}

func (c Consumer) validateLinks(bad func(string, ...any) error) error {
	taken := map[string]bool{}
	for name, path := range c.Links {
		if !slices.Contains(c.names(), name) {
			return bad("links: %.40q is none of its files %v", name, c.names())
		}
		if !absolute(path) || taken[path] || filepath.Dir(path) == c.Dir {
			return bad("links: %.100q is not a clean absolute path elsewhere, or given twice", path)
		}
		taken[path] = true
	}
	return nil
}

func absolute(path string) bool {
	return len(path) <= maxPath && filepath.IsAbs(path) && filepath.Clean(path) == path
}
