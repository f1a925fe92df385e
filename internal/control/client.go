package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// callTimeout bounds a command: it waits for the request that the agent is
// serving, and for every hook.
const callTimeout = 20 * time.Minute

// Call has the agent that runs on a data directory do a command with an
// argument, nil for none, and decodes the result. Errors wrap ErrNotRunning, are an *Error, or say that the agent
// did not answer.
func Call(ctx context.Context, dir, command string, argument, result any) (err error) {
	q := request{Version: version, Command: command}
	if argument != nil {
		if q.Argument, err = json.Marshal(argument); err != nil {
			return fmt.Errorf("ask the agent: %w", err)
		}
		defer clear(q.Argument)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	address, done, err := socketPath(dir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	}
	// What waits for the answer ends with the context.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		err = errors.Join(err, conn.Close())
	}()
	if err := writeLine(conn, q); err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	line, err := readLine(conn, maxResponse)
	if err != nil {
		return fmt.Errorf("wait for the agent: %w", errors.Join(err, ctx.Err()))
	}
	var r response
	if err := parse(line, &r); err != nil {
		return fmt.Errorf("wait for the agent: %w", err)
	}
	if r.Error != "" || r.Code != "" {
		return &Error{Code: r.Code, Text: r.Error}
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return fmt.Errorf("wait for the agent: %w: %w", ErrFormat, err)
	}
	return nil
}
