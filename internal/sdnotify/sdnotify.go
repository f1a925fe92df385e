// Package sdnotify tells the service manager how the program is, as
// sd_notify(3) has it, and how often its watchdog wants to hear. Without a
// manager it does nothing.
package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// States of the program.
const (
	Ready     = "READY=1"
	Reloading = "RELOADING=1"
	Stopping  = "STOPPING=1"
	Watchdog  = "WATCHDOG=1"
)

// Status is a line about the program for people.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// writeTimeout bounds a message: a manager that does not read must not hang the
// program that it watches.
const writeTimeout = 5 * time.Second

// Notifier speaks to the service manager. The zero value has none.
type Notifier struct {
	// Interval is how often the watchdog wants to hear Watchdog at least; 0:
	// there is none.
	Interval time.Duration

	address string // of the socket; "": no manager
}

// New reads from the environment who the manager is.
func New(getenv func(string) string) (Notifier, error) {
	n := Notifier{address: getenv("NOTIFY_SOCKET")}
	if n.address == "" {
		return Notifier{}, nil
	}
	if n.address[0] != '/' && n.address[0] != '@' {
		return Notifier{}, fmt.Errorf("NOTIFY_SOCKET: %.100q is neither a path nor an abstract name", n.address)
	}
	micros := getenv("WATCHDOG_USEC")
	if pid := getenv("WATCHDOG_PID"); micros == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n, nil
	}
	us, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || us <= 0 || us > int64(24*time.Hour/time.Microsecond) {
		return Notifier{address: n.address}, fmt.Errorf("WATCHDOG_USEC: %.40q is no number of microseconds", micros)
	}
	n.Interval = time.Duration(us) * time.Microsecond
	return n, nil
}

// Notify sends states, in one message.
func (n Notifier) Notify(states ...string) (err error) {
	if n.address == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.address, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
