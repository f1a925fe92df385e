package pkgoffline

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

const maxRecipientFile = 64 << 10

// requests turns flags and arguments into requests; every mistake in them is a
// usage error.
func (a *app) requests(o issueOptions, names []string) ([]pkgen.Request, error) {
	if err := o.check(names); err != nil {
		return nil, err
	}
	var requests []pkgen.Request
	var err error
	if o.all {
		return o.reissue()
	}
	if o.from != "" {
		requests, err = a.requestsFrom(o)
	} else {
		requests, err = o.requestsFor(names)
	}
	return requests, clikit.WithCode(err, clikit.ExitUsage)
}

// check refuses flags and arguments that do not go together.
func (o issueOptions) check(names []string) error {
	one := o.address != "" || o.names != "" || o.recipientFile != ""
	switch {
	case o.all && (o.from != "" || len(names) > 0 || one || o.labels != ""):
		return clikit.Usage("--all takes neither names nor --from, and addresses, labels, names and recipients as they are on record")
	case len(o.except) > 0 && !o.all:
		return clikit.Usage("--except goes with --all")
	case !o.all && (o.from != "") == (len(names) > 0):
		return clikit.WithHint(clikit.Usage("give names, --from FILE.csv or --all"), "see pkg-offline issue --help")
	case o.from != "" && (one || o.labels != ""):
		return clikit.Usage("with --from, addresses, labels, names and recipients are columns of the list")
	case len(names) > 1 && one:
		return clikit.Usage("--address, --names and --recipient-file are for one name, %d were given", len(names))
	}
	if err := o.checkRole(); err != nil {
		return err
	}
	return o.checkSecrets()
}

// checkRole is check for what only devices have.
func (o issueOptions) checkRole() error {
	role := ibc.Role(o.role)
	switch {
	case role != ibc.RoleDevice && role != ibc.RoleCLM:
		return clikit.Usage("--role %q is neither dev nor clm", o.role)
	case role == ibc.RoleDevice && len(o.clms) == 0 && !o.all:
		return clikit.WithHint(clikit.Usage("a device needs the name of at least one CLM"), "give --clm NAME")
	case role == ibc.RoleCLM && o.from != "":
		return clikit.Usage("--from lists devices; name a CLM on the command line")
	case role == ibc.RoleCLM && (len(o.clms) > 0 || len(o.anchorFiles) > 0 || o.names != ""):
		return clikit.Usage("--clm, --anchor-file and --names are for devices")
	}
	return nil
}

// checkSecrets is check for who opens the bundles, and where passphrases come
// from.
func (o issueOptions) checkSecrets() error {
	stdin := 0
	for _, path := range append(o.keys.paths(), o.bundlePassphrase.file, o.from) {
		if path == "-" {
			stdin++
		}
	}
	switch {
	case stdin > 1:
		return clikit.Usage("standard input can be only one of --passphrase-file, --bundle-passphrase-file and --from")
	case o.bundlePassphrase.given() && o.askBundlePassphrase:
		return clikit.Usage("--ask-bundle-passphrase excludes --bundle-passphrase-file and --generate-bundle-passphrase")
	case o.recipientFile != "" && o.toPassphrase():
		return clikit.Usage("--recipient-file and a bundle passphrase exclude each other")
	case o.sheet.path != "" && (o.recipientFile != "" || o.toPassphrase()):
		return clikit.Usage("--pin-sheet excludes --recipient-file and bundle passphrases")
	case o.sheet.path != "" && ibc.Role(o.role) == ibc.RoleCLM:
		return clikit.Usage("--pin-sheet is for devices")
	case !o.all && o.from == "" && o.recipientFile == "" && !o.withoutRecipient():
		return clikit.WithHint(clikit.Usage("nobody to seal the bundle to"),
			"give --recipient-file FILE (what devagent recipient or clmctl recipient printed), --pin-sheet FILE, --generate-bundle-passphrase FILE or --bundle-passphrase-file FILE")
	}
	return nil
}

// withoutRecipient reports whether a bundle that has no recipient can be sealed.
func (o issueOptions) withoutRecipient() bool {
	return o.toPassphrase() || o.sheet.path != ""
}

// toPassphrase reports whether bundles that have no recipient are sealed to one
// passphrase.
func (o issueOptions) toPassphrase() bool {
	return o.bundlePassphrase.given() || o.askBundlePassphrase
}

func (o issueOptions) requestsFor(names []string) ([]pkgen.Request, error) {
	labels, err := fleet.ParseLabels(o.labels)
	if err != nil {
		return nil, fmt.Errorf("--labels: %w", err)
	}
	certNames, err := fleet.ParseNames(o.names)
	if err != nil {
		return nil, fmt.Errorf("--names: %w", err)
	}
	address, err := pkgen.NormaliseAddress(o.address)
	if err != nil {
		return nil, fmt.Errorf("--address: %w", err)
	}
	var recipient *bundle.Recipient
	if o.recipientFile != "" {
		if recipient, err = readRecipient(o.recipientFile); err != nil {
			return nil, err
		}
	}
	requests := make([]pkgen.Request, len(names))
	for i, name := range names {
		if err := ibc.ValidateName(name); err != nil {
			return nil, err
		}
		requests[i] = pkgen.Request{
			Role: ibc.Role(o.role), Name: name, Generation: o.generation, Recipient: recipient,
			Address: address, Labels: labels, Names: certNames,
		}
	}
	return requests, nil
}

