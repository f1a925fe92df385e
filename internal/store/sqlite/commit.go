package sqlite

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Commit implements enrol.Store. A change that breaks a rule of the inventory
// wraps store.ErrInvalid, one of an unknown device enrol.ErrNotFound.
func (s *Store) Commit(ctx context.Context, c enrol.Change) error {
	p, err := prepareChange(c)
	if err == nil {
		err = s.writer.do(ctx, p.apply)
	}
	if err != nil {
		return fmt.Errorf("commit enrolment %s of %s: %w", c.Enrolment.ID, c.Enrolment.Device, err)
	}
	c.Enrolment.Revision++
	return nil
}

// change is a Change with what can be worked out before the writer's turn.
type change struct {
	enrol.Change
	certificate *certificate // nil before the enrolment has one
	chain       []byte       // the SHA-256 of its certificates, joined
}

// certificate is a row of the table of certificates.
type certificate struct {
	fleet.Certificate
	issuerDER []byte
	der       []byte
}

func (c *certificate) columns() []column {
	return []column{
		{"sha256", digest{&c.SHA256}},
		{"serial", textOf(&c.Serial)},
		{"subject", textOf(&c.Subject)},
		{"issuer", textOf(&c.Issuer)},
		{"not_before", timestamp{&c.NotBefore}},
		{"not_after", timestamp{&c.NotAfter}},
		{"issuer_der", blob{&c.issuerDER}},
		{"der", blob{&c.der}},
	}
}

func prepareChange(c enrol.Change) (*change, error) {
	if c.Device != nil && c.Device.Name != c.Enrolment.Device {
		return nil, fmt.Errorf("%w: the row of another device, %s", store.ErrInvalid, c.Device.Name)
	}
	p := &change{Change: c}
	if der := c.Enrolment.Certificate; len(der) > 0 {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: the certificate: %w", store.ErrInvalid, err)
		}
		p.certificate = &certificate{enrol.Describe(leaf), leaf.RawIssuer, der}
	}
	for _, der := range c.Enrolment.Chain {
		sum := sha256.Sum256(der)
		p.chain = append(p.chain, sum[:]...)
	}
	return p, nil
}

// apply makes the change, in the writer's transaction.
func (c *change) apply(ctx context.Context, t *tx) error {
	r, err := t.record(ctx, c.Enrolment.Device)
	if err != nil {
		return err
	}
	if !r.device.InService() {
		return r.outOfService()
	}
	if err := c.putEnrolment(ctx, t, r); err != nil {
		return err
	}
	if err := c.putDevice(ctx, t, r); err != nil {
		return err
	}
	if n := len(c.Events); n > 0 {
		if err := t.exec(ctx, "UPDATE fleet SET tried_at = ?", timestamp{&c.Events[n-1].At}); err != nil {
			return err
		}
	}
	for i := range c.Events {
		if err := c.putEvent(ctx, t, r, &c.Events[i]); err != nil {
			return err
		}
	}
	return nil
}

// putEvent stores an event, and what follows from it.
func (c *change) putEvent(ctx context.Context, t *tx, r *record, e *enrol.Event) error {
	if err := t.putEvent(ctx, e); err != nil {
		return err
	}
	switch e.Kind {
	case enrol.EventProgress: // the device has proved its identity
		return t.exec(ctx, markReached, timestamp{&e.At}, r.id)
	case enrol.EventCompleted:
		if err := t.putPublicKey(ctx, r); err != nil {
			return err
		}
		return t.putSteps(ctx, c.Enrolment.Steps)
	}
	return nil
}

func (t *tx) record(ctx context.Context, name string) (*record, error) {
	statement, err := t.prepare(ctx, selectDevice+"WHERE name = ?")
	if err != nil {
		return nil, err
	}
	r, err := t.reader.read(statement.QueryRowContext(ctx, name))
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, explain(err))
	}
	return r, nil
}

// putEnrolment compares the revision and swaps the row. That the device has no
// other open enrolment is for a unique index to see.
func (c *change) putEnrolment(ctx context.Context, t *tx, r *record) error {
	certificateID, err := c.putCertificates(ctx, t)
	if err != nil {
		return err
	}
	e := c.Enrolment
	args := values(enrolmentColumns(e), certificateID, c.chain, e.ID[:], r.id)
	if e.Revision == 0 {
		return t.exec(ctx, insertEnrolment, args...)
	}
	n, err := t.execCount(ctx, updateEnrolment, append(args, e.Revision)...)
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: revision %d is not the stored one", enrol.ErrConflict, e.Revision)
	}
	return err
}

// putCertificates stores the certificate and its chain unless they are known,
// and returns the former's row, nil without one.
func (c *change) putCertificates(ctx context.Context, t *tx) (any, error) {
	for i, der := range c.Enrolment.Chain {
		sum := c.chain[i*sha256.Size : (i+1)*sha256.Size]
		if err := t.exec(ctx, "INSERT INTO ca_certificate (sha256, der) VALUES (?, ?) ON CONFLICT DO NOTHING", sum, der); err != nil {
			return nil, err
		}
	}
	if c.certificate == nil {
		return nil, nil
	}
	if err := t.exec(ctx, insertCertificate, values(c.certificate.columns(), c.Enrolment.ID[:])...); err != nil {
		return nil, err
	}
	return t.certificateID(ctx, c.certificate.SHA256)
}

