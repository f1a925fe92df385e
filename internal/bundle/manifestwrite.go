package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// StreamSigner is a Signer that need not have a document in memory, but hashes
// it as it is written; *ibc.MasterSecret is one. What the holders of shares sign
// they have before them, and it is handed to Sign whole.
type StreamSigner interface {
	SignStream(kind ibc.Kind, document io.WriterTo) ([]byte, error)
}

// SignedManifest is a manifest with its signature: a file to be written, a row
// at a time. The manifest must not change before.
type SignedManifest struct {
	manifest  *Manifest
	signature []byte
}

// Sign signs the manifest.
func (m *Manifest) Sign(signer Signer) (*SignedManifest, error) {
	signature, err := m.sign(signer)
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	return &SignedManifest{m, signature}, nil
}

func (m *Manifest) sign(signer Signer) ([]byte, error) {
	if s, ok := signer.(StreamSigner); ok {
		return s.SignStream(ibc.KindManifest, manifestWriter{m})
	}
	content, err := m.Content()
	if err != nil {
		return nil, err
	}
	return signer.Sign(ibc.KindManifest, content)
}

// manifestWriter writes the content that is signed, without white space.
type manifestWriter struct{ *Manifest }

// WriteTo implements io.WriterTo.
func (m manifestWriter) WriteTo(w io.Writer) (int64, error) {
	frame, err := json.Marshal(manifestContent{Version, m.Ledger, m.Rows[:0]})
	if err != nil {
		return 0, fmt.Errorf("encode manifest: %w", err)
	}
	return m.writeRows(w, frame, []byte(`"rows":`), "", json.Marshal)
}

// WriteTo implements io.WriterTo: indented JSON of less than MaxManifestSize
// bytes, else the error wraps ErrFormat.
func (s *SignedManifest) WriteTo(w io.Writer) (int64, error) {
	m := s.manifest
	content, err := json.Marshal(manifestContent{Version, m.Ledger, m.Rows[:0]})
	if err != nil {
		return 0, fmt.Errorf("encode manifest: %w", err)
	}
	frame, err := json.MarshalIndent(manifestFile{Version, m.Params, content, s.signature}, "", " ")
	if err != nil {
		return 0, fmt.Errorf("encode manifest: %w", err)
	}
	const column = "\n   "
	return m.writeRows(w, append(frame, '\n'), []byte(`"rows": `), column, func(row any) ([]byte, error) {
		return json.MarshalIndent(row, column[1:], " ")
	})
}

// writeRows writes frame, JSON whose list of rows is empty, with the rows in
// this list: each behind before, the end of the list one column less far in.
func (m *Manifest) writeRows(w io.Writer, frame, key []byte, before string, encode func(any) ([]byte, error)) (int64, error) {
	out := &counted{w: w}
	list := append(bytes.Clone(key), "[]"...)
	start, end, ok := bytes.Cut(frame, list)
	if len(m.Rows) == 0 || !ok {
		return out.write(frame)
	}
	if _, err := out.write(append(bytes.Clone(start), append(key, '[')...)); err != nil {
		return out.n, err
	}
	for i, r := range m.Rows {
		row, err := encode(r)
		if err != nil {
			return out.n, fmt.Errorf("encode manifest: %w", err)
		}
		separator := before
		if i > 0 {
			separator = "," + before
		}
		if _, err := out.write(append([]byte(separator), row...)); err != nil {
			return out.n, err
		}
	}
	if before != "" {
		before = before[:len(before)-1]
	}
	return out.write(append([]byte(before+"]"), end...))
}

// counted writes up to MaxManifestSize bytes.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) write(p []byte) (int64, error) {
	if c.n+int64(len(p)) > MaxManifestSize {
		return c.n, fmt.Errorf("encode manifest: %w: more than %d bytes", ErrFormat, MaxManifestSize)
	}
	n, err := c.w.Write(p)
	c.n += int64(n)
	return c.n, err
}
