package pkgen_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// writeLedger writes a ledger with these bodies that the PKG signed.
func writeLedger(t testing.TB, path string, m *ibc.MasterSecret, bodies ...json.RawMessage) error {
	t.Helper()
	data, _, err := hashlog.State{}.Append(time.Unix(1e9, 0), func(document []byte) ([]byte, error) {
		return m.Sign(ibc.KindLedger, document)
	}, bodies...)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func master(t testing.TB) *ibc.MasterSecret {
	t.Helper()
	m, err := ibc.Setup(rand.NewChaCha8([32]byte{1}), 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func initBody(t testing.TB, m *ibc.MasterSecret) json.RawMessage {
	t.Helper()
	body, err := json.Marshal(pkgen.Fact{Type: "init", Params: m.Params(), Recovery: &pkgen.Hash{1}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func issueBody(t testing.TB, name string, generation uint32, recipient byte) json.RawMessage {
	t.Helper()
	id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: generation}
	body, err := json.Marshal(pkgen.Fact{Type: "issue", Identity: &id, Payload: &pkgen.Hash{2}, Recipient: &pkgen.Hash{recipient}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// A ledger that breaks the rules of issuing is not believed though it is
// signed: whoever checks it sees it.
func TestLedgerAgainstTheRules(t *testing.T) {
	m := master(t)
	first := initBody(t, m)
	for _, tc := range []struct {
		name   string
		bodies []json.RawMessage
		line   int
		cause  error
	}{
		{"two recipients", []json.RawMessage{first, issueBody(t, "a", 1, 1), issueBody(t, "a", 1, 2)}, 3, pkgen.ErrOtherRecipient},
		{"a generation falls", []json.RawMessage{first, issueBody(t, "a", 2, 1), issueBody(t, "a", 1, 1)}, 3, pkgen.ErrSuperseded},
		{"no init", []json.RawMessage{issueBody(t, "a", 1, 1)}, 1, nil},
		{"two inits", []json.RawMessage{first, first}, 2, nil},
		{"empty", nil, 1, nil},
		{"an issue without recipient", []json.RawMessage{first, json.RawMessage(`{"type":"issue","identity":"edgeclm/v1/dev/a/e1.g1"}`)}, 2, hashlog.ErrFormat},
		{"a wrong identity", []json.RawMessage{first, json.RawMessage(`{"type":"issue","identity":"edgeclm/v1/dev/A/e1.g1"}`)}, 2, hashlog.ErrFormat},
		{"a statement without payload", []json.RawMessage{first, json.RawMessage(`{"type":"anchor","serial":1}`)}, 2, hashlog.ErrFormat},
		{"a serial number again", []json.RawMessage{first, anchorBody(3), anchorBody(3)}, 3, hashlog.ErrFormat},
		{"a serial number falls", []json.RawMessage{first, anchorBody(3), anchorBody(2)}, 3, hashlog.ErrFormat},
		{"an init without parameters", []json.RawMessage{json.RawMessage(`{"type":"init"}`)}, 1, hashlog.ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.jsonl")
			if err := writeLedger(t, path, m, tc.bodies...); err != nil {
				t.Fatal(err)
			}
			_, err := pkgen.ReadLedger(path, m.Params())
			var line *hashlog.LineError
			if !errors.As(err, &line) || line.Line != tc.line || tc.cause != nil && !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want line %d: %v", err, tc.line, tc.cause)
			}
		})
	}
	// A kind of entry that a later release adds is passed over.
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := writeLedger(t, path, m, first, json.RawMessage(`{"type":"later","serial":1}`), issueBody(t, "a", 1, 1)); err != nil {
		t.Fatal(err)
	}
	if l, err := pkgen.ReadLedger(path, m.Params()); err != nil || len(l.Entries) != 3 {
		t.Errorf("an unknown type: %v", err)
	}
}

// anchorBody is the entry of a statement.
func anchorBody(serial int) json.RawMessage {
	return fmt.Appendf(nil, `{"type":"anchor","payload_sha256":%q,"serial":%d,"pattern":"*"}`, strings.Repeat("ab", 32), serial)
}

// FuzzLedger feeds bodies that the PKG signed.
func FuzzLedger(f *testing.F) {
	m := master(f)
	first := initBody(f, m)
	f.Add([]byte(issueBody(f, "a", 1, 1)), []byte(issueBody(f, "a", 2, 1)))
	f.Add([]byte(`{"type":"issue"}`), []byte(first))
	f.Add([]byte(`{}`), []byte(`{"type":"later"}`))
	f.Add([]byte(anchorBody(1)), []byte(anchorBody(1)))
	path := filepath.Join(f.TempDir(), "ledger.jsonl")
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if writeLedger(t, path, m, first, one, two) != nil {
			return // not JSON objects
		}
		ledger, err := pkgen.ReadLedger(path, m.Params())
		if err != nil {
			var line *hashlog.LineError
			if !errors.As(err, &line) {
				t.Fatalf("error without a line: %v", err)
			}
			return
		}
		if len(ledger.Entries) != 3 {
			t.Fatalf("%d entries", len(ledger.Entries))
		}
	})
}
