package pkgen_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// What was sealed to a recipient can be issued again to all of them without
// asking for one, also when a write of theirs was cut; each is kept once.
func TestReissue(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	one, two := newParty(t), newParty(t)
	mustIssue(t, c, o, device("plc-1", one))
	file := filepath.Join(c.Dir, pkgen.RecipientsFile)
	torn, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString("age1pq1torn\x00\x00"); err != nil {
		t.Fatal(err)
	}
	if err := torn.Close(); err != nil {
		t.Fatal(err)
	}
	mustIssue(t, c, o, device("plc-1", one), device("plc-2", two), device("plc-3", two))
	o2 := o
	o2.Passphrase = []byte("of nobody in particular")
	mustIssue(t, c, o2, pkgen.Request{Role: ibc.RoleDevice, Name: "plc-4"})
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "age1"); n != 4 { // clm-1, plc-1, what is torn, plc-2
		t.Errorf("%d recipients:\n%s", n, data)
	}

	mustBegin(t, c, passphrase)
	laterCLM(t, c, o)
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	known, err := pkgen.ReadRecipients(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	requests, without, err := ledger.Reissue(ibc.RoleDevice, known, []string{"plc-3"})
	if err != nil || len(requests) != 3 || len(without) != 1 || without[0] != "plc-4" {
		t.Fatalf("%d requests, without recipient %v: %v", len(requests), without, err)
	}
	o.CLMs = nil // as on record
	issued, err := issueLater(c, o, requests[:2]...)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range []party{one, two} {
		b := open(t, o.Medium, issued.Rows[i], p)
		if b.Identity.Epoch != 2 || b.Identity.Generation != 1 || len(b.Peers) != 1 || b.Peers[0].Name != "clm-1" {
			t.Errorf("%s listens to %v", b.Identity, b.Peers)
		}
	}
}
