package pkgen

import "github.com/cloudflare/circl/sign/slhdsa"

// WithFastRecovery returns c with the parameter set whose keys are made sixty
// times faster, for tests that make many.
func (c Config) WithFastRecovery() Config {
	c.recovery = slhdsa.SHA2_128f
	return c
}
