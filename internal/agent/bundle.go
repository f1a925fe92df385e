package agent

import (
	"context"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Bundle implements the service that takes a later bundle.
func (a *Agent) Bundle(context.Context, ibc.Identity, []byte) error {
	return refuse(enrol.ProblemForbidden, "this agent takes bundles from its operator alone")
}
