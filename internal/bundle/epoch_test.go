package bundle_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// laterEpoch returns a bundle of epoch 2 with the statement that leads there
// from the PKG of setup.
func laterEpoch(t testing.TB, m *ibc.MasterSecret, name string) (*bundle.Bundle, *ibc.MasterSecret) {
	t.Helper()
	later, err := ibc.Setup(rand.NewChaCha8([32]byte{200}), 2)
	if err != nil {
		t.Fatal(err)
	}
	step, err := m.Succeed(later.Params())
	if err != nil {
		t.Fatal(err)
	}
	b := device(t, m, name)
	b.Identity = ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 2, Generation: 1}
	b.Params, b.Epochs = later.Params(), []ibc.Succession{step}
	if b.Key, err = later.Extract(b.Identity); err != nil {
		t.Fatal(err)
	}
	return b, later
}

// The statements travel beside the payload: they survive sealing, and the
// signed bytes are the same without them.
func TestEpochs(t *testing.T) {
	m := setup(t, 1)
	o, to := opener(t)
	b, later := laterEpoch(t, m, "plc-0001")
	sealed, hash, err := bundle.Seal(b, later, to)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundle.Open(sealed, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Follows(m.Params()); err != nil {
		t.Error(err)
	}
	if err := got.Follows(later.Params()); err != nil {
		t.Errorf("from its own epoch: %v", err)
	}
	if err := got.Follows(setup(t, 2).Params()); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("from another PKG: %v", err)
	}
	b.Epochs = nil
	if _, without, err := bundle.Seal(b, later, to); err != nil || without != hash {
		t.Errorf("the payload differs without the statements: %v", err)
	}
	if err := b.Follows(m.Params()); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("without statements: %v", err)
	}
	early := device(t, m, "plc-0001")
	if err := early.Follows(later.Params()); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("an earlier epoch: %v", err)
	}
}

func TestMalformedEpochsAreRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	b, later := laterEpoch(t, m, "alice")
	e := unsealed(t, seal(t, b, later, alice.to), alice.identity)
	step := e.Epochs.([]any)[0]
	for name, epochs := range map[string]any{
		"no params":       []any{map[string]any{"statement": "00"}},
		"no object":       []any{7},
		"not in hex":      []any{map[string]any{"params": later.Params(), "statement": "xy"}},
		"too many":        []any{step, step, step, step, step, step, step, step, step, step, step, step, step, step, step, step, step},
		"params of no id": []any{map[string]any{"params": map[string]any{"suite": ibc.Suite, "epoch": 2}, "statement": ""}},
	} {
		e.Epochs = epochs
		if _, err := bundle.Open(resealed(t, e, alice.identity.Recipient()), alice.opener); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range bundle.MaxEpochs {
		b.Epochs = append(b.Epochs, b.Epochs[0])
	}
	if _, _, err := bundle.Seal(b, later, alice.to); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("sealed too many: %v", err)
	}
}
