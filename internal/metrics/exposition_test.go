package metrics_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/metrics"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

var update = flag.Bool("update", false, "write the golden files")

func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// full is a fleet of which everything is known.
func full() metrics.Snapshot {
	now := start()
	certificates := metrics.NewCertificates(now, 10)
	for _, d := range []renewal.Row{
		{Name: "plc-0001.bilbao", EnrolledAt: now.Add(-6 * time.Hour), RenewAt: now.Add(4 * time.Hour), NotAfter: now.Add(18 * time.Hour)},
		{Name: "plc-0002.bilbao", EnrolledAt: now.Add(-22 * time.Hour), RenewAt: now.Add(-12 * time.Hour), NotAfter: now.Add(2 * time.Hour)},
		{Name: "plc-0003.bilbao", EnrolledAt: now.Add(-25 * time.Hour), RenewAt: now.Add(-15 * time.Hour), NotAfter: now.Add(-time.Hour)},
		{Name: "plc-0004.bilbao", EnrolledAt: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour), Paused: true},
		{Name: "plc-0005.bilbao"},
	} {
		certificates.Add(d)
	}
	return metrics.Snapshot{
		Version: "1.2.3", Identity: "edgeclm/v1/clm/clm-1/e1.g1",
		Census: renewal.Census{
			At: now, Total: 5, Operational: 2, Expired: 2, NeverEnrolled: 1, Due: 2, Failing: 1, Quarantined: 1, Paused: 3, Unfinished: 4,
			FirstExpiry: now.Add(2 * time.Hour), LastSuccess: now.Add(-6 * time.Hour), LastTry: now.Add(-time.Minute), NextDue: now.Add(4 * time.Hour),
			NeverReached: 1, UnreachedSince: now.Add(-72 * time.Hour),
		},
		DueSince: now.Add(-15 * time.Hour), Runway: now.Add(2 * time.Hour), Lifetime: 24 * time.Hour,
		Certificates: certificates,
		Authorities: []metrics.Authority{
			{
				Breaker: enrol.Breaker{CA: "plant", State: enrol.BreakerOpen, LastSuccess: now.Add(-6 * time.Hour), LastFailure: now.Add(-time.Minute), Latency: 250 * time.Millisecond},
				Role:    "in-use", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), Rate: 0.5,
			},
			{Breaker: enrol.Breaker{CA: "spare"}, Role: "failover"},
		},
		Events: []renewal.Count{
			{Kind: enrol.EventProgress, N: 50}, {Kind: enrol.EventCompleted, N: 7}, {Kind: enrol.EventRetry, Class: enrol.ClassUnreachable, N: 11},
			{Kind: enrol.EventRetry, Class: enrol.ClassCAUnavail, N: 3}, {Kind: enrol.EventFailed, Class: enrol.ClassHook, N: 1},
			{Kind: enrol.EventRetry, Class: "of-tomorrow", N: 2}, {Kind: enrol.EventRetry, Class: "of-next-year", N: 2}, {Kind: "cloned", N: 1}, {Kind: "Not a word", N: 1},
		},
		Steps: []renewal.Step{
			{Name: "key_and_csr", N: 7, Sum: 900 * time.Millisecond, Buckets: map[time.Duration]uint64{100 * time.Millisecond: 3, time.Second: 7}},
			{Name: renewal.StepTotal, N: 7, Sum: 9 * time.Second, Buckets: map[time.Duration]uint64{100 * time.Millisecond: 0, time.Second: 5}},
		},
		Pass: metrics.Pass{
			At: now.Add(-30 * time.Second), Took: 12 * time.Second,
			Count: map[enrol.Outcome]int{enrol.OutcomeRenewed: 1, enrol.OutcomeFailed: 1, enrol.OutcomeSkipped: 3},
		},
		NotificationsWaiting: 2, DeadLetters: 1,
	}
}

// exposition returns what node_exporter would read.
func exposition(t testing.TB, s metrics.Snapshot) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edgeclm.prom")
	if err := metrics.WriteTextfile(path, s); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExposition(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]metrics.Snapshot{"full": full(), "empty": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := exposition(t, s)
			path := filepath.Join("testdata", name+".prom")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("not as in %s; -update writes it anew:\n%s", path, got)
			}
			if out, ok := testpeer.Promtool(t, strings.NewReader(got), "check", "metrics"); !ok || out != "" {
				t.Errorf("promtool: %s", out)
			}
		})
	}
}

