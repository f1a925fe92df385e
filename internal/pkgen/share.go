package pkgen

import (
	"slices"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// share has an issue's entry refer to what the entries before it have in memory
// already: of 100,000 most have the same labels, CLMs and run.
func (l *Ledger) share(e *Entry) {
	e.Labels = l.labels.Labels(e.Labels)
	last := l.Entries[len(l.Entries)-1] // there is the init entry at least
	if slices.Equal(e.CLMs, last.CLMs) {
		e.CLMs = last.CLMs
	}
	if e.Transcript != nil && last.Transcript != nil && *e.Transcript == *last.Transcript {
		e.Transcript = last.Transcript
	}
}

// shareText is share for the texts of an entry that was read.
func (e *Entry) shareText() {
	e.Type = typeIssue
	for _, role := range []ibc.Role{ibc.RoleDevice, ibc.RoleCLM} {
		if e.Identity.Role == role {
			e.Identity.Role = role
		}
	}
	if names := fleet.DefaultNames(e.Identity.Name); slices.Equal(e.Names, names) {
		e.Names = names
	}
}
