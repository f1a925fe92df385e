package devagent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the CLM over CoAP and DTLS until a signal ends it",
		Long: `serve listens for the CLMs that the device's bundle lists. "listening on" and the
address is logged once it does; with port 0 the system chooses one.

The reload hook is run after each switch of the active pair, to make the
device's services use it. It is a command without shell: words are split at
blanks, quotes keep them together. It finds the files in EDGECLM_KEY_FILE,
EDGECLM_CERT_FILE, EDGECLM_CHAIN_FILE and EDGECLM_CA_FILE. If it fails, the
previous pair is active again and the hook is run for that.

The list of consumers in the configuration file does the same for each service
of its own, with files where the service looks for them.

Before that, serve looks into first-boot-dir: a key bundle that a memory card
brought there, with its PIN in pin.txt if it is sealed to one, becomes the
device's identity; then both files are wiped.


With --key-store tpm the private keys of new certificates are made in the TPM of
the device and never exist outside: key.pem then holds what OpenSSL's tpm2
provider loads. Keys that are there already stay where they are until they are
renewed.`,
		Example: `  devagent serve --listen 0.0.0.0:5684 --reload-hook "systemctl reload nginx"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.open(cmd)
			if err != nil {
				return err
			}
			return explain(a.serve(cmd.Context(), c))
		},
	}
	cmd.Flags().AddFlagSet(new(config).serving())
	cmd.Flags().AddFlagSet(new(config).keys())
	var keys []string
	for _, k := range fleet.KeyAlgorithms() {
		keys = append(keys, string(k))
	}
	_ = cmd.RegisterFlagCompletionFunc("key", cobra.FixedCompletions(keys, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) serve(ctx context.Context, c config) (err error) {
	log := a.Logger(a.Err)
	cfg, err := a.agentConfig(c, log)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", c.Listen)
	if err != nil {
		return clikit.WithHint(clikit.Usage("listen: %w", err), "give --listen HOST:PORT")
	}
	if c.KeyStore == keyStoreTPM {
		// The agent serves without it too, and says what is wrong.
		if err := tpm.New(c.TPMDevice).Check(); err != nil {
			log.Error("the TPM cannot be used", "device", c.TPMDevice, "error", err)
		}
	}
	firstBoot := a.firstBoot(c, log)
	if err := c.existing(); err != nil {
		return cmp.Or(firstBoot, err)
	}
	device, err := agent.Open(cfg)
	switch {
	case errors.Is(err, provision.ErrNone) && firstBoot != nil:
		return firstBoot
	case err != nil:
		return err
	case firstBoot != nil:
		log.Error("the bundle of the memory card was not taken", "error", firstBoot)
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	conn, err := net.ListenUDP("udp", address)
	if err != nil {
		return clikit.WithHint(err, "give a free address of this device with --listen")
	}
	stop := a.serveControl(ctx, c.DataDir, device, log)
	defer stop()
	server := &coaplink.Server{
		Self: device, Peers: device, Services: device,
		Trusted: sources(device.CLMAddresses()), Random: a.Random, Now: a.Now, Log: log,
	}
	log.Info("listening on "+conn.LocalAddr().String(), "identity", device.Identity())
	if err := server.Serve(ctx, conn); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// agentConfig is what serve and rollback open the agent with.
func (a *app) agentConfig(c config, log *slog.Logger) (agent.Config, error) {
	cfg := agent.Config{
		Dir: c.DataDir, Random: a.Random, Now: a.Now, Log: log, Version: clikit.Version().Version,
		Key: fleet.KeyAlgorithm(c.Key), LabAllowRSA1024: c.LabAllowRSA1024, Endpoint: c.TLSEndpoint,
		KeyStores: a.keyStores(c),
	}
	return cfg, clikit.WithCode(a.join(c, log, &cfg), clikit.ExitUsage)
}

// sources returns the addresses among the CLMs' host:port that need no
// resolver.
func sources(addresses []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range addresses {
		if at, err := netip.ParseAddrPort(s); err == nil {
			ip := at.Addr().Unmap()
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	return out
}
