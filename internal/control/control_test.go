package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start serves some handlers in a directory until the test ends.
func start(t *testing.T, dir string, handlers map[string]Handler) {
	t.Helper()
	s := &Server{Handlers: handlers, Log: slog.New(slog.DiscardHandler)}
	if err := s.Listen(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if _, err := os.Lstat(filepath.Join(dir, SocketName)); err == nil {
			t.Error("the socket was left behind")
		}
	})
}

func TestCall(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{t.TempDir(), deep} {
		var got string
		if err := Call(t.Context(), dir, "greet", nil, &got); !errors.Is(err, ErrNotRunning) {
			t.Errorf("nobody there: %v", err)
		}
		start(t, dir, map[string]Handler{
			"greet": func(context.Context, json.RawMessage) (any, error) { return "hello", nil },
			"no": func(context.Context, json.RawMessage) (any, error) {
				return nil, fmt.Errorf("so: %w", &Error{"mood", "not now"})
			},
			"echo": func(_ context.Context, argument json.RawMessage) (any, error) { return argument, nil },
			"fail": func(context.Context, json.RawMessage) (any, error) { return nil, io.ErrUnexpectedEOF },
		})
		if err := Call(t.Context(), dir, "greet", nil, &got); err != nil || got != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		long := strings.Repeat("x", 200<<10)
		for _, argument := range []string{"a", long[:100], "\n"} {
			if err := Call(t.Context(), dir, "echo", argument, &got); err != nil || got != argument {
				t.Errorf("%q came back as %.100q, %v", argument, got, err)
			}
		}
		if err := Call(t.Context(), dir, "greet", long, &got); err != nil {
			t.Errorf("with an argument of %d bytes: %v", len(long), err)
		}
		for command, want := range map[string]Error{
			"no":   {"mood", "not now"},
			"fail": {CodeInternal, "unexpected EOF"},
			"else": {CodeUnknown, `the agent that runs knows no command "else"`},
		} {
			var refusal *Error
			if err := Call(t.Context(), dir, command, nil, &got); !errors.As(err, &refusal) || *refusal != want {
				t.Errorf("%s: %v", command, err)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
}

// The socket of an agent that was killed is in nobody's way.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := Call(t.Context(), dir, "greet", nil, &got); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	start(t, dir, map[string]Handler{"greet": func(context.Context, json.RawMessage) (any, error) { return "hello", nil }})
	if err := Call(t.Context(), dir, "greet", nil, &got); err != nil {
		t.Error(err)
	}
}

// Somebody who interrupts a command does not wait for the agent.
func TestCallIsInterrupted(t *testing.T) {
	dir, release := t.TempDir(), make(chan struct{})
	start(t, dir, map[string]Handler{"wait": func(context.Context, json.RawMessage) (any, error) { <-release; return nil, nil }})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := Call(ctx, dir, "wait", nil, new(string)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Attack: another user of the device, who got at the socket, rolls back.
func TestAttackAnotherUser(t *testing.T) {
	for _, test := range []struct {
		peer uint32
		own  int
		want bool
	}{{0, 1000, true}, {1000, 1000, true}, {0, 0, true}, {1001, 1000, false}, {1000, 0, false}, {4294967295, -1, false}} {
		if got := allowed(test.peer, test.own); got != test.want {
			t.Errorf("user %d at an agent of %d: %v", test.peer, test.own, got)
		}
	}
}

// Attack: a peer that sends no end of a line, or nonsense, costs the agent a
// quarter of a megabyte.
func TestAttackEndlessRequest(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, nil)
	for _, text := range []string{strings.Repeat("x", 1<<20), "{\"version\":2}\n", "{}\n", "nonsense\n", "{\"version\":1,\"command\":7}\n"} {
		conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, text)
		answer, err := io.ReadAll(conn)
		if len(answer) > 0 && !bytes.Contains(answer, []byte(`"error"`)) {
			t.Errorf("%.20q: %s, %v", text, answer, err)
		}
		_ = conn.Close()
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("{\"version\":1,\"command\":\"rollback\"}\n"))
	f.Add([]byte("{\"version\":1,\"command\":\"rollback\",\"later\":true}\n"))
	f.Add([]byte("{\"version\":2}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		line, err := readLine(bytes.NewReader(data), maxRequest)
		if err != nil {
			return
		}
		var q request
		if err := parse(line, &q); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
			return
		}
		if q.Version != version || len(line) > maxRequest || !json.Valid(line) {
			t.Errorf("accepted %q", line)
		}
	})
}
