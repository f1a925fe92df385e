package transcript_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// sign stands for the PKG: what it signs nobody else can, in these tests.
func sign(document []byte) ([]byte, error) {
	s := sha256.Sum256(append([]byte("the PKG: "), document...))
	return s[:], nil
}

var errSignature = errors.New("not the PKG's")

func verify(document, signature []byte) error {
	if s, _ := sign(document); !bytes.Equal(s, signature) {
		return errSignature
	}
	return nil
}

// clock goes on by a second with each look.
func clock() func() time.Time {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time { at = at.Add(time.Second); return at }
}

func begin(command string) transcript.Begin {
	return transcript.Begin{
		Command: "pkg-offline " + command, Arguments: []string{"--dir=pkg"}, Participants: []string{"Ada, officer"},
		Program: transcript.Program{Version: "v1", Go: "go1"}, Host: transcript.Host{Name: "vault", Kernel: "Linux"},
	}
}

// record is a run that writes secret.age into the PKG's directory and a file on
// a medium.
func record(files keyfile.Files, dir, command, content string, failed error, signer hashlog.Signer) error {
	r, err := transcript.Start(files, dir, clock(), begin(command))
	if err != nil {
		return err
	}
	err = work(r, dir, content)
	if err == nil {
		err = r.End(failed, &transcript.Head{Count: 1}, signer)
	}
	return errors.Join(err, r.Close())
}

func work(r *transcript.Run, dir, content string) error {
	if err := r.Note("two of three shares are here", transcript.Value{Name: "commitments", Value: "ab"}); err != nil {
		return err
	}
	if err := r.Warning("the battery is low"); err != nil {
		return err
	}
	if err := r.Recorded([]transcript.Entry{{Index: 1, Type: "issue", What: "edgeclm/v1/dev/plc-1/e1.g1"}}, transcript.Head{Count: 1}); err != nil {
		return err
	}
	if err := r.Files().WriteDurable(filepath.Join(dir, "secret.age"), []byte(content), keyfile.SecretPerm); err != nil {
		return err
	}
	return r.Files().WriteDurable(filepath.Join(filepath.Dir(dir), "usb.json"), []byte(content), keyfile.PublicPerm)
}

func mustRecord(t testing.TB, dir, command, content string, failed error, signer hashlog.Signer) {
	t.Helper()
	if err := record(keyfile.Files{}, dir, command, content, failed, signer); err != nil {
		t.Fatal(err)
	}
}

// idle is a run that does nothing.
func idle(t testing.TB, dir string) {
	t.Helper()
	r, err := transcript.Start(keyfile.Files{}, dir, clock(), begin("issue"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.End(nil, nil, sign), r.Close()); err != nil {
		t.Fatal(err)
	}
}

// names returns the files of the transcripts.
func names(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, transcript.Dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func check(dir string) error {
	chain, err := transcript.ReadAll(dir, verify)
	if err != nil {
		return err
	}
	return chain.CheckFiles(dir)
}

// A transcript says who, where, with what, what was done and how it ended.
func TestTranscript(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "init", "one", nil, sign)
	mustRecord(t, dir, "shares refresh", "two", errors.New("the stick is full"), sign)
	if err := check(dir); err != nil {
		t.Fatal(err)
	}
	files := names(t, dir)
	if len(files) != 2 || filepath.Base(files[0]) != "0001-20260102T030406Z-init.jsonl" || filepath.Base(files[1]) != "0002-20260102T030406Z-shares-refresh.jsonl" {
		t.Fatalf("files %v", files)
	}
	data, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	tr, err := transcript.Parse(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := tr.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Transcript 2 of pkg-offline shares refresh", "participant     Ada, officer", "machine         vault, Linux",
		"the run before is in 0001-20260102T030406Z-init.jsonl (signed)", "commitments     ab", "the battery is low",
		"entry 1         issue edgeclm/v1/dev/plc-1/e1.g1", "written         secret.age (of the PKG)  SHA-256 3fc4ccfe",
		"usb.json  SHA-256", "the run failed: the stick is full", "files written   2", "Signed by the PKG at head 7:",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
}

// What nobody could sign is reported until a signed transcript has noted it.
func TestUnsignedIsNoted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "init", "one", nil, sign)
	mustRecord(t, dir, "issue", "one", errors.New("wrong passphrase"), nil)
	mustRecord(t, dir, "issue", "one", errors.New("wrong passphrase"), nil)
	var line *hashlog.LineError
	err := check(dir)
	if !errors.Is(err, transcript.ErrUnsigned) || !errors.As(err, &line) || line.Line != 8 || !strings.Contains(err.Error(), "/0002-") {
		t.Fatalf("unsigned: %v", err)
	}
	mustRecord(t, dir, "issue", "two", nil, sign)
	if err := check(dir); err != nil {
		t.Fatal(err)
	}
}

