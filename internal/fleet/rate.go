package fleet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrRate is wrapped by every refusal of a rate.
var ErrRate = errors.New("not a rate")

// Bounds of a rate.
const (
	maxRateNumber = 1_000_000
	maxRatePer    = 366 * 24 * time.Hour
)

// Rate is how often something may happen: at most N times in any Per. The zero
// Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// Limits is how much a CA may be asked.
type Limits struct {
	Rate        Rate
	Concurrency int // requests at once; 0: no limit
	Calendar    Calendar
}

type rateUnit struct {
	name string
	per  time.Duration
}

// rateUnits are in falling order.
func rateUnits() []rateUnit {
	return []rateUnit{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
}

// ParseRate parses "100/h", "10/m", "5/s", "2000/d" or "30/10m" (30 in ten
// minutes). "" and "0" are no limit. Errors wrap ErrRate.
func ParseRate(text string) (Rate, error) {
	if text == "" || text == "0" {
		return Rate{}, nil
	}
	number, per, _ := strings.Cut(text, "/")
	n, err := parseCount(number, maxRateNumber)
	for _, unit := range rateUnits() {
		count, ok := strings.CutSuffix(per, unit.name)
		if !ok || err != nil {
			continue
		}
		k := 1
		if count != "" {
			k, err = parseCount(count, int(maxRatePer/unit.per))
		}
		if err == nil {
			return Rate{N: n, Per: time.Duration(k) * unit.per}, nil
		}
	}
	return Rate{}, fmt.Errorf("%w: %.40q is not like 100/h, 10/m, 5/s, 2000/d or 30/10m, with up to %d in up to 366 days", ErrRate, text, maxRateNumber)
}

// parseCount parses a decimal from 1 to most, without sign and leading zero.
func parseCount(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("%w: %.20q is not a number from 1 to %d", ErrRate, text, most)
	}
	return n, nil
}

// String is the inverse of ParseRate; "0" is no limit.
func (r Rate) String() string {
	if r.Unlimited() {
		return "0"
	}
	for _, unit := range rateUnits() {
		if r.Per%unit.per != 0 {
			continue
		}
		if r.Per == unit.per {
			return fmt.Sprintf("%d/%s", r.N, unit.name)
		}
		return fmt.Sprintf("%d/%d%s", r.N, r.Per/unit.per, unit.name)
	}
	return fmt.Sprintf("%d/%v", r.N, r.Per)
}

// Unlimited reports whether the rate is no limit.
func (r Rate) Unlimited() bool { return r.N <= 0 || r.Per <= 0 }

// Interval is the time between two occurrences at the rate, rounded up so that
// N of them never fall short of Per; 0 for no limit.
func (r Rate) Interval() time.Duration {
	if r.Unlimited() {
		return 0
	}
	n := time.Duration(r.N)
	return (r.Per + n - 1) / n
}
