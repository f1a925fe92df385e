package sqlite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// TestQueryPlans holds that what runs once a minute, or once an enrolment,
// costs nothing that grows with the fleet or its history.
func TestQueryPlans(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	for name, query := range map[string]string{
		"due":         selectCandidates,
		"next due":    selectNextDue,
		"misdated":    selectNextMisdated,
		"misdated 2":  selectMisdated,
		"expired":     countExpired,
		"unenrolled":  countUnenrolled,
		"due count":   countDue,
		"first end":   selectFirstEnd,
		"success":     selectSuccess,
		"waits since": selectWaiting,
		"rows":        selectRows,
		"row":         selectRow,
		"named":       selectNamed,
		"entries":     selectEntries,
		"failures":    selectFailures,
		"device":      selectDevice + "WHERE name = ?",
		"open":        selectEnrolment + whereOpenOf,
		"serial":      selectSerialOwner,
		"update":      updateEnrolment,
		"is open":     selectOpen,
		"history":     selectEnrolment + "WHERE device = ? ORDER BY enrolment.seq",
		"events":      selectEvents,
		"certificate": selectCertificates + "WHERE sha256 = ?",
		"waiting":     selectOutstanding,
		"known":       selectKnown,
		"tried":       selectTried,
		"payload":     deletePayload,
		"shortest":    selectShortest,
		"old events":  sweeps()[0].find,
		"fruitless":   sweeps()[1].find,
		"forget":      sweeps()[1].remove,
		"withdrawn":   dropWithdrawn,
		"abandoned":   selectOpenOf,
		"failing":     countFailing,
		"quarantined": countQuarantined,
		"paused":      countPaused,
		"unfinished":  countOpen,
		sorts:         selectTroubled,
	} {
		rows, err := s.readDB.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(plan, "\n")
		t.Logf("%s:\n%s", name, text)
		for _, fine := range harmless() {
			text = strings.ReplaceAll(text, fine, "SEARCH")
		}
		if !strings.Contains(text, "SEARCH") || strings.Contains(text, "SCAN") || strings.Contains(text, "TEMP B-TREE FOR ORDER BY") && name != sorts {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}

// sorts is the one query that sorts what it finds: the devices in trouble.
const sorts = "troubled"

// harmless are scans of nothing but the rows that are wanted: partial indexes of
// the few devices that are in some state.
func harmless() []string {
	out := []string{"SCAN CONSTANT ROW"}
	for _, index := range []string{"device_failing", "device_quarantined", "device_paused", "device_open"} {
		out = append(out, "SCAN device USING INDEX "+index)
	}
	return out
}