// TestAttackUnsignedExcusesAFile: somebody changes a file of the PKG, and adds a
// transcript that says so. It is not signed, as that of a batch which is pending
// is not; so nothing that it says of files is believed.
func TestAttackUnsignedExcusesAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "init", "one", nil, sign)
	mustRecord(t, dir, "issue", "two", nil, nil)
	chain, err := transcript.ReadAll(dir, verify)
	if !errors.Is(err, transcript.ErrUnsigned) || chain == nil || len(chain.Runs) != 2 {
		t.Fatalf("chain %v, error %v", chain, err)
	}
	if err := chain.CheckFiles(dir); !errors.Is(err, transcript.ErrFile) {
		t.Fatalf("error %v, want ErrFile", err)
	}
}

// A run for which others sign later is completed by Sign.
func TestSignedLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "issue", "one", nil, nil)
	if err := check(dir); !errors.Is(err, transcript.ErrUnsigned) {
		t.Fatalf("unsigned: %v", err)
	}
	path := names(t, dir)[0]
	if err := transcript.Sign(keyfile.Files{}, path, sign); err != nil {
		t.Fatal(err)
	}
	if err := check(dir); err != nil {
		t.Fatal(err)
	}
	if err := transcript.Sign(keyfile.Files{}, path, sign); err == nil {
		t.Fatal("signed twice")
	}
}

