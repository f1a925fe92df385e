package clmctl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// stage is how far a rollover from one CA to the next has come.
type stage string

// The stages, in order. Each ends when all devices have acknowledged it.
const (
	stageTrustBoth stage = "trust-both"     // devices learn to trust the new CA beside the old one
	stageIssueNew  stage = "issue-from-new" // certificates come from the new CA
	stageDropOld   stage = "drop-old"       // devices forget the old CA
)

// rollover is what ca.json says of one that is under way.
type rollover struct {
	Stage     stage     `json:"stage"`
	StartedAt time.Time `json:"started_at"`
	ChangedAt time.Time `json:"changed_at"` // when the stage began
	// Statements are anchor statements of the PKG; a device gets the latest
	// that is for its name. CrossSigned is the new CA's root, signed by the old
	// one, in DER. The first stage has the one or the other.
	Statements  [][]byte `json:"statements,omitempty"`
	CrossSigned []byte   `json:"cross_signed,omitempty"`
}

// checkRollover reports what makes no sense in ca.json.
func (f authorityJSON) checkRollover() error {
	r := f.Rollover
	if r == nil {
		return nil
	}
	if len(f.Authorities) != 2 || f.Authorities[0].Name == f.Authorities[1].Name {
		return errors.New("a rollover is under way, but not between two CAs")
	}
	if r.Stage != stageTrustBoth && r.Stage != stageIssueNew && r.Stage != stageDropOld {
		return fmt.Errorf("the stage %.40q of the rollover is not known", r.Stage)
	}
	if (len(r.Statements) == 0) == (r.CrossSigned == nil) {
		return errors.New("a rollover is by statements of the PKG, or by a cross-signed root")
	}
	return nil
}

// statement is an anchor statement with its bytes.
type statement struct {
	*bundle.AnchorSet
	raw []byte
}

// turnover is a rollover with what follows from it.
type turnover struct {
	rollover
	old, next  authority
	statements []statement
	oldAnchors [][32]byte // SHA-256 of what devices may list for the old CA
	newAnchors [][32]byte // and for the new one
}

// turnover reads the rollover of ca.json.
func (f authorityJSON) turnover(params []*ibc.Params) (*turnover, error) {
	t := &turnover{rollover: *f.Rollover, old: f.Authorities[0], next: f.Authorities[1]}
	for _, raw := range t.Statements {
		set, _, err := bundle.ParseAnchorsOf(raw, params)
		if err != nil {
			return nil, err
		}
		t.statements = append(t.statements, statement{set, raw})
	}
	var err error
	if t.oldAnchors, err = t.anchorsOf(t.old); err != nil {
		return nil, err
	}
	if t.newAnchors, err = t.anchorsOf(t.next); err != nil {
		return nil, err
	}
	if t.CrossSigned != nil {
		t.newAnchors = append(t.newAnchors, sha256.Sum256(t.CrossSigned))
	}
	return t, nil
}

// anchorsOf returns the SHA-256 of the anchors that a device may list for a CA:
// its own, and those of the statements to which it chains.
func (t *turnover) anchorsOf(ca authority) ([][32]byte, error) {
	anchor, err := ca.anchor()
	if err != nil {
		return nil, err
	}
	out := [][32]byte{sha256.Sum256(ca.Anchor)}
	for _, s := range t.statements {
		for _, der := range s.Anchors {
			if !bytes.Equal(der, ca.Anchor) && leadsTo(der, anchor) {
				out = append(out, sha256.Sum256(der))
			}
		}
	}
	return out, nil
}

func leadsTo(anchor []byte, ca *x509.Certificate) bool {
	_, err := enrol.VerifyChain(anchor, ca, nil)
	return err == nil
}

// statementFor returns the latest statement for a device, nil if there is none.
func (t *turnover) statementFor(device string) *statement {
	var found *statement
	for i, s := range t.statements {
		if s.Pattern.Matches(device) && (found == nil || s.Serial > found.Serial) {
			found = &t.statements[i]
		}
	}
	return found
}

