package alert

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxText bounds what is taken from a device's or a CA's words, in bytes.
const maxText = 240

// Clean makes one bounded line of what somebody else said: no control
// characters, no marks that turn the direction of text, valid UTF-8.
func Clean(s string, limit int) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			space = b.Len() > 0
			continue
		}
		if unicode.Is(unicode.Cf, r) {
			continue
		}
		need := utf8.RuneLen(r)
		if space {
			need++
		}
		if b.Len()+need > limit-len("…") {
			b.WriteString("…")
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Span writes a duration as people say it, with two units at most: "3h 12m",
// "12d 4h", "45s". A negative one is "0s".
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return pair(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return pair(d, time.Hour, "h", time.Minute, "m")
	}
	return pair(d, day, "d", time.Hour, "h")
}

func pair(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	s := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		s += fmt.Sprintf(" %d%s", rest, smallName)
	}
	return s
}

// devices is "plc-1", "plc-1 and plc-2" or "plc-1, plc-2 and 40 more".
func devices(names []string, count int) string {
	const shown = 3
	switch {
	case len(names) == 0:
		return plural(count, "device")
	case count <= 1:
		return names[0]
	case count == 2 && len(names) == 2:
		return names[0] + " and " + names[1]
	}
	n := min(shown, len(names), count-1)
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), count-n)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// has is the verb of so many.
func has(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}
