package clmctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// knownCA is a CA with its role, and what enrolments found out about it.
type knownCA struct {
	authority
	role    string
	breaker enrol.Breaker
}

// breakers keeps what enrolments found out about CAs.
type breakers interface {
	Breaker(ctx context.Context, ca string) (enrol.Breaker, error)
}

// knownCAs returns all CAs, in the order in which they are asked; none if none
// was added yet.
func (d dataDir) knownCAs(ctx context.Context, health breakers) ([]knownCA, error) {
	file, err := d.authorities()
	if errors.Is(err, errNoCA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []knownCA
	for _, ca := range file.all() {
		b, err := health.Breaker(ctx, ca.Name)
		if err != nil {
			return nil, fmt.Errorf("read the breaker of CA %s: %w", ca.Name, err)
		}
		out = append(out, knownCA{ca, file.role(ca), b})
	}
	return out, nil
}
