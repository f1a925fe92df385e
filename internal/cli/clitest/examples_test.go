package clitest_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clitest"
	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
	"github.com/edgeclm/edgeclm/internal/cli/devagent"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
)

func TestMain(m *testing.M) { testscript.Main(m, clitest.Programs(os.Exit)) }

// example is a line of the examples of a command.
type example struct {
	command *cobra.Command
	line    string
}

// programs are the three trees, made anew, since parsing leaves traces.
func programs() []*cobra.Command {
	return []*cobra.Command{pkgoffline.Command(), clmctl.Command(), devagent.Command()}
}

// commands calls each with every command that does something.
func commands(root *cobra.Command, each func(*cobra.Command)) {
	if root.Runnable() && root.Name() != "help" && !slices.Contains([]string{"bash", "zsh", "fish", "powershell"}, root.Name()) {
		each(root)
	}
	for _, sub := range root.Commands() {
		commands(sub, each)
	}
}

func examples() []example {
	var out []example
	for _, root := range programs() {
		commands(root, func(cmd *cobra.Command) {
			for line := range strings.Lines(cmd.Example) {
				out = append(out, example{cmd, strings.TrimSpace(line)})
			}
		})
	}
	return out
}

// words splits a line as a shell does, as far as examples go.
func words(line string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(line, -1) {
		if w == ">" {
			break // what follows is the shell's
		}
		out = append(out, strings.Trim(w, `"'`))
	}
	return out
}

func TestEveryCommandHasExamples(t *testing.T) {
	t.Parallel()
	n := 0
	for _, root := range programs() {
		commands(root, func(cmd *cobra.Command) {
			n++
			if cmd.Example == "" {
				t.Errorf("%s has no example", cmd.CommandPath())
			}
		})
	}
	if n < 40 {
		t.Errorf("only %d commands were found", n)
	}
}

// TestExamplesParse: each example is of its command, with flags and arguments
// that there are.
func TestExamplesParse(t *testing.T) {
	t.Parallel()
	for _, x := range examples() {
		args := words(x.line)
		root := programs()[slices.IndexFunc(programs(), func(c *cobra.Command) bool { return c.Name() == x.command.Root().Name() })]
		if args[0] != root.Name() {
			t.Errorf("%s: %q begins with another program", x.command.CommandPath(), x.line)
			continue
		}
		cmd, rest, err := root.Find(args[1:])
		if err != nil || cmd.CommandPath() != x.command.CommandPath() {
			t.Errorf("%s: %q is an example of %s (%v)", x.command.CommandPath(), x.line, cmd.CommandPath(), err)
			continue
		}
		err = cmd.ParseFlags(rest)
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err = errors.Join(err, cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
			t.Errorf("%s: %q: %v", x.command.CommandPath(), x.line, err)
		}
	}
}

// bench is the folder in which examples are run.
type bench struct {
	t   *testing.T
	dir string
	ca  [2]string // the URLs of lab CAs
	at  string    // the address of plc-0001.bilbao
}

// run runs a line and returns its exit code and what it wrote.
func (b *bench) run(line string) (code int, output string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = b.dir
	cmd.Env = b.environment()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("%s: %v", line, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (b *bench) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "TMPDIR=" + b.dir, "CLM_DATA_DIR=" + filepath.Join(b.dir, "clm"),
		"DEVAGENT_DATA_DIR=" + filepath.Join(b.dir, "dev"), "CLM_NO_INPUT=true", "CLM_DEVICE_HANDSHAKE_TIMEOUT=2s",
	}
}

func (b *bench) must(line string) {
	b.t.Helper()
	if code, out := b.run(line); code != 0 {
		b.t.Fatalf("%s: exit code %d\n%s", line, code, out)
	}
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// holders makes age keys, NAME.key, and their recipients, NAME.age.
func (b *bench) holders(names ...string) {
	b.t.Helper()
	for _, name := range names {
		secret, recipient, err := bundle.GenerateOpener()
		if err != nil {
			b.t.Fatal(err)
		}
		b.write(name+".key", string(secret))
		b.write(name+".age", recipient.String())
	}
}

// serve starts a program that serves until the test ends, and returns what the
// pattern matched in what it wrote.
func (b *bench) serve(pattern string, args ...string) string {
	b.t.Helper()
	log, err := os.Create(filepath.Join(b.dir, strings.ReplaceAll(strings.Join(args, "_"), "/", "_")))
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = b.dir, b.environment(), log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(log.Name())
		if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
			return string(m[1])
		}
		if err != nil || time.Now().After(deadline) {
			b.t.Fatalf("%v: %v\n%s", args, err, text)
		}
	}
}

// adapt puts what is here in the place of what an example only hints at.
func (b *bench) adapt(line string) string {
	host := func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil {
			b.t.Fatal(err)
		}
		return u.Host
	}
	return strings.NewReplacer(
		"http://ca.example/scep", b.ca[0], "http://ca2.example/scep", b.ca[1], "ca2.example", host(b.ca[1]),
		"discover plc-0001.bilbao 10.3.0.11:5684", "discover "+b.at,
		" --fingerprint sha256:2f0c…", " --yes", " --fingerprint sha256:77e1…", " --yes",
	).Replace(line)
}

