package pkgoffline

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// redraw is how often a bar is drawn at most.
const redraw = 100 * time.Millisecond

// bar shows how far a long run is: how much is done, how fast, and how long the
// rest will take. It is our own because the library that clmctl has it from
// links net/http.
type bar struct {
	out         io.Writer
	now         func() time.Time
	began, last time.Time
	first       int // made when it began: the start is no measure of the rate
}

// progress draws a bar on a terminal.
func (a *app) progress() func(done, total, made int) {
	if a.Quiet || !a.Styled(a.Err) {
		return nil
	}
	b := &bar{out: a.Err, now: a.Now}
	return b.show
}

// show draws the bar. What an interrupted run had made is found, not made: it is
// no measure of the rate either.
func (b *bar) show(done, total, made int) {
	now := b.now()
	if b.began.IsZero() && made > 0 {
		b.began, b.first = now, made
	}
	if done < total && now.Sub(b.last) < redraw {
		return
	}
	b.last = now
	const width = 30
	full := width * done / total
	line := fmt.Sprintf("[%s%s] %d of %d bundles", strings.Repeat("#", full), strings.Repeat(".", width-full), done, total)
	if seconds, n := now.Sub(b.began).Seconds(), made-b.first; seconds > 0 && n > 0 {
		rate := float64(n) / seconds
		line += fmt.Sprintf(", %.0f/s, %s left", rate, time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	end := ""
	if done == total {
		end = "\n"
	}
	_, _ = fmt.Fprintf(b.out, "\r%s\x1b[K%s", line, end) // nobody could be told
}
