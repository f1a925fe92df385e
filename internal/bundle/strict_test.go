package bundle_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

// Attack: whoever asks for a signature adds to a document what this release does
// not read and a later one may. What is signed is exactly what was understood.
func TestAttackDocumentsToBeSignedAreReadStrictly(t *testing.T) {
	master := setup(t, 1)
	one := device(t, master, "plc-0001")
	payload, err := one.Payload()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := bundle.ParsePayload(payload); err != nil || b.Identity != one.Identity {
		t.Fatal(err)
	}
	strict(t, payload, func(data []byte) error { _, err := bundle.ParsePayload(data); return err })

	set := bundle.AnchorSet{Epoch: 1, Serial: 1, Pattern: "*", Anchors: [][]byte{root(t, "ca")}}
	if payload, err = set.Payload(); err != nil {
		t.Fatal(err)
	}
	if s, err := bundle.ParseAnchorPayload(payload); err != nil || s.Pattern != "*" {
		t.Fatal(err)
	}
	strict(t, payload, func(data []byte) error { _, err := bundle.ParseAnchorPayload(data); return err })

	m := manifest(master)
	if payload, err = m.Content(); err != nil {
		t.Fatal(err)
	}
	if again, err := bundle.ParseManifestContent(payload, m.Params); err != nil || len(again.Rows) != len(m.Rows) {
		t.Fatal(err)
	}
	strict(t, payload, func(data []byte) error { _, err := bundle.ParseManifestContent(data, m.Params); return err })
}

func strict(t *testing.T, document []byte, parse func([]byte) error) {
	t.Helper()
	for what, changed := range map[string][]byte{
		"unknown key":  bytes.Replace(document, []byte(`{"version":1`), []byte(`{"version":1,"later":true`), 1),
		"key twice":    bytes.Replace(document, []byte(`{"version":1`), []byte(`{"version":2,"version":1`), 1),
		"white space":  bytes.Replace(document, []byte(`{"version":1`), []byte(`{ "version":1`), 1),
		"case":         bytes.Replace(document, []byte(`{"version":1`), []byte(`{"Version":1`), 1),
		"behind it":    append(bytes.Clone(document), ' '),
		"another kind": []byte(`{"version":1}`),
		"nothing":      nil,
	} {
		if bytes.Equal(changed, document) {
			t.Fatalf("%s: not changed", what)
		}
		if err := parse(changed); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := parse(bytes.Replace(document, []byte(`{"version":1`), []byte(`{"version":2`), 1)); !errors.Is(err, bundle.ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}