// TestExamplesRun runs the examples in a plant that they build themselves as
// far as they can.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, dir: t.TempDir()}
	b.write("pass", "hove boni soro xehe fohi vobu pofe kico\n")
	b.write("challenge", "secret\n")
	b.write("plant.csv", "name,asset\nplc-0001,PRESS 8\n")
	b.ca[0] = b.serve(`(?m)^(http://\S+)$`, "clmctl", "lab-ca", "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--challenge-file", "challenge", "--lifetime", "1h")
	b.ca[1] = b.serve(`(?m)^(http://\S+)$`, "clmctl", "lab-ca", "serve", "--dir", "ca2", "--listen", "127.0.0.1:0", "--lifetime", "1h")
	b.must("cp ca/root.pem old.pem && cp ca2/root.pem new.pem")
	b.must("pkg-offline init --dir newpkg --passphrase-file pass --lab && pkg-offline init --dir oldpkg --passphrase-file pass --lab --recovery-file recovery.age")
	all := examples()
	done := map[string]bool{}
	try := func(x example) {
		done[x.line] = true
		want, known := expected()[x.line]
		if code, out := b.run(b.adapt(x.line)); code != want && (known || code != 3) {
			t.Errorf("%s: exit code %d, want %d\n%s", x.line, code, want, out)
		}
	}
	path := func(path string) {
		for _, x := range all {
			if x.command.CommandPath() == path && !done[x.line] && runs(x) {
				try(x)
			}
		}
	}
	b.holders("alice", "bob", "carol", "dora")
	path("pkg-offline init")
	b.must("mkdir alice bob carol && mv shared/shares/share-1-* alice && mv shared/shares/share-2-* bob && mv shared/shares/share-3-* carol")
	b.must("cp apart/recovery.age apart.age && cp apart/recovery.age.shares.json apart.age.shares.json")
	b.must("cp apart/recovery-shares/recovery-share-1-* alice/apart.share.age && cp apart/recovery-shares/recovery-share-2-* bob/apart.share.age")
	path("pkg-offline shares verify") // before they are refreshed
	path("pkg-offline shares paper")
	path("clmctl recipient")
	path("devagent recipient")
	b.must("devagent --data-dir bilbao recipient > bilbao.age")
	b.must(`printf 'name,recipient,labels\nplc-0001,%s,line=3\nplc-0001.bilbao,%s,line=5\n' "$(cat plc-0001.age)" "$(cat bilbao.age)" > devices.csv`)
	path("pkg-offline issue")
	path("pkg-offline shares contribute") // before the ledger moves on
	path("pkg-offline shares combine")
	b.must("pkg-offline issue --dir pkg --passphrase-file pass --out usb --clm clm-1 --pin-sheet more.txt hw-b827eb123456 bench-1")
	path("clmctl init")
	path("devagent provision")
	b.must("devagent --data-dir bilbao provision usb/dev-plc-0001.bilbao.e1.g1.bundle.age")
	at := b.serve(`listening on (\S+:\d+)`, "devagent", "--data-dir", "bilbao", "serve", "--listen", "127.0.0.1:0")
	b.write("addresses.csv", "name,address\nplc-0001.bilbao,"+at+"\nplc-0001,127.0.0.1:9\nbench-1,127.0.0.1:9\n")
	b.at = at
	path("clmctl ca add")
	path("clmctl commission")
	path("clmctl enrol")
	path("clmctl ca show")
	path("devagent rollback")
	// The media are of the epoch before then, and no passphrase opens what is in shares.
	last := []string{"pkg-offline new-epoch", "pkg-offline shares split"}
	for _, x := range all {
		if !done[x.line] && runs(x) && !slices.Contains(last, x.command.CommandPath()) {
			try(x)
		}
	}
	for _, command := range last {
		path(command)
	}
}

// expected lists the examples that end otherwise here than with 0, or with 3:
// that a device is not there is no fault of an example.
func expected() map[string]int {
	return map[string]int{
		"clmctl device rollback plc-0001.bilbao":                                                  2, // nobody is there to confirm it
		"devagent rollback":                                                                       1, // nothing was activated yet
		"clmctl doctor --device bench-1 --conformance --slot -o json":                             1, // an enrolment waits for it
		"clmctl init --bundle usb/clm-clm-1.e1.g1.bundle.age --lifeboat usb/lifeboat-1.statement": 2, // the PKG was not reached by one
		"clmctl epoch close 1 --abandon plc-0003 --reason 'scrapped'":                             2, // there is one epoch only
		"clmctl notify retry msg_5f0c1d8e2a7b4c6d9e3f0a1b2c3d4e5f":                                2, // nobody is configured
		"clmctl notify test":                                                                      2, // nobody is configured
		"clmctl notify test webhook":                                                              2,
	}
}

// runs reports whether an example ends by itself, and soon.
func runs(x example) bool {
	serves := slices.Contains([]string{"serve", "run", "watch"}, x.command.Name())
	return !serves && !notRun()[x.line]
}

// notRun lists the examples that take minutes, or want what no test has: they
// are parsed alone.
func notRun() map[string]bool {
	return map[string]bool{
		// rollover.txtar runs all of a rollover.
		"clmctl ca rollover back --yes": true, "clmctl ca rollover next": true, "clmctl ca rollover next --statement usb/anchors-3.anchor.json": true,
		"clmctl ca rollover status": true, "clmctl ca rollover status -o json": true,
		"clmctl ca rollover start http://ca2.example/scep --statement usb/anchors-2.anchor.json --challenge-file challenge2 --fingerprint sha256:2f0c…": true,

		"clmctl watch": true, "clmctl watch --view": true, // TestWatchInTmux, TestWatchInPipe
		"clmctl demo": true, "clmctl demo --ca step-ca": true,
		"clmctl discover 10.3.0.0/24":                            true,
		"devagent provision --first-boot /boot/firmware/edgeclm": true,
	}
}
