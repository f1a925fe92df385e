package provision_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// clmBundle is the bundle of clm-1 of an epoch and generation.
func (p *plant) clmBundle(epoch, generation uint32) *bundle.Bundle {
	p.t.Helper()
	b := p.device(epoch, generation)
	b.Identity = clm("clm-1", epoch, generation)
	b.Names, b.Peers = nil, nil
	var err error
	if b.Key, err = p.secrets[epoch-1].Extract(b.Identity); err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *plant) clmStore() provision.Store {
	s := p.store()
	s.Role = ibc.RoleCLM
	return s
}

func epochsOf(params []*ibc.Params) (out []uint32) {
	for _, p := range params {
		out = append(out, p.Epoch())
	}
	return out
}

func sameEpochs(t *testing.T, what string, params []*ibc.Params, want ...uint32) {
	t.Helper()
	got := epochsOf(params)
	if len(got) != len(want) {
		t.Fatalf("%s: epochs %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: epochs %v, want %v", what, got, want)
		}
	}
}

// A CLM keeps its key of an earlier epoch beside the later one until that
// epoch is closed, and the parameters for good.
func TestCLMKeepsEarlierEpochs(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s := p.clmStore()
	install(t, s, p.clmBundle(1, 1))
	install(t, s, p.clmBundle(1, 2))
	install(t, s, p.clmBundle(2, 1))
	install(t, s, p.clmBundle(2, 2))
	e := load(t, s)
	sameEpochs(t, "accepted", e.Accepted(), 1, 2)
	if len(e.Earlier) != 1 || e.Earlier[0].Key == nil || e.Earlier[0].Identity != clm("clm-1", 1, 2) {
		t.Fatalf("earlier epochs: %+v", e.Earlier)
	}
	for _, early := range []*bundle.Bundle{p.clmBundle(1, 2), p.clmBundle(1, 9), p.clmBundle(2, 1)} {
		if _, err := s.Install(early); !errors.Is(err, provision.ErrNotLater) {
			t.Errorf("%s after epoch 2: %v", early.Identity, err)
		}
	}
	for _, epoch := range []uint32{0, 2, 3} {
		if _, err := e.Close(epoch, time.Now(), ""); !errors.Is(err, provision.ErrEpoch) {
			t.Errorf("closed epoch %d: %v", epoch, err)
		}
	}
	at := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	closed, err := e.Close(1, at, "all have gone over")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(closed); err != nil {
		t.Fatal(err)
	}
	e = load(t, s)
	sameEpochs(t, "accepted after closing", e.Accepted(), 2)
	sameEpochs(t, "verifying after closing", e.Verifying(), 1, 2)
	if past := e.Earlier[0]; past.Key != nil || !past.Closed.Equal(at) || past.Reason != "all have gone over" {
		t.Errorf("the closed epoch: %+v", past)
	}
	if again, err := e.Close(1, at, ""); err != nil || again != nil {
		t.Errorf("closed again: %v, %v", again, err)
	}
	data, err := os.ReadFile(filepath.Join(s.Dir, provision.IdentityFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(data), `"key"`) != 1 {
		t.Error("the file still has the key of the closed epoch")
	}
}

// Taking a later epoch is one step: cut anywhere, the CLM is who it was or who
// it is to be, and in the latter case has both keys.
func TestCLMEpochCutAnywhere(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	first, second := p.clmBundle(1, 1), p.clmBundle(2, 1)
	for cut := 1; ; cut++ {
		s := p.clmStore()
		install(t, s, first)
		layer := keyfiletest.New(cut, keyfiletest.PowerLoss)
		cutting := s
		cutting.Files = keyfile.On(layer)
		_, err := cutting.Install(second)
		e := load(t, s)
		switch {
		case e.Identity == first.Identity && len(e.Earlier) == 0:
			if !layer.Cut() {
				t.Fatalf("uncut: %v", err)
			}
		case e.Identity != second.Identity || len(e.Earlier) != 1 || e.Earlier[0].Key == nil:
			t.Fatalf("cut at %d: %s with %+v", cut, e.Identity, e.Earlier)
		}
		install(t, s, second)
		if !layer.Cut() {
			return
		}
	}
}

// What leads a CLM to a later epoch is the statement of its own PKG's earlier
// master secret, and nothing else.
func TestAttackForgedEpochToCLM(t *testing.T) {
	t.Parallel()
	p, stranger := newPlant(t), newPlant(t)
	s := p.clmStore()
	install(t, s, p.clmBundle(1, 1))
	for name, chain := range map[string][]ibc.Succession{
		"no statement":                            nil,
		"another PKG's statement":                 stranger.chain,
		"a statement by the new master secret":    {{Params: p.secrets[1].Params(), Statement: selfSigned(t, p.secrets[1])}},
		"our statement, on another PKG's epoch 2": {{Params: stranger.secrets[1].Params(), Statement: p.chain[0].Statement}},
	} {
		b := p.clmBundle(2, 1)
		if name == "our statement, on another PKG's epoch 2" {
			b = stranger.clmBundle(2, 1)
		}
		b.Epochs = chain
		if _, err := s.Install(b); !errors.Is(err, bundle.ErrParams) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sameEpochs(t, "accepted", load(t, s).Accepted(), 1)
}

// selfSigned is the statement that a master secret makes about its own epoch.
func selfSigned(t *testing.T, m *ibc.MasterSecret) []byte {
	t.Helper()
	document, err := ibc.EpochDocument(m.Params())
	if err != nil {
		t.Fatal(err)
	}
	statement, err := m.Sign(ibc.KindEpoch, document)
	if err != nil {
		t.Fatal(err)
	}
	return statement
}
