package devagent

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/coaplink"
)

// longestRequest is more than any request takes without its hooks: an RSA-4096
// key on the slowest of devices.
const longestRequest = 15 * time.Minute

// longestTurn is after how long a request is not slow but hung: each consumer's
// hook may run twice.
func (c config) longestTurn() time.Duration {
	return longestRequest + time.Duration(2*(len(c.Consumers)+1))*(c.HookTimeout+5*time.Second)
}

// alive returns why the agent does not work any more, nil if it does: no
// request has been at it for longer than that, and the socket is read.
func alive(ctx context.Context, device *agent.Agent, server *coaplink.Server, longest time.Duration) error {
	if busy := device.Busy(); busy > longest {
		return fmt.Errorf("a request has been hanging for %v", busy.Round(time.Second))
	}
	return server.Alive(ctx)
}