// Two runs at once would both be the next: one of them waits its turn.
func TestOneRunAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	r, err := transcript.Start(keyfile.Files{}, dir, clock(), begin("init"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transcript.Start(keyfile.Files{}, dir, clock(), begin("issue")); !errors.Is(err, keyfile.ErrLocked) {
		t.Fatalf("a second run: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// Many files and arguments fit lines of bounded size.
func TestLongRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	b := begin("issue")
	for range 5000 {
		b.Arguments = append(b.Arguments, "a-name-of-some-length")
	}
	r, err := transcript.Start(keyfile.Files{}, dir, clock(), b)
	if err != nil {
		t.Fatal(err)
	}
	usb := t.TempDir()
	var entries []transcript.Entry
	for i := range 300 {
		entries = append(entries, transcript.Entry{Index: uint64(i) + 1, Type: "issue", What: strings.Repeat("x", 90)})
		if err := r.Files().WriteDurable(filepath.Join(usb, strings.Repeat("y", 90), string(rune('a'+i%26))), nil, 0o644); err == nil {
			t.Fatal("written into a directory that does not exist")
		}
	}
	batch := r.Files().NewBatch()
	for i := range 300 {
		if err := batch.Write(filepath.Join(usb, strings.Repeat("y", 90)+string(rune('a'+i%26))), []byte{byte(i)}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err = errors.Join(batch.Commit(), r.Recorded(entries, transcript.Head{Count: 300}), r.End(nil, nil, sign), r.Close())
	if err != nil {
		t.Fatal(err)
	}
	chain, err := transcript.ReadAll(dir, verify)
	if err != nil {
		t.Fatal(err)
	}
	if s := chain.Runs[0]; s.End.Files != 300 || s.End.Entries != 300 || len(s.Entries) != 300 || len(s.Begin.Arguments) > 1200 {
		t.Fatalf("%+v, %d arguments", s.End, len(s.Begin.Arguments))
	}
}

// A run, cut at every file operation, leaves a chain that the next one continues;
// the files of the directory are as one of the two runs has written them.
func TestCutAnywhere(t *testing.T) {
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss, keyfiletest.Scatter} {
		for cut := 1; ; cut++ {
			dir := filepath.Join(t.TempDir(), "pkg")
			mustRecord(t, dir, "init", "one", nil, sign)
			layer := keyfiletest.New(cut, mode)
			err := record(keyfile.On(layer), dir, "issue", "two", nil, sign)
			if !layer.Cut() {
				if err != nil || cut < 15 {
					t.Fatalf("uncut after %d operations: %v", cut-1, err)
				}
				break
			}
			if err == nil {
				t.Fatalf("cut at %d: no error", cut)
			}
			chain, err := transcript.ReadAll(dir, verify)
			if err != nil && !errors.Is(err, transcript.ErrUnsigned) && !errors.Is(err, hashlog.ErrFormat) {
				t.Fatalf("mode %d, cut at %d: %v", mode, cut, err)
			}
			if err == nil {
				if err := chain.CheckFiles(dir); err != nil {
					t.Fatalf("mode %d, cut at %d: %v", mode, cut, err)
				}
			}
			idle(t, dir)
			if err := check(dir); err != nil {
				t.Fatalf("mode %d, cut at %d, and the next run: %v", mode, cut, err)
			}
		}
	}
}

// An attacker with the directory, and without the PKG, changes one bit of any
// file in it: noticed, wherever it is.
func TestAttackFlippedBit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "init", "one", nil, sign)
	mustRecord(t, dir, "issue", "two", errors.New("no"), nil)
	mustRecord(t, dir, "issue", "three", nil, sign)
	random := rand.New(rand.NewPCG(1, 2))
	for _, path := range append(names(t, dir), filepath.Join(dir, "secret.age")) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Nothing is chained to the last line: there every byte counts.
		last := bytes.LastIndexByte(good[:len(good)-1], '\n')
		for i := random.IntN(7); i < len(good); i += 1 + 6*b2i(i < last) {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << random.IntN(8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := check(dir); err == nil {
				t.Fatalf("%s: byte %d is %q instead of %q", path, i, bad[i], good[i])
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// An attacker cuts a transcript short, at every line and in between: noticed at
// once, or, of the last one, as a run that was cut.
func TestAttackCutShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	mustRecord(t, dir, "init", "one", nil, sign)
	mustRecord(t, dir, "issue", "two", nil, sign)
	for n, path := range names(t, dir) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(good, []byte("\n"))
		size := 0
		for i, line := range lines[:len(lines)-1] {
			for _, at := range []int{size, size + len(line)/2, size + len(line) - 1} {
				if err := os.WriteFile(path, good[:at], 0o600); err != nil {
					t.Fatal(err)
				}
				if err := check(dir); err == nil {
					t.Fatalf("transcript %d, cut in line %d, at %d", n+1, i+1, at)
				}
			}
			size += len(line)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// An attacker takes a transcript away, swaps two, or puts one of his own there.
func TestAttackMissingOrForeign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pkg")
	for range 3 {
		mustRecord(t, dir, "issue", "one", nil, sign)
	}
	files := names(t, dir)
	swap := func(a, b string) {
		for _, m := range [][2]string{{a, a + ".x"}, {b, a}, {a + ".x", b}} {
			if err := os.Rename(m[0], m[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	refused := func(what string, want error) {
		t.Helper()
		if err := check(dir); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	swap(files[0], files[1])
	refused("two swapped", transcript.ErrMissing)
	swap(files[0], files[1])
	for _, i := range []int{0, 1} {
		if err := os.Rename(files[i], filepath.Join(t.TempDir(), "away")); err != nil {
			t.Fatal(err)
		}
		refused("taken away", transcript.ErrMissing)
		dir = filepath.Join(t.TempDir(), "pkg")
		for range 3 {
			mustRecord(t, dir, "issue", "one", nil, sign)
		}
		files = names(t, dir)
	}
	if err := os.WriteFile(filepath.Join(dir, transcript.Dir, "notes.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a stranger", hashlog.ErrFormat)
	if err := os.Remove(filepath.Join(dir, transcript.Dir, "notes.txt")); err != nil {
		t.Fatal(err)
	}
	mustRecord(t, dir, "issue", "one", nil, func(document []byte) ([]byte, error) {
		s := sha256.Sum256(document)
		return s[:], nil
	})
	refused("signed by somebody else", errSignature)
}

func FuzzParse(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "pkg")
	mustRecord(f, dir, "init", "one", nil, sign)
	mustRecord(f, dir, "issue", "two", errors.New("no"), nil)
	for _, path := range names(f, dir) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tr, err := transcript.Parse(data, verify)
		if tr == nil {
			if err == nil {
				t.Fatal("neither a transcript nor an error")
			}
			return
		}
		if (err == nil) != (tr.State == transcript.Signed && tr.End != nil) && !errors.Is(err, hashlog.ErrUnfinished) {
			t.Fatalf("state %s: %v", tr.State, err)
		}
		var out bytes.Buffer
		if err := tr.WriteText(&out); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(out.Bytes(), "\x1b\r\x00") {
			t.Fatalf("control characters: %q", out.Bytes())
		}
	})
}
