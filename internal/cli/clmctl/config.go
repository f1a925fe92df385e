package clmctl

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// Config is what an operator decides, from flags, the environment and the
// configuration file; docs/configuration.md describes it.
type Config struct {
	Output      clikit.Format
	LogFormat   string
	NoInput     bool
	Quiet       bool
	Verbose     bool
	Concurrency int           // devices at once
	Timeout     time.Duration // of one device's try
	Policy      enrol.Policy
	Device      coaplink.Timeouts
	CATimeout   time.Duration // of one exchange with the CA
	ProbeWithin time.Duration // for looking whether a certificate is served; 0: not done
	ProbeAllow  tlsprobe.Allowed
	Profiles    []fleet.Profile

	Limits      fleet.Limits  // of each CA
	Tick        time.Duration // of the renewal loop
	HistoryKeep time.Duration // of events that no audit needs; 0: for ever
	Metrics     metricsConfig
	Alerts      alertsConfig
	Notify      notifyConfig
}

// metricsConfig says where metrics go.
type metricsConfig struct {
	Textfile      string // for node_exporter; "": none
	Listen        string // host:port; "": nowhere
	PerDeviceUpTo int    // devices; a larger fleet has sums alone
}

// alertsConfig are the thresholds of alerts; 0 leaves one to the lifetimes.
type alertsConfig struct {
	NoSuccessWithin, NeverReached, Runway, CAExpiry time.Duration
}

// notifyConfig says who is told of alerts, and how often.
type notifyConfig struct {
	MinInterval, Remind time.Duration

	Exec    *fileExec
	Webhook *fileWebhook
	SMTP    *fileSMTP
}

// Bounds of the configuration.
const (
	maxConfigFile  = 1 << 20 // bytes
	maxConcurrency = 1024
	maxProfiles    = 256

	maxBreakerDevices = 1000           // of each kind; the inventory lists them in one record
	maxBreakerWait    = 24 * time.Hour // a forgotten one is over the next day
)

// variableConfig names the configuration file in the environment.
const variableConfig = "CLM_CONFIG"

// loadConfig returns the configuration and the data directory. Precedence is
// flag, environment, file, default.
func loadConfig(flags *pflag.FlagSet, s clikit.Streams) (Config, string, error) {
	x, err := readSources(flags, s)
	if err != nil {
		return Config{}, "", err
	}
	path, dir, file := x.path, x.dir, x.file
	c, err := fromViper(x.viper)
	if err != nil {
		return Config{}, "", x.locate(err)
	}
	if c.ProbeAllow, err = tlsprobe.ParseAllowed(file.Probe.Allow); err != nil {
		return Config{}, "", fmt.Errorf("%s: probe.allow: %w", path, err)
	}
	if c.Limits.Calendar, err = parseMaintenance(file.Renewal.Maintenance, file.Renewal.TimeZone); err != nil {
		return Config{}, "", fmt.Errorf("%s: %w", path, err)
	}
	c.Notify.Exec, c.Notify.Webhook, c.Notify.SMTP = file.Notify.Exec, file.Notify.Webhook, file.Notify.SMTP
	c.Profiles, err = file.profiles()
	if err != nil {
		return Config{}, "", fmt.Errorf("%s: %w", path, err)
	}
	return c, dir, nil
}

// configPath returns the path of the configuration file. Unless it is named,
// it is in the data directory, which is then returned too.
func configPath(flags *pflag.FlagSet, s clikit.Streams) (path, dir string, err error) {
	if path := cmp.Or(flagValue(flags, clikit.FlagConfig), s.Getenv(variableConfig)); path != "" {
		return path, "", nil
	}
	dir, err = clikit.ResolveDataDir(clikit.DataCLM, flagValue(flags, clikit.FlagDataDir), "", s)
	return filepath.Join(dir, configFile), dir, err
}

func flagValue(flags *pflag.FlagSet, name string) string {
	if f := flags.Lookup(name); f != nil && f.Changed {
		return f.Value.String()
	}
	return ""
}

// newViper stacks the sources of the settings. The environment comes through
// Streams, so it is merged over the file by hand, and parsed strictly, which
// viper would not do.
func newViper(data []byte, flags *pflag.FlagSet, s clikit.Streams) (*viper.Viper, error) {
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	for _, x := range settings() {
		v.SetDefault(x.key, x.value)
		if text := s.Getenv(x.variable()); text != "" {
			value, err := x.parse(text)
			if err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", x.variable(), err)
			}
			if err := v.MergeConfigMap(nested(x.key, value)); err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", x.variable(), err)
			}
		}
		if f := flags.Lookup(x.flag); x.flag != "" && f != nil && f.Changed {
			if err := v.BindPFlag(x.key, f); err != nil {
				return nil, fmt.Errorf("flag --%s: %w", x.flag, err)
			}
		}
	}
	return v, nil
}

