package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"strings"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// enrolmentColumns are those of the table that are e's own; Revision is set by
// the store, ID and Device identify the row, Certificate and Chain stand
// elsewhere.
func enrolmentColumns(e *enrol.Enrolment) []column {
	nonce := &e.Receipt.Nonce
	return []column{
		{"identity", identity{&e.Identity}},
		{"state", textOf(&e.State)},
		{"ca", textOf(&e.CA)},
		{"key", textOf(&e.Key)},
		{"subject", document{&e.Subject}},
		{"sans", document{&e.SANs}},
		{"enclosed", flag{&e.Enclosed}},
		{"key_usage", document{&e.KeyUsage}},
		{"ext_key_usage", document{&e.ExtKeyUsage}},
		{"confirmation", integerOf(&e.Confirmation)},
		{"csr_sha256", digest{&e.CSRHash}},
		{"spki_sha256", digest{&e.SPKIHash}},
		{"transaction_id", textOf(&e.TransactionID)},
		{"submitted_at", timestamp{&e.SubmittedAt}},
		{"pending", flag{&e.Pending}},
		{"issued_at", timestamp{&e.IssuedAt}},
		{"ca_date", timestamp{&e.CADate}},
		{"receipt_identity", identity{&e.Receipt.Identity}},
		{"receipt_nonce", digest{nonce}},
		{"receipt_algorithm", textOf(&e.Receipt.Algorithm)},
		{"receipt_possession", blob{&e.Receipt.Possession}},
		{"receipt_statement", blob{&e.Receipt.Statement}},
		{"receipt_params_id", digest{&e.Receipt.ParamsID}},
		{"receipt_certificate", digest{&e.Receipt.Certificate}},
		{"receipt_spki", digest{&e.Receipt.SPKI}},
		{"step_csr_request", integerOf(&e.Steps.CSRRequest)},
		{"step_key_and_csr", integerOf(&e.Steps.KeyAndCSR)},
		{"step_enrolment", integerOf(&e.Steps.Enrolment)},
		{"step_verify_request", integerOf(&e.Steps.VerifyRequest)},
		{"step_verification", integerOf(&e.Steps.Verification)},
		{"rollbacks", integerOf(&e.Rollbacks)},
		{"tries", integerOf(&e.Tries)},
		{"next_try", timestamp{&e.NextTry}},
		{"last_error", textOf(&e.LastError)},
		{"failed_by", textOf(&e.FailedBy)},
		{"created_at", timestamp{&e.CreatedAt}},
		{"updated_at", timestamp{&e.UpdatedAt}},
	}
}

// The statements on enrolments, made of their columns.
var (
	insertEnrolment = func() string {
		columns := enrolmentColumns(&enrol.Enrolment{})
		return "INSERT INTO enrolment (" + nameList(columns) + ", certificate, chain, id, device, revision) VALUES (" +
			strings.Repeat("?, ", len(columns)) + "?, ?, ?, ?, 1)"
	}()
	updateEnrolment = "UPDATE enrolment SET " + assignments(enrolmentColumns(&enrol.Enrolment{})) +
		", certificate = ?, chain = ?, revision = revision + 1 WHERE id = ? AND device = ? AND revision = ?"
	selectEnrolment = "SELECT enrolment.id, (SELECT name FROM device WHERE device.id = enrolment.device), revision, chain, (SELECT der FROM certificate WHERE certificate.id = enrolment.certificate), " +
		nameList(enrolmentColumns(&enrol.Enrolment{})) + " FROM enrolment "
)

const (
	// openState is the condition of the partial index enrolment_open.
	openState   = "state NOT IN ('completed', 'failed')"
	whereOpenOf = "WHERE device = (SELECT id FROM device WHERE name = ?) AND " + openState

	selectSerialOwner = "SELECT enrolment FROM certificate WHERE serial = ? AND issuer_der = ? ORDER BY id LIMIT 1"
)

// OpenEnrolment implements enrol.Store.
func (s *Store) OpenEnrolment(ctx context.Context, device string) (*enrol.Enrolment, error) {
	found, err := s.enrolments(ctx, selectEnrolment+whereOpenOf, device)
	if err == nil && len(found) == 0 {
		err = enrol.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open enrolment of %s: %w", device, explain(err))
	}
	return found[0], nil
}

// EnrolmentByCertificate implements enrol.Store.
func (s *Store) EnrolmentByCertificate(ctx context.Context, certificate [32]byte) (*enrol.Enrolment, error) {
	found, err := s.enrolments(ctx, selectEnrolment+"WHERE enrolment.id = (SELECT enrolment FROM certificate WHERE sha256 = ?)", certificate[:])
	if err == nil && len(found) == 0 {
		err = enrol.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("enrolment of certificate %x: %w", certificate, explain(err))
	}
	return found[0], nil
}

// enrolments runs a query that begins with selectEnrolment.
func (v *view) enrolments(ctx context.Context, query string, args ...any) ([]*enrol.Enrolment, error) {
	var (
		out    []*enrol.Enrolment
		chains [][]byte
	)
	err := v.scan(ctx, query, args, func(rows *sql.Rows) error {
		var (
			e     = &enrol.Enrolment{}
			id    []byte
			chain []byte
		)
		into := []any{&id, &e.Device, &e.Revision, &chain, blob{&e.Certificate}}
		if err := rows.Scan(append(into, values(enrolmentColumns(e))...)...); err != nil {
			return err
		}
		e.ID = enrol.ID(id)
		out, chains = append(out, e), append(chains, chain)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, e := range out {
		if e.Chain, err = v.chain(ctx, chains[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// chain loads the certificates whose hashes are joined.
func (v *view) chain(ctx context.Context, hashes []byte) ([][]byte, error) {
	var out [][]byte
	for ; len(hashes) >= sha256.Size; hashes = hashes[sha256.Size:] {
		var der []byte
		if err := v.queryRow(ctx, "SELECT der FROM ca_certificate WHERE sha256 = ?", []any{hashes[:sha256.Size]}, blob{&der}); err != nil {
			return nil, fmt.Errorf("load chain: %w", err)
		}
		out = append(out, der)
	}
	return out, nil
}

// SerialOwner implements enrol.Store.
func (s *Store) SerialOwner(ctx context.Context, issuer []byte, serial string) (enrol.ID, error) {
	var id []byte
	err := s.queryRow(ctx, selectSerialOwner, []any{serial, issuer}, &id)
	if err != nil {
		return enrol.ID{}, fmt.Errorf("owner of serial number %s: %w", serial, explain(err))
	}
	return enrol.ID(id), nil
}
