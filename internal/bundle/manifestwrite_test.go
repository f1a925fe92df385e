package bundle_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// What is written row by row is, byte for byte, what encoding/json makes of the
// whole, and is signed as it.
func TestManifestIsWrittenAsOneDocument(t *testing.T) {
	master := setup(t, 1)
	for _, rows := range []int{0, 1, 3} {
		m := manifest(master)
		row := m.Rows[0]
		m.Rows = nil
		for range rows {
			row.Address = "<&>" + row.Address
			m.Rows = append(m.Rows, row)
		}
		content, err := json.Marshal(struct {
			Version int               `json:"version"`
			Ledger  bundle.LedgerHead `json:"ledger"`
			Rows    []bundle.Row      `json:"rows"`
		}{bundle.Version, m.Ledger, m.Rows})
		if err != nil {
			t.Fatal(err)
		}
		signature, err := master.Sign(ibc.KindManifest, content)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := json.MarshalIndent(struct {
			Version   int             `json:"version"`
			Params    *ibc.Params     `json:"params"`
			Content   json.RawMessage `json:"content"`
			Signature string          `json:"signature"`
		}{bundle.Version, m.Params, content, hex.EncodeToString(signature)}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.Content(); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d rows: content %s, want %s: %v", rows, got, content, err)
		}
		for what, signer := range map[string]bundle.Signer{"stream": master, "whole": onlySigner{master}} {
			if got, err := m.Marshal(signer); err != nil || string(got) != string(whole)+"\n" {
				t.Errorf("%d rows, %s:\n%s\nwant\n%s\n%v", rows, what, got, whole, err)
			}
		}
	}
}

// onlySigner hides SignStream.
type onlySigner struct{ signer bundle.Signer }

func (s onlySigner) Sign(kind ibc.Kind, document []byte) ([]byte, error) {
	return s.signer.Sign(kind, document)
}

// A writer that fails ends the writing.
func TestManifestWriteFails(t *testing.T) {
	signed, err := manifest(setup(t, 1)).Sign(setup(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	_ = in.Close()
	if _, err := signed.WriteTo(out); err == nil {
		t.Error("no error")
	}
}