// fromViper reads the settings and checks that they make sense together.
func fromViper(v *viper.Viper) (Config, error) {
	c := Config{
		LogFormat:   v.GetString(keyLogFormat),
		NoInput:     v.GetBool(keyNoInput),
		Quiet:       v.GetBool(keyQuiet),
		Verbose:     v.GetBool(keyVerbose),
		Concurrency: v.GetInt(keyConcurrency),
		Timeout:     v.GetDuration(keyTimeout),
		Policy: enrol.Policy{
			MaxAttempts:   v.GetInt(keyMaxAttempts),
			Floor:         v.GetDuration(keyFloor),
			ConfirmWithin: v.GetDuration(keyConfirmWithin),
			RetryFirst:    v.GetDuration(keyRetryFirst),
			RetryLongest:  v.GetDuration(keyRetryLongest),
			Poll:          v.GetDuration(keyPoll),
			HookTries:     v.GetInt(keyHookTries),

			BreakerDevice:   v.GetInt(keyBreakerDevices),
			BreakerWindow:   v.GetDuration(keyBreakerWindow),
			BreakerStrikes:  v.GetInt(keyBreakerStrikes),
			BreakerRejected: v.GetInt(keyBreakerRejected),
			BreakerFirst:    v.GetDuration(keyBreakerFirst),
			BreakerLongest:  v.GetDuration(keyBreakerLongest),

			Window: fleet.Window{From: v.GetFloat64(keyWindowFrom), To: v.GetFloat64(keyWindowTo)},
		},
		Device: coaplink.Timeouts{
			Handshake: v.GetDuration(keyHandshakeTimeout),
			Exchange:  v.GetDuration(keyExchangeTimeout),
		},
		CATimeout:   v.GetDuration(keyCATimeout),
		ProbeWithin: v.GetDuration(keyProbeWithin),

		Limits:      fleet.Limits{Concurrency: v.GetInt(keyCAConcurrency)},
		Tick:        v.GetDuration(keyTick),
		HistoryKeep: v.GetDuration(keyHistoryKeep),
		Metrics: metricsConfig{
			Textfile: v.GetString(keyMetricsTextfile), Listen: v.GetString(keyMetricsListen), PerDeviceUpTo: v.GetInt(keyMetricsDevices),
		},
		Alerts: alertsConfig{
			NoSuccessWithin: v.GetDuration(keyAlertSuccess), NeverReached: v.GetDuration(keyAlertReached),
			Runway: v.GetDuration(keyAlertRunway), CAExpiry: v.GetDuration(keyAlertCAExpiry),
		},
		Notify: notifyConfig{MinInterval: v.GetDuration(keyNotifyInterval), Remind: v.GetDuration(keyNotifyRemind)},
	}
	if err := c.Output.Set(v.GetString(keyOutput)); err != nil {
		return c, fmt.Errorf("%s: %w", keyOutput, err)
	}
	var err error
	if c.Limits.Rate, err = fleet.ParseRate(v.GetString(keyCARate)); err != nil {
		return c, fmt.Errorf("%s: %w", keyCARate, err)
	}
	return c, c.validate(v)
}

// parseMaintenance reads the windows in which no CA is asked.
func parseMaintenance(windows []string, zone string) (fleet.Calendar, error) {
	at, err := time.LoadLocation(cmp.Or(zone, "Local"))
	if err != nil {
		return fleet.Calendar{}, fmt.Errorf("renewal.time_zone: %w", err)
	}
	calendar, err := fleet.ParseCalendar(windows, at)
	if err != nil {
		return calendar, fmt.Errorf("renewal.maintenance: %w", err)
	}
	return calendar, nil
}

// bounds are what a renewing run keeps to.
func (c Config) bounds() renewal.Bounds {
	return renewal.Limit(c.Concurrency, c.Limits)
}

func (c Config) validate(v *viper.Viper) error {
	switch {
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fmt.Errorf("%s: %q is neither text nor json", keyLogFormat, c.LogFormat)
	case c.Concurrency > maxConcurrency:
		return fmt.Errorf("%s: at most %d devices at once", keyConcurrency, maxConcurrency)
	case c.Policy.RetryLongest < c.Policy.RetryFirst:
		return fmt.Errorf("%s is shorter than %s", keyRetryLongest, keyRetryFirst)
	case c.Policy.BreakerLongest < c.Policy.BreakerFirst:
		return fmt.Errorf("%s is shorter than %s", keyBreakerLongest, keyBreakerFirst)
	case c.Policy.BreakerLongest > maxBreakerWait:
		return fmt.Errorf("%s: at most %v", keyBreakerLongest, maxBreakerWait)
	case max(c.Policy.BreakerDevice, c.Policy.BreakerStrikes, c.Policy.BreakerRejected) > maxBreakerDevices:
		return fmt.Errorf("%s, %s and %s: at most %d devices", keyBreakerDevices, keyBreakerStrikes, keyBreakerRejected, maxBreakerDevices)
	case c.Policy.Window.From <= 0 || c.Policy.Window.From > c.Policy.Window.To || c.Policy.Window.To >= 1:
		return fmt.Errorf("%s and %s must be fractions of the lifetime, 0 < from <= to < 1", keyWindowFrom, keyWindowTo)
	}
	for _, x := range settings() {
		switch x.value.(type) {
		case int:
			if v.GetInt(x.key) < 1 {
				return fmt.Errorf("%s must be at least 1", x.key)
			}
		case time.Duration:
			if d := v.GetDuration(x.key); d < 0 || d == 0 && !x.zero {
				return fmt.Errorf("%s must be longer than %v", x.key, d)
			}
		}
	}
	return nil
}
