package clmctl

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// Keys of the settings in the configuration file.
const (
	keyOutput           = "output"
	keyLogFormat        = "log_format"
	keyNoInput          = "no_input"
	keyQuiet            = "quiet"
	keyVerbose          = "verbose"
	keyConcurrency      = "enrolment.concurrency"
	keyTimeout          = "enrolment.timeout"
	keyMaxAttempts      = "enrolment.max_attempts"
	keyFloor            = "enrolment.floor"
	keyConfirmWithin    = "enrolment.confirm_within"
	keyRetryFirst       = "enrolment.retry_first"
	keyRetryLongest     = "enrolment.retry_longest"
	keyPoll             = "enrolment.poll"
	keyHookTries        = "enrolment.hook_tries"
	keyBreakerDevices   = "enrolment.breaker_devices"
	keyBreakerWindow    = "enrolment.breaker_window"
	keyBreakerStrikes   = "enrolment.breaker_strikes"
	keyBreakerRejected  = "enrolment.breaker_rejected"
	keyBreakerFirst     = "enrolment.breaker_first"
	keyBreakerLongest   = "enrolment.breaker_longest"
	keyWindowFrom       = "renewal.window_from"
	keyWindowTo         = "renewal.window_to"
	keyHandshakeTimeout = "device.handshake_timeout"
	keyExchangeTimeout  = "device.exchange_timeout"
	keyCATimeout        = "ca.timeout"
	keyProbeWithin      = "probe.within"
	keyCARate           = "ca.rate"
	keyCAConcurrency    = "ca.concurrency"
	keyTick             = "renewal.tick"
	keyHistoryKeep      = "history.keep"
	keyMetricsTextfile  = "metrics.textfile"
	keyMetricsListen    = "metrics.listen"
	keyMetricsDevices   = "metrics.per_device_up_to"
	keyNotifyInterval   = "notify.min_interval"
	keyNotifyRemind     = "notify.remind"
	keyAlertSuccess     = "alerts.no_success_within"
	keyAlertReached     = "alerts.never_reached"
	keyAlertRunway      = "alerts.runway"
	keyAlertCAExpiry    = "alerts.ca_expiry"
)

// Flags that settings can be given with, beside the common ones.
const (
	flagConcurrency = "concurrency"
	flagTimeout     = "timeout"
)

// Defaults that no other package has.
const (
	defaultConcurrency = 16
	defaultTimeout     = 5 * time.Minute
	defaultCATimeout   = 30 * time.Second

	defaultCAConcurrency  = 8
	defaultTick           = 30 * time.Second
	defaultHistoryKeep    = 400 * 24 * time.Hour
	defaultMetricsDevices = 1000
	defaultNotifyInterval = 15 * time.Minute
	defaultNotifyRemind   = 24 * time.Hour
	defaultAlertReached   = 24 * time.Hour
	defaultAlertCAExpiry  = 30 * 24 * time.Hour
)

// setting is one value of the configuration.
type setting struct {
	key   string
	value any    // the default; its type is the setting's
	flag  string // "": there is none
	zero  bool   // a duration of 0 is allowed
}

// settings lists all of them.
func settings() []setting {
	p := enrol.DefaultPolicy()
	return []setting{
		{key: keyOutput, value: string(clikit.FormatTable), flag: clikit.FlagOutput},
		{key: keyLogFormat, value: "text", flag: clikit.FlagLogFormat},
		{key: keyNoInput, value: false, flag: clikit.FlagNoInput},
		{key: keyQuiet, value: false, flag: clikit.FlagQuiet},
		{key: keyVerbose, value: false, flag: clikit.FlagVerbose},
		{key: keyConcurrency, value: defaultConcurrency, flag: flagConcurrency},
		{key: keyTimeout, value: defaultTimeout, flag: flagTimeout},
		{key: keyMaxAttempts, value: p.MaxAttempts},
		{key: keyFloor, value: p.Floor, zero: true},
		{key: keyConfirmWithin, value: p.ConfirmWithin, zero: true},
		{key: keyRetryFirst, value: p.RetryFirst},
		{key: keyRetryLongest, value: p.RetryLongest},
		{key: keyPoll, value: p.Poll},
		{key: keyHookTries, value: p.HookTries},
		{key: keyBreakerDevices, value: p.BreakerDevice},
		{key: keyBreakerWindow, value: p.BreakerWindow},
		{key: keyBreakerStrikes, value: p.BreakerStrikes},
		{key: keyBreakerRejected, value: p.BreakerRejected},
		{key: keyBreakerFirst, value: p.BreakerFirst},
		{key: keyBreakerLongest, value: p.BreakerLongest},
		{key: keyWindowFrom, value: p.Window.From},
		{key: keyWindowTo, value: p.Window.To},
		{key: keyHandshakeTimeout, value: coaplink.DefaultHandshakeTimeout},
		{key: keyExchangeTimeout, value: coaplink.DefaultExchangeTimeout},
		{key: keyCATimeout, value: defaultCATimeout},
		{key: keyProbeWithin, value: tlsprobe.DefaultWithin, zero: true},
		{key: keyCARate, value: ""},
		{key: keyCAConcurrency, value: defaultCAConcurrency},
		{key: keyTick, value: defaultTick},
		{key: keyHistoryKeep, value: defaultHistoryKeep, zero: true},
		{key: keyMetricsTextfile, value: ""},
		{key: keyMetricsListen, value: ""},
		{key: keyMetricsDevices, value: defaultMetricsDevices},
		{key: keyNotifyInterval, value: defaultNotifyInterval},
		{key: keyNotifyRemind, value: defaultNotifyRemind},
		{key: keyAlertSuccess, value: time.Duration(0), zero: true},
		{key: keyAlertReached, value: defaultAlertReached},
		{key: keyAlertRunway, value: time.Duration(0), zero: true},
		{key: keyAlertCAExpiry, value: defaultAlertCAExpiry},
	}
}

// variable is the setting's name in the environment.
func (x setting) variable() string {
	return "CLM_" + strings.ToUpper(strings.ReplaceAll(x.key, ".", "_"))
}

// parse reads a value from text, as strictly as the file is read.
func (x setting) parse(text string) (any, error) {
	var value any = text
	var err error
	switch x.value.(type) {
	case bool:
		value, err = strconv.ParseBool(text)
	case int:
		value, err = strconv.Atoi(text)
	case float64:
		value, err = strconv.ParseFloat(text, 64)
	case time.Duration:
		value, err = time.ParseDuration(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%.40q is not a %s", text, kind(x.value))
	}
	return value, nil
}

func kind(value any) string {
	switch value.(type) {
	case bool:
		return "truth value like true or false"
	case int:
		return "number"
	case float64:
		return "fraction like 0.33"
	case time.Duration:
		return "duration like 90s or 10m"
	}
	return "text"
}

// nested makes {"a": {"b": value}} of the key a.b.
func nested(key string, value any) map[string]any {
	section, name, ok := strings.Cut(key, ".")
	if !ok {
		return map[string]any{key: value}
	}
	return map[string]any{section: map[string]any{name: value}}
}
