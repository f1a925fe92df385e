package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a server.
const (
	maxConnections = 4                // at once; further ones wait in the kernel
	requestTimeout = 10 * time.Second // for the request to arrive, or the response to leave
)

// Handler does what a command says with its argument, which is nil if there is
// none, and returns the result, which is encoded as JSON. An *Error reaches the peer as it is, another error without its code.
type Handler func(ctx context.Context, argument json.RawMessage) (any, error)

// Server answers on the socket of a data directory.
type Server struct {
	Handlers map[string]Handler // by command
	Log      *slog.Logger

	listener *net.UnixListener
	path     string
}

// Listen makes the socket of a directory, in the place of one that an agent
// which was killed left behind. The caller holds the lock of the directory.
func (s *Server) Listen(dir string) error {
	s.path = filepath.Join(dir, SocketName)
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	address, done, err := socketPath(dir)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer done()
	if s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"}); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	s.listener.SetUnlinkOnClose(false) // by whatever path it was made
	// Nobody else could enter the directory meanwhile.
	if err := os.Chmod(s.path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("control socket: %w", err), s.listener.Close(), os.Remove(s.path))
	}
	return nil
}

// Serve answers, after Listen, until the context ends, and returns when the
// last command has.
func (s *Server) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	var wg sync.WaitGroup
	defer func() {
		if stop() {
			_ = s.listener.Close()
		}
		_ = os.Remove(s.path)
		wg.Wait()
	}()
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Error("control socket", "error", err)
			}
			return
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.answer(ctx, conn); err != nil {
				s.Log.Warn("control socket", "error", err)
			}
		})
	}
}

// answer serves one connection.
func (s *Server) answer(ctx context.Context, conn *net.UnixConn) (err error) {
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := checkPeer(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	line, err := readLine(conn, maxRequest)
	if err != nil {
		return err
	}
	defer clear(line) // an argument may be a secret
	var q request
	if err := parse(line, &q); err != nil {
		return errors.Join(err, writeLine(conn, response{Version: version, Error: err.Error(), Code: CodeUnknown}))
	}
	defer func() { clear(q.Argument) }()
	r := s.run(ctx, q)
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	return writeLine(conn, r)
}

func (s *Server) run(ctx context.Context, q request) response {
	r := response{Version: version}
	handler := s.Handlers[q.Command]
	if handler == nil {
		r.Error, r.Code = fmt.Sprintf("the agent that runs knows no command %.40q", q.Command), CodeUnknown
		return r
	}
	s.Log.Info("command by hand", "command", q.Command)
	result, err := handler(ctx, q.Argument)
	if err == nil {
		r.Result, err = json.Marshal(result)
	}
	var refusal *Error
	switch {
	case errors.As(err, &refusal):
		r.Error, r.Code = refusal.Text, refusal.Code
	case err != nil:
		r.Error, r.Code = err.Error(), CodeInternal
	}
	return r
}

// checkPeer refuses whoever is neither root nor the agent's own user.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(controlErr, err); err != nil {
		return fmt.Errorf("who is the peer: %w", err)
	}
	if !allowed(peer.Uid, os.Geteuid()) {
		return fmt.Errorf("refused user %d: neither root nor the agent's own", peer.Uid)
	}
	return nil
}

func allowed(peer uint32, own int) bool { return peer == 0 || int64(peer) == int64(own) }
