package clmctl_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeclm/edgeclm/internal/cli/clitest"
	"github.com/edgeclm/edgeclm/internal/labpeer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, clitest.Programs(os.Exit))
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
			"port": port,
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

// port takes the port of an address: port NAME ADDRESS, both of them names of
// environment variables.
func port(ts *testscript.TestScript, _ bool, args []string) {
	_, number, err := net.SplitHostPort(ts.Getenv(args[1]))
	ts.Check(err)
	ts.Setenv(args[0], number)
}
