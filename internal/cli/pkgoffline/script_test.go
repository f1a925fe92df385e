package pkgoffline_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// workFactor keeps scrypt fast in tests.
const workFactor = 4

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"pkg-offline":        program(airgap.Facts{}),
		"pkg-offline-online": program(airgap.Facts{Interfaces: []string{"eth0", "wlan0"}}),
		"pkg-offline-bad":    program(airgap.Facts{Interfaces: []string{"eth0"}, Radios: []string{"hci0 (bluetooth)"}, Swap: []string{"/dev/sda2"}}),
		"agekey":             tool(ageKey),
		"reseal":             tool(reseal),
		"flip":               tool(flip),
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup:              ownerOnly,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"failed": refused(clikit.ExitFailed),
			"usage":  refused(clikit.ExitUsage),
			"pinof":  pinOf,
			"secret": secret,
		},
	})
}

// ownerOnly closes a script's files to others, as files with passphrases are.
func ownerOnly(env *testscript.Env) error {
	return filepath.WalkDir(env.WorkDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
}

// refused runs pkg-offline and demands an exit code, one line of error, at most
// one of hint, and no result.
func refused(code int) func(ts *testscript.TestScript, neg bool, args []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("the command is negative already")
		}
		err := ts.Exec("pkg-offline", args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != code {
			ts.Fatalf("exit code: %v, want %d", err, code)
		}
		if out := ts.ReadFile("stdout"); out != "" {
			ts.Fatalf("a result: %s", out)
		}
		lines := strings.SplitAfter(ts.ReadFile("stderr"), "\n")
		if n := len(lines); n > 3 || !strings.HasPrefix(lines[0], "pkg-offline: error: ") || n == 3 && !strings.HasPrefix(lines[1], "pkg-offline: hint: ") {
			ts.Fatalf("not one line of error and one of hint: %q", lines)
		}
	}
}

// airGap is this machine with other facts: the denial is real.
type airGap struct {
	airgap.Machine
	facts airgap.Facts
}

func (m airGap) Facts() (airgap.Facts, error) { return m.facts, nil }

// program is pkg-offline on a machine of which these facts are true.
func program(facts airgap.Facts) func() {
	return func() {
		var seed [32]byte
		if known := os.Getenv("SEED"); known != "" {
			copy(seed[:], known)
		} else {
			binary.NativeEndian.PutUint64(seed[:], uint64(time.Now().UnixNano()))
		}
		code := pkgoffline.MainWith(os.Args[1:], clikit.OSStreams(), pkgoffline.Deps{
			Now:        func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
			Random:     rand.NewChaCha8(seed),
			AirGap:     airGap{facts: facts},
			WorkFactor: workFactor,
			Machine:    machine,
		})
		letTerminalBeRead()
		os.Exit(code)
	}
}

// letTerminalBeRead gives testscript the time to read what was written to the
// terminal that it made: once the program has ended, it closes that terminal
// without waiting for what is still in it. Only a program with a terminal of its
// own leads a session.
func letTerminalBeRead() {
	if session, err := unix.Getsid(0); err == nil && session == os.Getpid() {
		time.Sleep(200 * time.Millisecond)
	}
}

// machine is where the scripts run.
func machine() (transcript.Program, transcript.Host) {
	return transcript.Program{Version: "v0", Go: "go0", SHA256: "00"}, transcript.Host{Name: "ceremony", Kernel: "Linux 0"}
}

func tool(run func(args []string) error) func() {
	return func() {
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// ageKey makes an age key: agekey NAME writes NAME.key and NAME.age.
func ageKey(args []string) error {
	secret, recipient, err := bundle.GenerateOpener()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(args[0]+".key", append(secret, '\n'), 0o600),
		os.WriteFile(args[0]+".age", []byte(recipient.String()+"\n"), 0o600))
}

// flip copies a file with a bit in its middle flipped: flip FROM TO.
func flip(args []string) error {
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	data[len(data)*3/4] ^= 1
	return os.WriteFile(args[1], data, 0o600)
}

// reseal is an attacker who may open a bundle: reseal IN KEY RECIPIENT OUT
// [OLD NEW] seals its content, with OLD in the payload replaced, to RECIPIENT.
func reseal(args []string) error {
	sealed, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	to, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	identity, err := age.ParseHybridIdentity(string(bytes.TrimSpace(secret)))
	if err != nil {
		return err
	}
	recipient, err := age.ParseHybridRecipient(string(bytes.TrimSpace(to)))
	if err != nil {
		return err
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var e struct {
		Version   int    `json:"version"`
		Payload   []byte `json:"payload"`
		Signature string `json:"signature"`
		Key       string `json:"key"`
	}
	if err := json.Unmarshal(plain, &e); err != nil {
		return err
	}
	if len(args) > 4 {
		changed := bytes.Replace(e.Payload, []byte(args[4]), []byte(args[5]), 1)
		if bytes.Equal(changed, e.Payload) {
			return fmt.Errorf("%q is not in the payload: %s", args[4], e.Payload)
		}
		e.Payload = changed
	}
	if plain, err = json.Marshal(e); err != nil {
		return err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, recipient)
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return errors.Join(w.Close(), os.WriteFile(args[3], out.Bytes(), 0o600))
}

// pinOf reads a device's PIN from a sheet: pinof [-typed|-typo] SHEET NAME FILE
// writes it to FILE, as printed, as a person may type it, or mistyped.
func pinOf(ts *testscript.TestScript, _ bool, args []string) {
	how := ""
	if strings.HasPrefix(args[0], "-") {
		how, args = args[0], args[1:]
	}
	_, text, found := strings.Cut(ts.ReadFile(args[0]), "\n"+args[1]+"\n")
	_, text, foundPIN := strings.Cut(text, "\nPIN       ")
	if !found || !foundPIN {
		ts.Fatalf("%s has no PIN of %s", args[0], args[1])
	}
	pin := text[:23]
	switch how {
	case "-typed":
		pin = strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(pin, "-", " "), "0", "o"))
	case "-typo":
		other := "7"
		if pin[:1] == other {
			other = "8"
		}
		pin = other + pin[1:]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(pin+"\n"), 0o600))
}

// secret demands that nobody but the owner may read a file.
func secret(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if info.Mode().Perm() != 0o600 {
		ts.Fatalf("%s has mode %o", args[0], info.Mode().Perm())
	}
}
