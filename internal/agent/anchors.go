package agent

import (
	"context"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Anchors implements the service that changes the trust anchors.
func (a *Agent) Anchors(context.Context, ibc.Identity, enrol.AnchorChange) error {
	return refuse(enrol.ProblemForbidden, "this agent keeps the trust anchors it has")
}