// change is what a device needs to come along.
func (t *turnover) change(device string) enrol.AnchorChange {
	if s := t.statementFor(device); s != nil {
		return enrol.AnchorChange{Statement: s.raw}
	}
	return enrol.AnchorChange{CrossSigned: t.CrossSigned}
}

// delivery is the change as it is queued for a device.
func (t *turnover) delivery(device string, now time.Time) enrol.Delivery {
	if s := t.statementFor(device); s != nil {
		return enrol.NewDelivery(device, enrol.DeliverAnchors, s.Serial, s.raw, now)
	}
	return enrol.NewDelivery(device, enrol.DeliverCrossSigned, uint64(max(t.StartedAt.Unix(), 1)), t.CrossSigned, now)
}

// fits reports whether what a device says of its anchors is what the stage
// wants.
func (t *turnover) fits(s enrol.Sighting) bool {
	if t.Stage == stageDropOld && s.Lists(t.oldAnchors...) {
		return false
	}
	return t.accepted(s) && s.Lists(t.newAnchors...)
}

// accepted reports whether a device has accepted its statement, or a later one.
func (t *turnover) accepted(s enrol.Sighting) bool {
	want := t.statementFor(s.Device)
	return want == nil || s.Serial >= want.Serial
}

// issuesFromNew reports whether a device's next certificate comes from the new
// CA: only if the device is known to trust it.
func (t *turnover) issuesFromNew(s enrol.Sighting, d fleet.Device) bool {
	switch t.Stage {
	case stageIssueNew:
		return s.Of(d) && s.Lists(t.newAnchors...)
	case stageDropOld:
		return true
	}
	return false
}

// issued reports whether a certificate comes from a CA.
func (ca authority) issued(leaf []byte, chain [][]byte) bool {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return false
	}
	var others []*x509.Certificate
	for _, der := range append(append([][]byte{}, chain...), ca.Certificates...) {
		if other, err := x509.ParseCertificate(der); err == nil {
			others = append(others, other)
		}
	}
	_, err = enrol.VerifyChain(ca.Anchor, c, others)
	return err == nil
}

// checkStatements holds the statements of a stage to what the stage is about:
// each lists the new CA, and the old one if and only if it shall stay.
func (t *turnover) checkStatements(wantOld, wantNew bool) error {
	for _, s := range t.statements {
		for _, want := range []struct {
			ca   authority
			list bool
		}{{t.old, wantOld}, {t.next, wantNew}} {
			anchor, err := want.ca.anchor()
			if err != nil {
				return err
			}
			lists := false
			for _, der := range s.Anchors {
				lists = lists || bytes.Equal(der, want.ca.Anchor) || leadsTo(der, anchor)
			}
			if lists && !want.list {
				return fmt.Errorf("%w: statement %d lists the anchor of CA %s, which this step takes away", errStatement, s.Serial, want.ca.Name)
			}
			if !lists && want.list {
				return fmt.Errorf("%w: statement %d does not list the anchor of CA %s (sha256:%x)", errStatement, s.Serial, want.ca.Name, sha256.Sum256(want.ca.Anchor))
			}
		}
	}
	return nil
}

// checkCrossSigned demands that the cross-signed root has the name and key of
// the new CA's anchor, and the signature of the old one's.
func (t *turnover) checkCrossSigned() error {
	root, err := x509.ParseCertificate(t.CrossSigned)
	if err != nil {
		return clikit.Usage("--cross-signed: %w", err)
	}
	old, err := t.old.anchor()
	if err != nil {
		return err
	}
	next, err := t.next.anchor()
	if err != nil {
		return err
	}
	if !bytes.Equal(root.RawSubject, next.RawSubject) || !bytes.Equal(root.RawSubjectPublicKeyInfo, next.RawSubjectPublicKeyInfo) {
		return clikit.Usage("--cross-signed: it has not the name and the key of the anchor of CA %s", t.next.Name)
	}
	if err := root.CheckSignatureFrom(old); err != nil {
		return clikit.Usage("--cross-signed: the anchor of CA %s has not signed it: %w", t.old.Name, err)
	}
	return nil
}

// errStatement is wrapped when a statement is not what a step needs.
var errStatement = errors.New("not the statement for this step")
