package clmctl

import (
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// whenHint says how a time is written on the command line.
const whenHint = "write 2026-12-24T06:00 (local time), 2026-12-24T06:00:00Z, or a time from now like 12h or 3d"

// maxWhen bounds how far ahead a time may lie.
const maxWhen = 10 * 366 * 24 * time.Hour

// parseWhen reads a time of the command line: RFC 3339 with or without seconds
// and offset, or a duration from now.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	at, ok := parseTime(text)
	if d, isDuration := parseDays(text); isDuration {
		at, ok = now.Add(d), true
	}
	switch {
	case !ok:
		return time.Time{}, clikit.WithHint(clikit.Usage("--%s: %.40q is no time", flag, text), whenHint)
	case !at.After(now):
		return time.Time{}, clikit.Usage("--%s: %s is past", flag, stamp(at))
	case at.Sub(now) > maxWhen:
		return time.Time{}, clikit.Usage("--%s: %s is too far ahead", flag, stamp(at))
	}
	return at, nil
}

func parseTime(text string) (time.Time, bool) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, true
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// parseDays is time.ParseDuration that knows days, as "3d" and "1d12h".
func parseDays(text string) (time.Duration, bool) {
	var sum time.Duration
	if days, rest, found := strings.Cut(text, "d"); found {
		d, err := time.ParseDuration(days + "h")
		if err != nil || d > maxWhen/24 {
			return 0, false
		}
		if sum, text = 24*d, rest; text == "" {
			return sum, true
		}
	}
	d, err := time.ParseDuration(text)
	return sum + d, err == nil
}
