package enrol

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// said is a row of the document's table of failures.
type said struct{ by, first, longest, counts string }

func readTable(t *testing.T) map[Class]said {
	t.Helper()
	text, err := os.ReadFile("../../docs/renewal.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[Class]said{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[Class(m[1])]; twice {
			t.Errorf("%s stands there twice", m[1])
		}
		rows[Class(m[1])] = said{m[2], m[3], m[4], m[5]}
	}
	return rows
}

// TestDocumentedFailures: the table of docs/renewal.md has every class, and the
// waits of its schedule.
func TestDocumentedFailures(t *testing.T) {
	t.Parallel()
	p, rows := DefaultPolicy(), readTable(t)
	for class := range rows {
		if !slices.Contains(Classes(), class) {
			t.Errorf("%s is no class", class)
		}
	}
	for _, class := range Classes() {
		first, longest := class.schedule()
		want := said{first: wait(float64(p.RetryFirst) * first), longest: wait(float64(p.RetryLongest) * longest)}
		switch class {
		case ClassSuperseded, ClassInternal: // ends without a wait; is not stored
			want.first, want.longest = "next pass", "next pass"
		case ClassCAPending:
			want.first, want.longest = wait(float64(p.Poll)), wait(float64(p.Poll))
		}
		if got := rows[class]; got.first != want.first || got.longest != want.longest {
			t.Errorf("%s waits %q to %q in the document, the schedule has %q to %q", class, got.first, got.longest, want.first, want.longest)
		}
	}
}

func wait(d float64) string {
	text := strings.TrimSuffix(time.Duration(d).String(), "m0s") // of 1h0m0s, 30m0s
	if hours, whole := strings.CutSuffix(text, "h0"); whole {
		return hours + "h"
	}
	return text + "m"
}

// TestDocumentedBlame: who refused, and whether it counts, is what errors of
// devices and CAs are made of.
func TestDocumentedBlame(t *testing.T) {
	t.Parallel()
	rows := readTable(t)
	faults := []*Fault{
		deviceFault(ErrUnreachable), deviceFault(ErrIdentity),
		caFault(ErrCAUnavailable), caFault(&TryLater{Err: ErrCAUnavailable}), caFault(&CARejection{}), caFault(&CAMismatch{}),
		misfit(ErrCertificate), misfit(&CAMismatch{}), notAsked(0, ErrCAUnavailable),
	}
	for _, p := range []Problem{
		ProblemBadRequest, ProblemForbidden, ProblemUnknown, ProblemConflict, ProblemUnverified, ProblemRolledBack, ProblemInternal, ProblemFull,
		ProblemUnavailable, ProblemReplaced,
	} {
		faults = append(faults, deviceFault(&DeviceError{Problem: p}))
	}
	for _, f := range faults {
		row := rows[f.Class]
		if row.by != string(f.By) && row.by != "either" {
			t.Errorf("%s: %s refuses, the document says %s", f.Class, f.By, row.by)
		}
		counts := !f.Transient && !f.Uncounted
		if strings.HasPrefix(row.counts, "yes") != counts {
			t.Errorf("%s counts: %v, the document says %s", f.Class, counts, row.counts)
		}
	}
}