// TestDevicesVanish: beyond the bound there are no series of single devices,
// the sums stay.
func TestDevicesVanish(t *testing.T) {
	t.Parallel()
	for n, single := range map[int]int{0: 0, 1: 1, 3: 3, 4: 0, 500: 0} {
		s := metrics.Snapshot{Certificates: metrics.NewCertificates(start(), 3)}
		for i := range n {
			s.Certificates.Add(renewal.Row{
				Name: fmt.Sprintf("plc-%03d", i), EnrolledAt: start().Add(-time.Hour), RenewAt: start().Add(time.Hour), NotAfter: start().Add(2 * time.Hour),
			})
		}
		text := exposition(t, s)
		if got := strings.Count(text, `{device="`); got != 3*single {
			t.Errorf("%d devices: %d series of single devices", n, got)
		}
		if want := fmt.Sprintf("\nedgeclm_certificate_remaining_seconds_count %d\n", n); !strings.Contains(text, want) {
			t.Errorf("%d devices: no line %s", n, want)
		}
	}
}

// TestHostileLabels: whatever the words of others are, there is one bounded
// line for each series, and nothing is lost.
func TestHostileLabels(t *testing.T) {
	t.Parallel()
	hostile := []string{
		"a\"} 1\nedgeclm_devices_due 99\n#", `back\slash`, "\xff\xfe", "a\x00b", strings.Repeat("€", 1000), "\u202egnp.exe", "", "twice", "twice",
	}
	s := metrics.Snapshot{Version: hostile[0], Certificates: metrics.NewCertificates(start(), 100)}
	for _, h := range hostile {
		s.Certificates.Add(renewal.Row{Name: h, NotAfter: start().Add(time.Hour)})
		s.Authorities = append(s.Authorities, metrics.Authority{Breaker: enrol.Breaker{CA: h, Latency: time.Second}, Role: h})
		s.Events = append(s.Events, renewal.Count{Kind: enrol.EventKind(h), Class: enrol.Class(h), N: 1})
		s.Steps = append(s.Steps, renewal.Step{Name: h})
	}
	for i := range 100 {
		s.Events = append(s.Events, renewal.Count{Kind: enrol.EventKind(strings.Repeat("x", 1+i%32) + strings.Repeat("-", i/32)), N: 1})
	}
	text := exposition(t, s)
	if out, ok := testpeer.Promtool(t, strings.NewReader(text), "check", "metrics"); !ok {
		t.Errorf("promtool: %s", out)
	}
	if !utf8.ValidString(text) || !strings.Contains(text, "\nedgeclm_devices_due 0\n") || strings.Contains(text, "\nedgeclm_devices_due 99") {
		t.Errorf("a label got out:\n%s", text)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		series := line[:max(0, strings.LastIndexByte(line, ' '))]
		if len(line) > 600 || strings.HasPrefix(line, "edgeclm_") && seen[series] {
			t.Errorf("too long, or twice: %s", line)
		}
		seen[series] = true
	}
	kinds, events := 0, 0
	for _, m := range regexp.MustCompile(`(?m)^edgeclm_events_total\{kind="([a-z-]+)"\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		kinds, events = kinds+1, events+n
	}
	if want := len(enrol.EventKinds()) + 32 + 1; kinds != want || events != len(s.Events) {
		t.Errorf("%d kinds, want %d; %d events, want %d", kinds, want, events, len(s.Events))
	}
}

// TestZeroBreaker: a CA of which nothing is known is asked.
func TestZeroBreaker(t *testing.T) {
	t.Parallel()
	text := exposition(t, metrics.Snapshot{Authorities: []metrics.Authority{{Breaker: enrol.Breaker{CA: "x"}}}})
	if want := `edgeclm_ca_breaker{ca="x",state="closed"} 1`; !strings.Contains(text, want) {
		t.Errorf("no line %s in\n%s", want, text)
	}
}

func TestTextfile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "edgeclm.prom")
	// A reader never sees half of a file, whoever writes meanwhile.
	done := make(chan error, 1)
	go func() {
		var err error
		for range 50 {
			err = errors.Join(err, metrics.WriteTextfile(path, full()))
		}
		done <- err
	}()
	want := exposition(t, full())
	for writing := true; writing; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			writing = false
		default:
		}
		got, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && writing {
			continue
		}
		if err != nil || string(got) != want {
			t.Fatalf("%v: %d bytes of %d", err, len(got), len(want))
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("node_exporter is somebody else and could not read it: %v %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v %v", files, err)
	}
}

func TestTextfileErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := metrics.WriteTextfile(filepath.Join(dir, "edgeclm.txt"), full()); !errors.Is(err, metrics.ErrTextfileName) {
		t.Errorf("a name that node_exporter ignores: %v", err)
	}
	if err := metrics.WriteTextfile(filepath.Join(dir, "missing", "edgeclm.prom"), full()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	taken := filepath.Join(dir, "taken.prom")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := metrics.WriteTextfile(taken, full()); err == nil {
		t.Error("a folder was replaced")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left behind: %v %v", files, err)
	}
}
