package clmctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// fileConfig is the form of the configuration file. Its settings are read
// through viper, for the sake of precedence; this type is what says which keys
// and types there are, and keeps the case of labels, which viper does not.
type fileConfig struct {
	DataDir   string        `yaml:"data_dir"`
	Output    string        `yaml:"output"`
	LogFormat string        `yaml:"log_format"`
	NoInput   bool          `yaml:"no_input"`
	Quiet     bool          `yaml:"quiet"`
	Verbose   bool          `yaml:"verbose"`
	Enrolment fileEnrolment `yaml:"enrolment"`
	Renewal   fileRenewal   `yaml:"renewal"`
	Device    fileDevice    `yaml:"device"`
	CA        fileCA        `yaml:"ca"`
	History   fileHistory   `yaml:"history"`
	Metrics   fileMetrics   `yaml:"metrics"`
	Notify    fileNotify    `yaml:"notify"`
	Alerts    fileAlerts    `yaml:"alerts"`
	Probe     fileProbe     `yaml:"probe"`
	Profiles  []fileProfile `yaml:"profiles"`
}

// The sections have types with names, which keeps errors short.
type (
	fileEnrolment struct {
		Concurrency    int           `yaml:"concurrency"`
		Timeout        time.Duration `yaml:"timeout"`
		MaxAttempts    int           `yaml:"max_attempts"`
		Floor          time.Duration `yaml:"floor"`
		ConfirmWithin  time.Duration `yaml:"confirm_within"`
		RetryFirst     time.Duration `yaml:"retry_first"`
		RetryLongest   time.Duration `yaml:"retry_longest"`
		Poll           time.Duration `yaml:"poll"`
		HookTries      int           `yaml:"hook_tries"`
		BreakerDevices int           `yaml:"breaker_devices"`
		BreakerWindow  time.Duration `yaml:"breaker_window"`

		BreakerStrikes  int           `yaml:"breaker_strikes"`
		BreakerRejected int           `yaml:"breaker_rejected"`
		BreakerFirst    time.Duration `yaml:"breaker_first"`
		BreakerLongest  time.Duration `yaml:"breaker_longest"`
	}
	fileRenewal struct {
		WindowFrom float64 `yaml:"window_from"`
		WindowTo   float64 `yaml:"window_to"`

		Tick        time.Duration `yaml:"tick"`
		Maintenance []string      `yaml:"maintenance"`
		TimeZone    string        `yaml:"time_zone"`
	}
	fileDevice struct {
		HandshakeTimeout time.Duration `yaml:"handshake_timeout"`
		ExchangeTimeout  time.Duration `yaml:"exchange_timeout"`
	}
	fileCA struct {
		Timeout     time.Duration `yaml:"timeout"`
		Rate        string        `yaml:"rate"`
		Concurrency int           `yaml:"concurrency"`
	}
	fileHistory struct {
		Keep time.Duration `yaml:"keep"`
	}
	fileMetrics struct {
		Textfile      string `yaml:"textfile"`
		Listen        string `yaml:"listen"`
		PerDeviceUpTo int    `yaml:"per_device_up_to"`
	}
	fileAlerts struct {
		NoSuccessWithin time.Duration `yaml:"no_success_within"`
		NeverReached    time.Duration `yaml:"never_reached"`
		Runway          time.Duration `yaml:"runway"`
		CAExpiry        time.Duration `yaml:"ca_expiry"`
	}
	fileNotify struct {
		MinInterval time.Duration `yaml:"min_interval"`
		Remind      time.Duration `yaml:"remind"`
		Exec        *fileExec     `yaml:"exec"`
		Webhook     *fileWebhook  `yaml:"webhook"`
		SMTP        *fileSMTP     `yaml:"smtp"`
	}
	fileExec struct {
		Command []string      `yaml:"command"`
		Timeout time.Duration `yaml:"timeout"`
	}
	fileWebhook struct {
		URL        string        `yaml:"url"`
		SecretFile string        `yaml:"secret_file"`
		CAFile     string        `yaml:"ca_file"`
		Timeout    time.Duration `yaml:"timeout"`
	}
	fileSMTP struct {
		Server       string   `yaml:"server"`
		TLS          string   `yaml:"tls"`
		From         string   `yaml:"from"`
		To           []string `yaml:"to"`
		Username     string   `yaml:"username"`
		PasswordFile string   `yaml:"password_file"`
		CAFile       string   `yaml:"ca_file"`
	}
	fileProbe struct {
		Within time.Duration `yaml:"within"`
		Allow  []string      `yaml:"allow"`
	}
)

// fileProfile is a certificate profile in the configuration file.
type fileProfile struct {
	Name        string            `yaml:"name"`
	Match       map[string]string `yaml:"match"`
	Key         string            `yaml:"key"`
	Subject     map[string]string `yaml:"subject"`
	SANs        []string          `yaml:"sans"`
	KeyUsage    []string          `yaml:"key_usage"`
	ExtKeyUsage []string          `yaml:"ext_key_usage"`
	Endpoint    string            `yaml:"endpoint"`
}

// profiles returns the certificate profiles, checked.
func (f fileConfig) profiles() ([]fleet.Profile, error) {
	if len(f.Profiles) > maxProfiles {
		return nil, fmt.Errorf("%d profiles, at most %d are allowed", len(f.Profiles), maxProfiles)
	}
	out := make([]fleet.Profile, 0, len(f.Profiles))
	for i, p := range f.Profiles {
		if p.Name == "" {
			return nil, fmt.Errorf("profile %d has no name", i+1)
		}
		if slices.ContainsFunc(out, func(o fleet.Profile) bool { return o.Name == p.Name }) {
			return nil, fmt.Errorf("profile %d: the name %q is taken", i+1, p.Name)
		}
		profile, err := p.profile()
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", p.Name, err)
		}
		// Values may hold {name} and {asset}, so they are checked as they come
		// out for some device.
		if _, err := profile.For(fleet.Device{Name: "name", Asset: "asset"}); err != nil {
			return nil, err
		}
		out = append(out, profile)
	}
	return out, nil
}

func (f fileProfile) profile() (fleet.Profile, error) {
	p := fleet.Profile{
		Name: f.Name, Match: f.Match, Key: fleet.KeyAlgorithm(f.Key),
		KeyUsage: f.KeyUsage, ExtKeyUsage: f.ExtKeyUsage, Endpoint: f.Endpoint,
	}
	if f.Endpoint != "" && f.Endpoint != fleet.NoEndpoint {
		if _, _, err := tlsprobe.ParseEndpoint(f.Endpoint); err != nil {
			return p, fmt.Errorf("endpoint: %w", err)
		}
	}
	if err := fleet.ValidateLabels(f.Match); err != nil {
		return p, fmt.Errorf("match: %w", err)
	}
	for _, t := range fleet.SubjectTypes() {
		if value, ok := f.Subject[t]; ok {
			p.Subject = append(p.Subject, fleet.Attribute{Type: t, Value: value})
		}
	}
	for t := range f.Subject {
		if !slices.Contains(fleet.SubjectTypes(), t) {
			return p, fmt.Errorf("subject: %.40q is none of %s", t, strings.Join(fleet.SubjectTypes(), ", "))
		}
	}
	for _, s := range f.SANs {
		kind, value, ok := strings.Cut(s, ":")
		if !ok {
			return p, fmt.Errorf("sans: %.80q has no kind (dns:, ip: or uri:)", s)
		}
		p.SANs = append(p.SANs, fleet.Name{Kind: fleet.NameKind(kind), Value: value})
	}
	return p, nil
}