var insertCertificate = "INSERT INTO certificate (" + nameList(new(certificate).columns()) +
	", enrolment) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"

func (t *tx) certificateID(ctx context.Context, hash [32]byte) (id int64, err error) {
	err = t.queryRow(ctx, "SELECT id FROM certificate WHERE sha256 = ?", []any{hash[:]}, &id)
	return id, err
}

const selectOpen = "SELECT EXISTS (SELECT 1 FROM enrolment WHERE device = ? AND " + openState + ")"

var updateDevice = "UPDATE device SET " + assignments(new(record).decisions()) + " WHERE id = ?"

// putDevice updates what an enrolment decides of the device's row.
func (c *change) putDevice(ctx context.Context, t *tx, r *record) error {
	was, wasOpen := r.certificate.SHA256, r.open
	if err := t.queryRow(ctx, selectOpen, []any{r.id}, flag{&r.open}); err != nil {
		return err
	}
	if c.Device == nil {
		if r.open == wasOpen {
			return nil
		}
		return t.exec(ctx, "UPDATE device SET open = ? WHERE id = ?", flag{&r.open}, r.id)
	}
	if err := r.decide(c.Device); err != nil {
		return err
	}
	if err := t.exec(ctx, updateDevice, values(r.decisions(), r.id)...); err != nil {
		return err
	}
	if r.certificate.SHA256 == was {
		return nil
	}
	return t.putTenure(ctx, r, c.Enrolment.UpdatedAt)
}

// decide takes over from d what an enrolment decides.
func (r *record) decide(d *fleet.Device) error {
	if id := d.Identity; id.Compare(r.device.Identity) > 0 {
		if err := r.accept(id); err != nil {
			return err
		}
	}
	r.certificate = fleet.Certificate{}
	if d.Certificate != nil {
		r.certificate = *d.Certificate
	}
	r.device.Quarantined = r.device.Quarantined || d.Quarantined
	r.device.EnrolledAt, r.device.RenewAt = d.EnrolledAt, d.RenewAt
	r.device.Attempts, r.device.NextAttempt, r.device.LastError = d.Attempts, d.NextAttempt, d.LastError
	return nil
}

// accept takes over a later identity that the device proved.
func (r *record) accept(id ibc.Identity) error {
	if id.Role != ibc.RoleDevice || id.Name != r.device.Name {
		return fmt.Errorf("%w: %s is not an identity of %s", store.ErrInvalid, id, r.device.Name)
	}
	r.device.Identity, r.device.PublicKey = id, nil
	return nil
}

const updatePublicKey = "UPDATE device SET public_key = ? WHERE id = ?"

// putPublicKey works out a device's public key if it is not on record yet.
func (t *tx) putPublicKey(ctx context.Context, r *record) error {
	if r.device.PublicKey != nil {
		return nil
	}
	q := r.device.Identity.PublicKey()
	return t.exec(ctx, updatePublicKey, q[:], r.id)
}

// putTenure notes that the device's active certificate has changed.
func (t *tx) putTenure(ctx context.Context, r *record, at time.Time) error {
	var id any
	if r.certificate.SHA256 != [32]byte{} {
		// The foreign key has seen that it is there.
		known, err := t.certificateID(ctx, r.certificate.SHA256)
		if err != nil {
			return err
		}
		id = known
	}
	return t.exec(ctx, "INSERT INTO tenure (device, certificate, since) VALUES (?, ?, ?)", r.id, id, timestamp{&at})
}

// eventColumns are those of the table that are the event's own.
func eventColumns(e *enrol.Event) []column {
	return []column{
		{"at", timestamp{&e.At}},
		{"state", textOf(&e.State)},
		{"kind", textOf(&e.Kind)},
		{"class", textOf(&e.Class)},
		{"party", textOf(&e.By)},
		{"message", textOf(&e.Message)},
		{"took", integerOf(&e.Took)},
	}
}

var insertEvent = "INSERT INTO event (" + nameList(eventColumns(&enrol.Event{})) + ", enrolment, device) VALUES (?, ?, ?, ?, ?, ?, ?, ?, " +
	"(SELECT id FROM device WHERE name = ?))"

// putEvent stores an event of a device, perhaps one of its enrolments.
func (t *tx) putEvent(ctx context.Context, e *enrol.Event) error {
	var id any
	if e.Enrolment != (enrol.ID{}) {
		id = e.Enrolment[:]
	}
	if err := t.exec(ctx, insertEvent, values(eventColumns(e), id, e.Device)...); err != nil {
		return err
	}
	return t.exec(ctx, addTally, textOf(&e.Kind), textOf(&e.Class))
}
