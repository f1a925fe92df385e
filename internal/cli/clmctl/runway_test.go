package clmctl

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// noon is when everything happens.
func noon() time.Time { return time.Date(2026, 12, 24, 12, 0, 0, 0, time.UTC) }

// plantOf makes a data directory with devices that have got certificates of a
// day, each with so many hours left; names say the line: press-1 is of line press.
func plantOf(t *testing.T, config string, left map[string]time.Duration) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	s, err := sqlite.Open(ctx, filepath.Join(dir, inventoryFile), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := store.Delivery{At: noon(), Source: "test"}
	for name := range left {
		line, _, _ := strings.Cut(name, "-")
		id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1}
		d.Rows = append(d.Rows, store.Row{Identity: id, LedgerIndex: uint64(len(d.Rows) + 1), Labels: map[string]string{"line": line}})
	}
	if _, err := s.PutDevices(ctx, d); err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, left := range left {
		n++
		received := noon().Add(left - 24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(n)), NotBefore: received, NotAfter: noon().Add(left),
		}, &x509.Certificate{}, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		device, err := s.Device(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		described := enrol.Describe(leaf)
		device.Certificate, device.EnrolledAt, device.RenewAt = &described, received, received.Add(10*time.Hour)
		e := &enrol.Enrolment{ID: enrol.ID{byte(n)}, Device: name, Identity: device.Identity, State: enrol.Completed, Certificate: der, CreatedAt: received, UpdatedAt: received}
		if err := s.Commit(ctx, enrol.Change{Enrolment: e, Device: &device}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// call runs clmctl at noon.
func call(t *testing.T, dir string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = MainWith(append([]string{"--data-dir", dir}, args...), clikit.Streams{
		In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" },
	}, Deps{Now: noon, Random: rand.Reader})
	return code, stdout.String(), stderr.String()
}

// wants holds that a text has all of these, as patterns.
func wants(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(text) {
			t.Errorf("nothing matches %q in\n%s", p, text)
		}
	}
}

func TestRunwayCommand(t *testing.T) {
	t.Parallel()
	dir := plantOf(t, "", map[string]time.Duration{
		"press-1": 13 * time.Hour, "press-2": 20 * time.Hour, "mill-1": 16 * time.Hour, "mill-2": -time.Hour,
	})
	code, out, _ := call(t, dir, "runway", "--by", "line")
	if code != clikit.ExitDone {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, `^If the CA stopped now for good, 3 of 3 certificates end before they are renewed\.$`,
		`^The first is that of press-1, in 13 hours, at 2026-12-25T01:00:00Z\.$`, `^Not counted: 0 paused or quarantined, 1 expired already\.$`,
		`^12h +2026-12-25T00:00:00Z +0$`, `^1d +2026-12-25T12:00:00Z +3$`, `^press +2 +2 +2026-12-25T01:00:00Z$`, `^mill +1 +1 +2026-12-25T04:00:00Z$`)

	_, out, _ = call(t, dir, "runway", "--ca-down-until", "12h")
	wants(t, out, `^If the CA is down until 2026-12-25T00:00:00Z \(12 hours\), none of 3 certificates ends`, `^What the outage leaves undone is done by 2026-12-25T00:10:`)

	_, out, _ = call(t, dir, "runway", "--ca-down-until", "2026-12-25T05:00:00Z", "-o", "json")
	var v runwayView
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.Expire != 2 || v.Runway == nil || *v.Runway != (13*time.Hour).Seconds() || v.First.Name != "press-1" || v.First.Labels["line"] != "press" || v.RecoveredAt == nil {
		t.Errorf("%+v", v)
	}

	for _, c := range []struct{ flags, says string }{
		{"--ca-down-until yesterday", `"yesterday" is no time`},
		{"--ca-down-until 2020-01-01", "is past"},
		{"--ca-down-until 2h --ca-down-from 3h", "is before the outage begins"},
		{"--ca-down-from 3h", "needs --ca-down-until"},
		{"--ca-down-until 99999d", "is no time"},
	} {
		if code, _, errs := call(t, dir, append([]string{"runway"}, strings.Fields(c.flags)...)...); code != clikit.ExitUsage || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit code %d, %s", c.flags, code, errs)
		}
	}
}

