// Package control is the local socket by which a command on the device reaches
// the agent that runs there.
//
// It is a Unix stream socket, 0600, in the agent's data directory, and the
// kernel's word on who the peer is has to be root or the agent's own user. One
// connection carries one request and one response, each a line of JSON:
//
//	{"version":1,"command":"rollback"}     (some commands take an "argument")
//	{"version":1,"result":{...}}   or   {"version":1,"error":"...","code":"..."}
//
// Other versions are refused, unknown keys ignored.
package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// SocketName is the name of the socket in the data directory.
const SocketName = "control.sock"

const version = 1

// Bounds of a line in bytes.
const (
	maxRequest  = 256 << 10
	maxResponse = 64 << 10
)

// Sentinels of the package.
var (
	// ErrNotRunning is wrapped when no agent answers on the directory.
	ErrNotRunning = errors.New("no agent runs on the data directory")
	// ErrFormat is wrapped when a line is not one of this protocol.
	ErrFormat = errors.New("malformed control message")
)

// Error is the agent's refusal.
type Error struct {
	Code string // for programs; "" if there is none
	Text string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Codes of the package itself.
const (
	CodeUnknown  = "unknown-command"
	CodeInternal = "internal"
)

type request struct {
	Version  int             `json:"version"`
	Command  string          `json:"command"`
	Argument json.RawMessage `json:"argument,omitempty"`
}

type response struct {
	Version int             `json:"version"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"`
	Code    string          `json:"code,omitempty"`
}

// parse parses a line into a request or response, whose version is looked at
// first.
func parse(line []byte, v any) error {
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(line, &probe); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if probe.Version != version {
		return fmt.Errorf("%w: version %d, this release speaks %d", ErrFormat, probe.Version, version)
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// readLine reads one line of at most limit bytes.
func readLine(r io.Reader, limit int64) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, limit)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: no line of at most %d bytes", ErrFormat, limit)
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// maxSocketPath is what sockaddr_un holds, without its final zero.
const maxSocketPath = 107

// socketPath returns a path by which the socket of a directory can be
// addressed, until done is called: longer ones than the kernel takes go through
// the descriptor of their directory.
func socketPath(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), SocketName), func() { _ = d.Close() }, nil
}
