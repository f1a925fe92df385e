package ibc_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// claims are n signatures by as many devices, all of which hold.
func claims(t testing.TB, m *ibc.MasterSecret, n int) []ibc.Claim {
	t.Helper()
	out := make([]ibc.Claim, n)
	for i := range out {
		id := ibc.Identity{Role: ibc.RoleDevice, Name: fmt.Sprintf("plc-%d", i), Epoch: 1, Generation: 1}
		key, err := m.Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		message, err := ibc.LP([]byte("edgeclm/v1/test"), []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		signature, err := key.Sign(rand.Reader, message)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = ibc.Claim{Identity: id, Message: message, Signature: signature}
	}
	return out
}

// Of many claims, those that do not hold are found, whatever is wrong with them
// and however many they are, and no others.
func TestVerifyAllFindsWhatDoesNotHold(t *testing.T) {
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	wrong := map[int]error{}
	list := claims(t, m, 12)
	for i, spoil := range map[int]struct {
		how  func(c *ibc.Claim)
		want error
	}{
		1:  {func(c *ibc.Claim) { c.Message = append(bytes.Clone(c.Message), 0) }, ibc.ErrSignature},
		2:  {func(c *ibc.Claim) { c.Identity.Name = "plc-3" }, ibc.ErrSignature},
		3:  {func(c *ibc.Claim) { c.Signature = c.Signature[:95] }, ibc.ErrEncoding},
		4:  {func(c *ibc.Claim) { c.Identity.Epoch = 2 }, ibc.ErrEpoch},
		7:  {func(c *ibc.Claim) { c.Signature = list[8].Signature }, ibc.ErrSignature},
		11: {func(c *ibc.Claim) { c.Signature = append(bytes.Clone(c.Signature[:48]), list[0].Signature[48:]...) }, ibc.ErrSignature},
	} {
		spoil.how(&list[i])
		wrong[i] = spoil.want
	}
	got, err := m.Params().VerifyAll(rand.Reader, list)
	if err != nil || len(got) != len(list) {
		t.Fatal(len(got), err)
	}
	for i, err := range got {
		if !errors.Is(err, wrong[i]) || (err == nil) != (wrong[i] == nil) {
			t.Errorf("claim %d: %v, want %v", i, err, wrong[i])
		}
		if single := m.Params().Verify(list[i].Identity, list[i].Message, list[i].Signature); (single == nil) != (err == nil) {
			t.Errorf("claim %d: alone %v, among others %v", i, single, err)
		}
	}
}

// Attack: two signatures are changed so that what is wrong with one makes up for
// what is wrong with the other; without coefficients of the verifier's own their
// sum would hold.
func TestAttackSignaturesThatMakeUpForEachOther(t *testing.T) {
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	list := claims(t, m, 2)
	// The same identity and message with the V of the two exchanged: U + h*Q add
	// up as they did.
	list[0].Signature, list[1].Signature = append(bytes.Clone(list[0].Signature[:48]), list[1].Signature[48:]...),
		append(bytes.Clone(list[1].Signature[:48]), list[0].Signature[48:]...)
	got, err := m.Params().VerifyAll(rand.Reader, list)
	if err != nil || !errors.Is(got[0], ibc.ErrSignature) || !errors.Is(got[1], ibc.ErrSignature) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestVerifyAllOfNothing(t *testing.T) {
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Params().VerifyAll(rand.Reader, nil); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	if _, err := m.Params().VerifyAll(bytes.NewReader(nil), claims(t, m, 1)); err == nil {
		t.Error("no random, no error")
	}
}