func (a *app) requestsFrom(o issueOptions) (requests []pkgen.Request, err error) {
	in, folder := a.In, "."
	var list io.ReaderAt // that can be read again
	if o.from != "-" {
		f, err := os.Open(o.from)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			list = listFile(o.from)
		}
		in, folder = io.Reader(f), filepath.Dir(o.from)
	}
	var refused error
	err = pkgen.EachLine(in, func(l pkgen.Line) error {
		var r pkgen.Request
		if r, refused = o.requestOf(l, list, folder); refused == nil {
			requests = append(requests, r)
		}
		return refused
	})
	if err != nil && refused == nil {
		err = fmt.Errorf("%s: %w", o.from, err)
	}
	return requests, err
}

// requestOf asks for what a line lists. Of a list that can be read again only
// the hashes of its recipients are kept: their texts have two kilobytes each.
func (o issueOptions) requestOf(l pkgen.Line, list io.ReaderAt, folder string) (pkgen.Request, error) {
	r := pkgen.Request{
		Role: ibc.RoleDevice, Name: l.Name, Generation: o.generation,
		Address: l.Address, Labels: l.Labels, Names: l.Names, Where: fmt.Sprintf("%s: line %d", o.from, l.Number),
	}
	if l.Recipient == "" {
		if o.withoutRecipient() {
			return r, nil
		}
		return r, clikit.WithHint(fmt.Errorf("%s: %s has no recipient", r.Where, l.Name),
			"fill in the column recipient, or give --pin-sheet FILE or --bundle-passphrase-file FILE")
	}
	to, err := lineRecipient(l.Recipient, folder)
	if err != nil {
		return r, fmt.Errorf("%s: %s: %w", r.Where, l.Name, err)
	}
	if list != nil && isRecipient(l.Recipient) {
		elsewhere := to.Elsewhere(l.RecipientIn(list))
		to = &elsewhere
	}
	r.Recipient = to
	return r, nil
}

// listFile is a list that is opened when something of it is needed.
type listFile string

// ReadAt implements io.ReaderAt.
func (l listFile) ReadAt(p []byte, off int64) (n int, err error) {
	f, err := os.Open(string(l))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.ReadAt(p, off)
}

func isRecipient(text string) bool { return strings.HasPrefix(text, "age1") }

// lineRecipient is a recipient, or the file that holds it.
func lineRecipient(text, folder string) (*bundle.Recipient, error) {
	if isRecipient(text) {
		r, err := bundle.ParseRecipient(text)
		return &r, err
	}
	if !filepath.IsAbs(text) {
		text = filepath.Join(folder, text)
	}
	return readRecipient(text)
}

func readRecipient(path string) (*bundle.Recipient, error) {
	data, err := keyfile.Read(path, maxRecipientFile)
	if err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	r, err := bundle.ParseRecipientFile(data)
	if err != nil {
		return nil, fmt.Errorf("recipient file %s: %w", path, err)
	}
	return &r, nil
}

// readAnchors reads CA certificates in PEM (one per file) or DER.
func readAnchors(files []string) ([][]byte, error) {
	var anchors [][]byte
	for _, file := range files {
		data, err := keyfile.Read(file, 4*bundle.MaxAnchorSize)
		if err != nil {
			return nil, err
		}
		if block, rest := pem.Decode(data); block != nil {
			if block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
				return nil, fmt.Errorf("%s: not one certificate in PEM", file)
			}
			data = block.Bytes
		}
		cert, err := x509.ParseCertificate(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("%s: not the certificate of a CA", file)
		}
		anchors = append(anchors, data)
	}
	return anchors, nil
}

// reissue asks for all of a role again.
func (o issueOptions) reissue() ([]pkgen.Request, error) {
	ledger, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return nil, err
	}
	known, err := pkgen.ReadRecipients(o.dir)
	if err != nil {
		return nil, err
	}
	requests, without, err := ledger.Reissue(ibc.Role(o.role), known, o.except)
	if err != nil {
		return nil, err
	}
	if len(without) > 0 && !o.withoutRecipient() {
		return nil, clikit.WithHint(fmt.Errorf("%w: of %d of %d no recipient is on record: %s", errNoRecipient, len(without), len(requests), strings.Join(without[:min(len(without), 10)], ", ")),
			"leave them out with --except and list them with their recipients (--from), or seal theirs to PINs (--pin-sheet)")
	}
	for i := range requests {
		requests[i].Generation = o.generation
	}
	return requests, nil
}

var errNoRecipient = errors.New("nobody to seal all bundles to")
