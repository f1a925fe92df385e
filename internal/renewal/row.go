package renewal

import "time"

// Row is a device in a list: what is known of it without reading its keys and
// certificates.
type Row struct {
	Name        string
	Address     string
	Asset       string
	Labels      map[string]string
	Paused      bool
	Quarantined bool
	NotBefore   time.Time
	NotAfter    time.Time // zero: it owns no certificate
	EnrolledAt  time.Time // when it got its certificate; zero: not known
	RenewAt     time.Time
	NextAttempt time.Time
	Attempts    int
	LastError   string
}
