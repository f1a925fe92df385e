package pkgen_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("plc-%04d", i)
	}
	return names
}

func TestThousandPerFolder(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c) // the CLM is the first of the first thousand
	alice := newParty(t)
	var requests []pkgen.Request
	for _, name := range manyNames(1001) {
		requests = append(requests, device(name, alice))
	}
	mustIssue(t, c, o, requests...)
	_, m := verify(t, c, o.Medium)
	if got := m.Rows[999].File; got != "dev-plc-0998.e1.g1.bundle.age" {
		t.Errorf("the thousandth is %s", got)
	}
	if got := m.Rows[1000].File; got != "001/dev-plc-0999.e1.g1.bundle.age" {
		t.Errorf("the next is %s", got)
	}
	// A later generation stays in its folder; another run extends.
	r := device("plc-1000", alice)
	r.Generation = 2
	mustIssue(t, c, o, r, device("new", alice))
	_, m = verify(t, c, o.Medium)
	if got := m.Rows[1001].File; got != "001/dev-plc-1000.e1.g2.bundle.age" {
		t.Errorf("the later generation is %s", got)
	}
	if got := m.Rows[1002].File; got != "001/dev-new.e1.g1.bundle.age" {
		t.Errorf("the new one is %s", got)
	}
}

// Attack, or accident: what lies on the medium is not this PKG's.
func TestForeignMediumIsRefused(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice := newParty(t)
	other := config(filepath.Join(t.TempDir(), "pkg"))
	other.Random = strings.NewReader(strings.Repeat("B", 4096))
	if _, err := pkgen.Init(other, passphrase, pkgen.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	foreign := withCLM(t, other)
	unlisted := o
	unlisted.Medium = t.TempDir()
	if err := os.WriteFile(filepath.Join(unlisted.Medium, "dev-plc-1.e1.g1.bundle.age"), []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	tampered := o
	tampered.Medium = filepath.Join(t.TempDir(), "usb")
	copyDir(t, o.Medium, tampered.Medium)
	edit(t, filepath.Join(tampered.Medium, bundle.ManifestName), "clm-1", "clm-2")
	for _, tc := range []struct {
		name    string
		options pkgen.IssueOptions
		cause   error
	}{
		{"another PKG's manifest", foreign, bundle.ErrParams},
		{"another PKG's bundle", unlisted, pkgen.ErrForeign},
		{"a tampered manifest", tampered, ibc.ErrSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := snapshot(t, c.Dir, tc.options.Medium)
			if _, err := issue(c, tc.options, device("plc-1", alice)); !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want %v", err, tc.cause)
			}
			if !reflect.DeepEqual(snapshot(t, c.Dir, tc.options.Medium), before) {
				t.Error("something was written")
			}
		})
	}
}

// Attack: the ledger is cut at an earlier head, so that the PKG forgets to whom
// it issued. The medium remembers.
func TestTruncatedLedgerIsDetectedByTheMedium(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice, bob := newParty(t), newParty(t)
	old := snapshot(t, c.Dir)
	mustIssue(t, c, o, device("plc-1", alice))
	ledger, m := verify(t, c, o.Medium)
	path := filepath.Join(c.Dir, pkgen.LedgerFile)
	if err := os.WriteFile(path, []byte(old[path]), 0o600); err != nil {
		t.Fatal(err)
	}
	short, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err) // nothing in the directory itself can tell
	}
	if err := short.Covers(ledger.Head()); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("against a head written down: error %v, want ErrTruncated", err)
	}
	if _, err := pkgen.VerifyMedium(o.Medium, m.Params, short); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("against the medium: error %v, want ErrTruncated", err)
	}
	if _, err := issue(c, o, device("plc-1", bob)); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("issue: error %v, want ErrTruncated", err)
	}
}

// Attack: entries are changed; nothing is issued on such a ledger.
func TestTamperedLedgerIsRefused(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	mustIssue(t, c, o, device("plc-1", newParty(t)))
	edit(t, filepath.Join(c.Dir, pkgen.LedgerFile), "dev/plc-1/e1.g1", "dev/plc-2/e1.g1")
	_, err := pkgen.VerifyDir(c.Dir)
	var line *hashlog.LineError
	if !errors.As(err, &line) || line.Line != 6 || !errors.Is(err, hashlog.ErrChain) {
		t.Errorf("verify: error %v, want the chain to break at line 6", err)
	}
	if _, err := issue(c, o, device("plc-9", newParty(t))); !errors.Is(err, hashlog.ErrChain) {
		t.Errorf("issue: error %v, want ErrChain", err)
	}
}

func TestVerifyMediumNamesWhatDoesNotHold(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	mustIssue(t, c, o, device("plc-1", newParty(t)), device("plc-2", newParty(t)))
	ledger, _ := verify(t, c, o.Medium)
	second := filepath.Join(o.Medium, "dev-plc-2.e1.g1.bundle.age")
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T)
		says  string
	}{
		{"bundle changed", func(t *testing.T) { edit(t, second, "age-encryption.org/v1", "age-encryption.org/v2") }, "row 3: dev plc-2"},
		{"bundle missing", func(t *testing.T) {
			if err := os.Remove(second); err != nil {
				t.Fatal(err)
			}
		}, "row 3: dev plc-2"},
		{"bundle too many", func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(o.Medium, "dev-plc-3.e1.g1.bundle.age"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "dev-plc-3.e1.g1.bundle.age"},
		{"another hash beside the manifest", func(t *testing.T) {
			edit(t, filepath.Join(o.Medium, bundle.SumsName), "  dev-plc-2", "  dev-plc-9")
			edit(t, filepath.Join(o.Medium, bundle.SumsName), "  dev-plc-1", "  dev-plc-2")
		}, "row 3: dev plc-2"},
		{"bundle of a later generation", func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(o.Medium, "dev-plc-2.e1.g2.bundle.age"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "dev-plc-2.e1.g2.bundle.age"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			whole := filepath.Join(t.TempDir(), "usb")
			copyDir(t, o.Medium, whole)
			t.Cleanup(func() {
				if err := errors.Join(os.RemoveAll(o.Medium), os.Rename(whole, o.Medium)); err != nil {
					t.Fatal(err)
				}
			})
			tc.spoil(t)
			if _, err := pkgen.VerifyMedium(o.Medium, ledger.Params, ledger); !errors.Is(err, pkgen.ErrMedium) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want ErrMedium saying %q", err, tc.says)
			}
		})
	}
	if _, err := pkgen.VerifyMedium(o.Medium, ledger.Params, nil); err != nil {
		t.Errorf("without a ledger: %v", err)
	}
}

func TestParseHead(t *testing.T) {
	c := initPKG(t)
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	text := "1:" + ledger.Head().Hash.String()
	if head, err := pkgen.ParseHead(text); err != nil || head != ledger.Head() {
		t.Errorf("%v, %v", head, err)
	}
	for _, bad := range []string{"", "1", "1:", ":" + text[2:], "x" + text, text + "0", "-" + text} {
		if head, err := pkgen.ParseHead(bad); err == nil {
			t.Errorf("%q: %v", bad, head)
		}
	}
}
