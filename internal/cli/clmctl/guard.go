package clmctl

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// guard is what keeps a mistake from reaching the whole fleet.
type guard struct {
	canary      int
	maxFailures string
}

func (g *guard) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&g.canary, "canary", 0, "try so many devices first, and stop if none of them succeeds")
	f.StringVar(&g.maxFailures, "max-failures", "", "stop when more devices have failed: a number, or a share like 5% (of those tried, from the tenth on)")
}

// apply sets the bounds of a run.
func (g *guard) apply(b *renewal.Bounds) error {
	if g.canary < 0 {
		return clikit.Usage("--canary: %d is less than 0", g.canary)
	}
	b.Canary = g.canary
	if g.maxFailures == "" {
		return nil
	}
	percent, share := strings.CutSuffix(g.maxFailures, "%")
	n, err := strconv.ParseFloat(percent, 64)
	switch {
	case share && err == nil && n > 0 && n < 100:
		b.MaxShare = n / 100
		return nil
	case !share:
		if count, err := strconv.Atoi(g.maxFailures); err == nil && count > 0 {
			b.MaxFailures = count
			return nil
		}
	}
	return clikit.WithHint(clikit.Usage("--max-failures: %.40q is neither a number of devices nor a share of them", g.maxFailures), "write 10, or 5%")
}