// A bridge takes those that would not last, and those alone.
func TestRenewBridge(t *testing.T) {
	t.Parallel()
	dir := plantOf(t, "ca:\n  rate: 60/h\n", map[string]time.Duration{"press-1": 13 * time.Hour, "press-2": 20 * time.Hour, "mill-1": 16 * time.Hour})
	code, out, errs := call(t, dir, "renew", "--bridge", "15h", "--dry-run", "-o", "json")
	var v dryRunView
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != clikit.ExitDone {
		t.Fatalf("%v, exit code %d: %s%s", err, code, out, errs)
	}
	if len(v.Devices) != 1 || v.Devices[0].Name != "press-1" || v.Devices[0].Why != "it is due for renewal" || v.Checked != 3 {
		t.Errorf("%+v", v)
	}
	wants(t, errs, "1 device to be renewed, so that no certificate ends before 2026-12-25T03:00:00Z")
	// A certificate of a day never lasts for two.
	_, _, errs = call(t, dir, "renew", "--bridge", "2d", "--dry-run")
	wants(t, errs, "3 devices cannot be helped: their certificates do not live as long as the outage")
	if code, _, _ := call(t, dir, "renew", "--bridge", "2h", "--all", "--dry-run"); code != clikit.ExitUsage {
		t.Errorf("--bridge with --all: exit code %d", code)
	}
}

// A dry run says who, why, when, and what it means for the CA.
func TestDryRun(t *testing.T) {
	t.Parallel()
	dir := plantOf(t, "ca:\n  rate: 1/h\n", map[string]time.Duration{
		"a": 13 * time.Hour, "b": 10 * time.Hour, "gone": -time.Hour, "c": 20 * time.Hour, "d": 23 * time.Hour,
	})
	code, out, _ := call(t, dir, "renew", "--dry-run")
	if code != clikit.ExitDone {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, `^gone +its certificate expired +2026-12-23T21:00:00Z +2026-12-24T11:00:00Z +2026-12-24T12:00:00Z$`,
		`^b +it is due for renewal +2026-12-24T08:00:00Z +2026-12-24T22:00:00Z +2026-12-24T13:00:00Z$`,
		`^a +it is due .* 2026-12-24T14:00:00Z$`, `^checked=5 due=3: nothing was done$`,
		`^The CA, which takes 1/h, would be asked 3 times, 1 of them within an hour, until 2026-12-24T14:00:02Z\.$`,
		`^In the next 24 hours 2 devices become due\.$`)
	if strings.Contains(out, "\nc ") {
		t.Error("it would renew a device that is not due")
	}
	dir = plantOf(t, "renewal:\n  maintenance: [\"2026-12-24T00:00/2026-12-27T06:00\"]\n  time_zone: UTC\n", map[string]time.Duration{"a": 10 * time.Hour})
	_, out, _ = call(t, dir, "renew", "--dry-run")
	wants(t, out, `^a +it is due .* -$`, `^1 device not tried, since a maintenance window is open\.$`)
}

func TestParseWhen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"12h":                       noon().Add(12 * time.Hour),
		"3d":                        noon().AddDate(0, 0, 3),
		"1d12h30m":                  noon().Add(36*time.Hour + 30*time.Minute),
		"2026-12-25T06:00:00Z":      noon().Add(18 * time.Hour),
		"2026-12-25T06:00:00+01:00": noon().Add(17 * time.Hour),
		"2026-12-25T06:00":          time.Date(2026, 12, 25, 6, 0, 0, 0, time.Local),
		"2026-12-26":                time.Date(2026, 12, 26, 0, 0, 0, 0, time.Local),
		"":                          {},
		"d":                         {},
		"-3h":                       {},
		"12":                        {},
		"1e300d":                    {},
		"9999999999999999h":         {},
		"2026-12-24T12:00:00Z":      {},
		fmt.Sprint(1<<62) + "d":     {},
	} {
		got, err := parseWhen("until", text, noon())
		if !got.Equal(want) || (err == nil) != !want.IsZero() {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
