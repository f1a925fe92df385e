package devagent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/consumer"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// config is what somebody decides about a device's agent. Precedence is flag,
// environment, file, default.
type config struct {
	DataDir   string `yaml:"data_dir"`
	Output    string `yaml:"output"`
	LogFormat string `yaml:"log_format"`

	Listen          string        `yaml:"listen"`             // UDP host:port
	ReloadHook      string        `yaml:"reload_hook"`        // command, see splitCommand; "": none
	HookTimeout     time.Duration `yaml:"hook_timeout"`       // longer ones are killed
	Key             string        `yaml:"key"`                // where the CLM leaves the choice
	LabAllowRSA1024 bool          `yaml:"lab_allow_rsa_1024"` // on request
	TLSEndpoint     string        `yaml:"tls_endpoint"`       // host:port where a service serves the active pair; "": none
	FirstBootDir    string        `yaml:"first_boot_dir"`     // where a memory card brings a bundle; "": nowhere
	MDNS            bool          `yaml:"mdns"`               // announce the agent on its links
	ParamsID        string        `yaml:"params_id"`          // that bundles must be of; "": any PKG's, on first use
	KeyStore        string        `yaml:"key_store"`          // of new keys, see keyStores
	TPMDevice       string        `yaml:"tpm_device"`         // character device or UNIX socket
	SealToTPM       bool          `yaml:"seal_to_tpm"`        // what is provisioned

	Consumers []fileConsumer `yaml:"consumers"` // of the file alone
}

const (
	configFile    = "config.yaml"
	maxConfigFile = 64 << 10 // bytes
	envPrefix     = "DEVAGENT_"
)

// common are the settings of every command, whose flags clikit has. Like
// serving, it sets their defaults.
func (c *config) common() *pflag.FlagSet {
	f := pflag.NewFlagSet(program, pflag.ContinueOnError)
	f.StringVar(&c.DataDir, clikit.FlagDataDir, "", "")
	f.StringVar(&c.Output, clikit.FlagOutput, string(clikit.FormatTable), "")
	f.StringVar(&c.LogFormat, clikit.FlagLogFormat, "text", "")
	return f
}

// serving are the settings of serve, which are its flags.
func (c *config) serving() *pflag.FlagSet {
	f := pflag.NewFlagSet(program, pflag.ContinueOnError)
	f.StringVar(&c.Listen, "listen", ":5684", "UDP address to listen on")
	f.StringVar(&c.ReloadHook, "reload-hook", "", "command that makes services use a new certificate")
	f.DurationVar(&c.HookTimeout, "hook-timeout", consumer.DefaultHookTimeout, "how long each hook may take")
	f.StringVar(&c.TLSEndpoint, "tls-endpoint", "", "host:port where a service of this device serves the certificate over TLS")
	f.StringVar(&c.Key, "key", string(fleet.ECDSAP256),
		"key where the CLM leaves the choice: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	f.StringVar(&c.FirstBootDir, "first-boot-dir", "/boot/firmware/edgeclm", "where a memory card brings the first key bundle; empty: nowhere")
	f.BoolVar(&c.MDNS, "mdns", false, "announce the agent on its links by multicast DNS, so that clmctl discover --mdns finds it")
	f.StringVar(&c.ParamsID, "params-id", "", "params_id that a bundle must be of, in hex")
	f.BoolVar(&c.LabAllowRSA1024, "lab-allow-rsa-1024", false, "make RSA-1024 keys on request, as the paper measured them")
	f.StringVar(&c.KeyStore, "key-store", keyStoreFile, "where new private keys live: file or tpm")
	return f
}

// loadConfig reads the settings and finds the data directory.
func loadConfig(flags *pflag.FlagSet, s clikit.Streams) (config, error) {
	dirFlag := changed(flags, clikit.FlagDataDir)
	dir, err := clikit.ResolveDataDir(clikit.DataAgent, dirFlag, "", s)
	if err != nil {
		return config{}, err
	}
	named := cmp.Or(changed(flags, clikit.FlagConfig), s.Getenv(envPrefix+"CONFIG"))
	path := cmp.Or(named, filepath.Join(dir, configFile))
	data, err := clikit.ReadConfig(path, maxConfigFile, named != "")
	if err != nil {
		return config{}, err
	}
	var c config
	settings := []*pflag.FlagSet{c.common(), c.serving(), c.keys(), c.sealing()}
	if err := clikit.DecodeConfig(data, &c); err != nil {
		return config{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.DataDir != "" && named == "" && c.DataDir != dir {
		return config{}, fmt.Errorf("%s: data_dir only works in a configuration file that is named with --config, not in one that was found in the data directory", path)
	}
	configured := c.DataDir
	for _, set := range settings {
		if err := override(set, flags, s.Getenv); err != nil {
			return config{}, err
		}
	}
	if c.DataDir, err = clikit.ResolveDataDir(clikit.DataAgent, dirFlag, configured, s); err != nil {
		return config{}, err
	}
	return c, c.validate()
}

// override sets what the environment has of a set of settings, and over it
// what the flags have.
func override(set, flags *pflag.FlagSet, getenv func(string) string) (err error) {
	set.VisitAll(func(setting *pflag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(setting.Name, "-", "_"))
		text, source := getenv(name), "environment variable "+name
		if f := flags.Lookup(setting.Name); f != nil && f.Changed {
			text, source = f.Value.String(), "flag --"+setting.Name
		} else if text == "" {
			return
		}
		if setErr := setting.Value.Set(text); setErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", source, setErr))
		}
	})
	return err
}

func changed(flags *pflag.FlagSet, name string) string {
	if f := flags.Lookup(name); f != nil && f.Changed {
		return f.Value.String()
	}
	return ""
}

func (c config) validate() error {
	switch {
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fmt.Errorf("log_format: %q is neither text nor json", c.LogFormat)
	case c.HookTimeout <= 0:
		return fmt.Errorf("hook_timeout: %v is not longer than 0", c.HookTimeout)
	case c.Key == string(fleet.RSA1024) && !c.LabAllowRSA1024:
		return fmt.Errorf("key: %s is for laboratories only, see --lab-allow-rsa-1024", c.Key)
	}
	key, err := fleet.ParseKeyAlgorithm(c.Key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if err := checkKeyStore(c.KeyStore, key); err != nil {
		return err
	}
	if c.TLSEndpoint != "" {
		if err := checkEndpoint(c.TLSEndpoint); err != nil {
			return fmt.Errorf("tls_endpoint: %w", err)
		}
	}
	if _, err := c.paramsID(); err != nil {
		return err
	}
	consumers, err := c.consumers()
	if err != nil {
		return err
	}
	_, err = consumer.New(consumer.Config{Consumers: consumers})
	return err
}

// maxEndpoint is the longest host name (RFC 1035 section 2.3.4) and a port.
const maxEndpoint = 255 + 6

func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || len(s) > maxEndpoint {
		return fmt.Errorf("%.80q is not host:port", s)
	}
	return nil
}

// paramsID returns the params_id that bundles are held to; nil: there is none.
func (c config) paramsID() (*bundle.Hash, error) {
	if c.ParamsID == "" {
		return nil, nil
	}
	var want bundle.Hash
	if err := want.UnmarshalText([]byte(c.ParamsID)); err != nil {
		return nil, fmt.Errorf("params_id: %w", err)
	}
	return &want, nil
}

// splitCommand splits a command into words at blanks. Single and double quotes
// keep blanks in a word; nothing else is special, since no shell is involved.
func splitCommand(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	open := false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed: %s", s)
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
