package clmctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/scep"
)

func (a *app) labCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab-ca",
		Short: "Run a CA for trials and tests; never for production",
	}
	cmd.AddCommand(a.labCAServeCommand())
	return cmd
}

type labCAOptions struct {
	dir, listen, challengeFile, layout string
	lifetime                           time.Duration
}

func (a *app) labCAServeCommand() *cobra.Command {
	var o labCAOptions
	cmd := &cobra.Command{
		Use:   "serve --dir DIR",
		Short: "Serve SCEP until interrupted",
		Long: `serve runs a certificate authority as in the paper's testbed: a root, an issuing
CA and an RA, with SCEP in front. Its keys lie in files without a passphrase and
its subjects say NOT FOR PRODUCTION.

The SCEP URL is printed on standard output, alone on a line, as soon as it can
be used; the root's certificate is root.pem in the directory.`,
		Example: "  clmctl lab-ca serve --dir ca --listen 127.0.0.1:8081 --challenge-file challenge --lifetime 24h",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runLabCA(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the CA, made on first use")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8081", "host:port to listen on; port 0 takes any")
	f.StringVar(&o.challengeFile, "challenge-file", "", "file with the challenge password that requests must carry, - for standard input (default: none)")
	f.DurationVar(&o.lifetime, "lifetime", 24*time.Hour, "lifetime of certificates, one minute or more")
	f.StringVar(&o.layout, "layout", "", "ra (an RA in front) or single (one CA certificate does everything); default: as it was made, ra at first")
	_ = cmd.MarkFlagRequired("dir")
	_ = cmd.RegisterFlagCompletionFunc("layout", cobra.FixedCompletions([]string{"ra", "single"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) runLabCA(ctx context.Context, o labCAOptions) (err error) {
	challenge, err := a.readChallenge(ctx, o.challengeFile)
	if err != nil {
		return err
	}
	defer clear(challenge)
	ca, err := labca.Open(o.dir, labca.Options{
		Layout: labca.Layout(o.layout), Lifetime: o.lifetime, Challenge: challenge,
		Now: a.Now, Random: a.Random, Log: a.Logger(a.Err),
	})
	if err != nil {
		return explainLabCA(err)
	}
	defer func() { err = errors.Join(err, ca.Close()) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "choose another --listen; port 0 takes any that is free")
	}
	a.warn("NOT FOR PRODUCTION: the keys of this CA lie unprotected in %s", o.dir)
	a.note("root certificate %s", scep.Fingerprint(ca.Root()))
	if _, err := fmt.Fprintf(a.Out, "http://%s%s\n", listener.Addr(), labca.Path); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serve(ctx, listener, ca.Handler())
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	err := server.Serve(listener)
	if !stop() {
		return <-stopped
	}
	return err
}

func explainLabCA(err error) error {
	switch {
	case errors.Is(err, labca.ErrOptions):
		return clikit.WithCode(err, clikit.ExitUsage)
	case errors.Is(err, keyfile.ErrLocked):
		return clikit.WithHint(err, "a lab CA runs on this directory already; choose another --dir")
	case errors.Is(err, keyfile.ErrPermissions):
		return clikit.WithHint(err, "keep the CA in a directory of its own, with mode 0700")
	}
	return err
}
