package devagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/sdnotify"
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

SIGHUP has serve read its configuration again; one with a mistake is not used.
Under systemd it tells when it is ready, and feeds the watchdog as long as it
really works.

Before that, serve looks into first-boot-dir: a key bundle that a memory card
brought there, with its PIN in pin.txt if it is sealed to one, becomes the
device's identity; then both files are wiped.

With --mdns the agent announces its port by multicast DNS, under a name that does
not tell which device it is. Many plants do not want multicast: it is off.

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
			hangUp := make(chan os.Signal, 1)
			signal.Notify(hangUp, syscall.SIGHUP)
			defer signal.Stop(hangUp)
			return explain(a.serve(cmd.Context(), c, hangUp, func() (config, error) { return a.open(cmd) }))
		},
	}
	cmd.Flags().AddFlagSet(new(config).serving())
	cmd.Flags().AddFlagSet(new(config).keys())
	cmd.Flags().AddFlagSet(new(config).sealing())
	var keys []string
	for _, k := range fleet.KeyAlgorithms() {
		keys = append(keys, string(k))
	}
	_ = cmd.RegisterFlagCompletionFunc("key", cobra.FixedCompletions(keys, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// errReload ends a session of serving, for another with a new configuration.
var errReload = errors.New("the configuration is to be read again")

// serve serves until the context ends, anew with what reload returns after each
// hang-up.
func (a *app) serve(ctx context.Context, c config, hangUp <-chan os.Signal, reload func() (config, error)) error {
	log := a.Logger(a.Err)
	manager, err := sdnotify.New(a.Getenv)
	if err != nil {
		log.Warn("service manager", "error", err)
	}
	for again := false; ; again = true {
		err := a.serveOnce(ctx, c, again, manager, hangUp)
		if !errors.Is(err, errReload) {
			return err
		}
		if err := manager.Notify(sdnotify.Reloading); err != nil {
			log.Warn("tell the service manager", "error", err)
		}
		next, err := reload()
		if err == nil && next.DataDir != c.DataDir {
			err = errors.New("the data directory is another one, which takes a restart")
		}
		if err == nil {
			err = canListen(next.Listen)
		}
		if err != nil {
			log.Error("the configuration that was read again is not used", "error", err)
			continue
		}
		c, log = next, a.Logger(a.Err)
		log.Info("the configuration was read again")
	}
}

// canListen tries an address that is to be listened on.
func canListen(listen string) error {
	address, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	conn, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// serveOnce serves with one configuration; a hang-up ends it with errReload.
func (a *app) serveOnce(ctx context.Context, c config, again bool, manager sdnotify.Notifier, hangUp <-chan os.Signal) (err error) {
	log := a.Logger(a.Err)
	cfg, err := a.agentConfig(c, log)
	if err != nil {
		return err
	}
	cfg.Again = again
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
	device, err := a.openDevice(c, cfg, log)
	if err != nil {
		return err
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
		Trusted: device.Trusted, Random: a.Random, Now: a.Now, Log: log,
	}
	log.Info("listening on "+conn.LocalAddr().String(), "identity", device.Identity())
	unwatch := manager.Supervise(ctx, log, fmt.Sprintf("%s on %s", device.Identity(), conn.LocalAddr()),
		func(ctx context.Context) error { return alive(ctx, device, server, c.longestTurn()) })
	defer unwatch()
	silence := announce(ctx, c.MDNS, device.Identity().Name, conn.LocalAddr(), log)
	defer silence()
	session, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-hangUp:
			cancel(errReload)
		case <-session.Done():
		}
	}()
	if err := server.Serve(session, conn); err != nil {
		return err
	}
	if errors.Is(context.Cause(session), errReload) {
		return errReload
	}
	if err := manager.Notify(sdnotify.Stopping); err != nil {
		log.Warn("tell the service manager", "error", err)
	}
	log.Info("stopped")
	return nil
}

// openDevice opens the agent, after the first boot.
func (a *app) openDevice(c config, cfg agent.Config, log *slog.Logger) (*agent.Agent, error) {
	firstBoot := a.firstBoot(c, log)
	if err := c.existing(); err != nil {
		return nil, cmp.Or(firstBoot, err)
	}
	device, err := agent.Open(cfg)
	switch {
	case errors.Is(err, provision.ErrNone) && firstBoot != nil:
		return nil, firstBoot
	case err == nil && firstBoot != nil:
		log.Error("the bundle of the memory card was not taken", "error", firstBoot)
	}
	return device, err
}

// agentConfig is what serve and rollback open the agent with.
func (a *app) agentConfig(c config, log *slog.Logger) (agent.Config, error) {
	cfg := agent.Config{
		Dir: c.DataDir, Random: a.Random, Now: a.Now, Log: log, Version: clikit.Version().Version,
		Key: fleet.KeyAlgorithm(c.Key), LabAllowRSA1024: c.LabAllowRSA1024, Endpoint: c.TLSEndpoint,
		KeyStores: a.keyStores(c), Seal: c.SealToTPM,
	}
	return cfg, clikit.WithCode(a.join(c, log, &cfg), clikit.ExitUsage)
}
