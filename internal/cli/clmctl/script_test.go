package clmctl_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/clitest"
	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
	"github.com/edgeclm/edgeclm/internal/labpeer"
)

func TestMain(m *testing.M) {
	programs := clitest.Programs(os.Exit)
	programs["later"] = later
	testscript.Main(m, programs)
}

// later is clmctl at a later time: later DURATION ARG...
func later() {
	after, err := time.ParseDuration(os.Args[1])
	if err != nil {
		panic(err)
	}
	now := func() time.Time { return time.Now().Add(after) }
	os.Exit(clmctl.MainWith(os.Args[2:], clikit.OSStreams(), clmctl.Deps{Now: now, Random: rand.Reader}))
}

// TestScripts runs the transcripts of the command line.
func TestScripts(t *testing.T) {
	t.Parallel()
	background := &servers{running: map[string]*labpeer.Process{}, sockets: map[string]*net.UDPConn{}}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "mode": mode, "serve": background.serve, "halt": background.halt,
			"silent": background.silent, "hears": background.hears,
			"port": port, "get": get,
		},
	})
}

// exits runs a command that has to end with an exit code: exits CODE COMMAND...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits: %v", err)
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("exits: %v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// mode checks the permissions of a file: mode 0600 FILE
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode PERMISSIONS FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// get writes what a URL answers to a file: get URL FILE
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get URL FILE")
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, args[0], nil)
	ts.Check(err)
	response, err := http.DefaultClient.Do(request)
	ts.Check(err)
	body, err := io.ReadAll(response.Body)
	ts.Check(errors.Join(err, response.Body.Close()))
	if response.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], response.Status)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o600))
}

// port takes the port of an address: port NAME ADDRESS, both of them names of
// environment variables.
func port(ts *testscript.TestScript, _ bool, args []string) {
	_, number, err := net.SplitHostPort(ts.Getenv(args[1]))
	ts.Check(err)
	ts.Setenv(args[0], number)
}
