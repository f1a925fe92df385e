package devagent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// config is what somebody decides about a device's agent. Precedence is flag,
// environment, file, default.
type config struct {
	DataDir   string `mapstructure:"data_dir"`
	Output    string `mapstructure:"output"`
	LogFormat string `mapstructure:"log_format"`

	Listen          string        `mapstructure:"listen"`             // UDP host:port
	ReloadHook      string        `mapstructure:"reload_hook"`        // command, see splitCommand; "": none
	HookTimeout     time.Duration `mapstructure:"hook_timeout"`       // longer ones are killed
	Key             string        `mapstructure:"key"`                // where the CLM leaves the choice
	LabAllowRSA1024 bool          `mapstructure:"lab_allow_rsa_1024"` // on request
}

const (
	configFile    = "config.yaml"
	maxConfigFile = 64 << 10 // bytes
	envPrefix     = "DEVAGENT_"
)

func defaults() map[string]any {
	return map[string]any{
		"data_dir": "", "output": string(clikit.FormatTable), "log_format": "text",
		"listen": ":5684", "reload_hook": "", "hook_timeout": agent.DefaultHookTimeout,
		"key": string(fleet.ECDSAP256), "lab_allow_rsa_1024": false,
	}
}

// loadConfig reads the settings and finds the data directory.
func loadConfig(flags *pflag.FlagSet, s clikit.Streams) (config, error) {
	dirFlag := changed(flags, clikit.FlagDataDir)
	dir, err := clikit.ResolveDataDir(clikit.DataAgent, dirFlag, "", s)
	if err != nil {
		return config{}, err
	}
	named := cmp.Or(changed(flags, clikit.FlagConfig), s.Getenv(envPrefix+"CONFIG"))
	v := viper.New()
	if err := readFile(v, cmp.Or(named, filepath.Join(dir, configFile)), named != ""); err != nil {
		return config{}, err
	}
	for key, value := range defaults() {
		v.SetDefault(key, value)
		// viper would read the environment of the process by itself.
		if text := s.Getenv(envPrefix + strings.ToUpper(key)); text != "" {
			v.Set(key, text)
		}
		if f := flags.Lookup(strings.ReplaceAll(key, "_", "-")); f != nil && f.Changed {
			v.Set(key, f.Value.String())
		}
	}
	var c config
	if err := v.UnmarshalExact(&c); err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	if c.DataDir != "" && named == "" && c.DataDir != dir {
		return config{}, errors.New("data_dir only works in a configuration file that is named with --config, not in one that was found in the data directory")
	}
	if c.DataDir, err = clikit.ResolveDataDir(clikit.DataAgent, dirFlag, c.DataDir, s); err != nil {
		return config{}, err
	}
	return c, c.validate()
}

func changed(flags *pflag.FlagSet, name string) string {
	if f := flags.Lookup(name); f != nil && f.Changed {
		return f.Value.String()
	}
	return ""
}

// readFile reads a configuration file; one that was not named need not exist.
func readFile(v *viper.Viper, path string, named bool) error {
	data, err := keyfile.Read(path, maxConfigFile)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
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
	if _, err := fleet.ParseKeyAlgorithm(c.Key); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	_, err := splitCommand(c.ReloadHook)
	return err
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
		return nil, fmt.Errorf("reload_hook: a quote is not closed: %s", s)
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
