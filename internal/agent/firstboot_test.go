package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pin"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

const bundleName = "dev-plc-1.e1.g1.bundle.age"

func testPIN() pin.PIN { return pin.New([pin.Size]byte{3, 1, 4, 1, 5, 9, 2, 6, 5, 3}) }

// sealToPIN is what the PKG issued to plc-1, with little scrypt.
func sealToPIN(t testing.TB, generation uint32) []byte {
	t.Helper()
	to := must[bundle.Recipient](t)(bundle.PassphraseRecipient([]byte(testPIN().Text()), [32]byte{1}, 4))
	sealed, _, err := bundle.Seal(newBundle(t, generation), pkg(), to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// card is a boot partition with files, and the directory of an agent.
func card(t testing.TB, files map[string][]byte) agent.FirstBoot {
	t.Helper()
	dir := memoryDir(t)
	f := agent.FirstBoot{Dir: filepath.Join(dir, "agent"), From: filepath.Join(dir, "boot"), Layer: keyfiletest.New(0, keyfiletest.Kill)}
	if err := os.Mkdir(f.From, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(f.From, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		out = append(out, e.Name())
	}
	return out
}

func TestFirstBoot(t *testing.T) {
	t.Parallel()
	typed := []byte("\ufeff" + strings.ToLower(strings.ReplaceAll(testPIN().Text(), "-", " ")) + "\r\n")
	f := card(t, map[string][]byte{bundleName: sealToPIN(t, 1), "PIN.txt": typed, "config.txt": []byte("[all]"), "._" + bundleName: []byte("x")})
	done := must[agent.FirstBooted](t)(f.Run())
	if done.Identity.String() != "edgeclm/v1/dev/plc-1/e1.g1" || !done.Changed || done.Unwiped != nil || len(done.Wiped) != 2 {
		t.Errorf("%+v", done)
	}
	if got := names(t, f.From); !slices.Equal(got, []string{"._" + bundleName, "config.txt"}) {
		t.Errorf("left on the boot partition: %q", got)
	}
	if got := names(t, f.Dir); slices.Contains(got, "first-boot.json") {
		t.Errorf("left in the state directory: %q", got)
	}
	// Nothing more to do; the agent starts.
	if done := must[agent.FirstBooted](t)(f.Run()); done.Identity != (ibc.Identity{}) || done.Changed {
		t.Errorf("again: %+v", done)
	}
	device := must[*agent.Agent](t)(agent.Open(agent.Config{Dir: f.Dir}))
	if err := device.Close(); err != nil {
		t.Error(err)
	}
	// A later bundle on the card is taken too.
	if err := os.WriteFile(filepath.Join(f.From, "dev-plc-1.e1.g2.bundle.age"), sealToPIN(t, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	f.PIN = func() ([]byte, error) { return []byte(testPIN().Text()), nil }
	if done := must[agent.FirstBooted](t)(f.Run()); done.Identity.Generation != 2 || !done.Changed || len(done.Wiped) != 1 {
		t.Errorf("a later one: %+v", done)
	}
}

// A device that ran once gave its recipient to the PKG: no PIN is needed.
func TestFirstBootWithRecipient(t *testing.T) {
	t.Parallel()
	f := card(t, nil)
	_, to, err := agent.Provisioned(f.Dir, nil).Recipient()
	if err != nil {
		t.Fatal(err)
	}
	sealed, _, err := bundle.Seal(newBundle(t, 1), pkg(), to)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.From, bundleName), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if done := must[agent.FirstBooted](t)(f.Run()); !done.Changed || len(names(t, f.From)) != 0 {
		t.Errorf("%+v, left: %q", done, names(t, f.From))
	}
}

// What is not accepted stays, and makes no device.
func TestFirstBootRefuses(t *testing.T) {
	t.Parallel()
	sealed, good := sealToPIN(t, 1), []byte(testPIN().Text())
	typo := slices.Clone(good)
	typo[7], typo[8] = typo[8], typo[7]
	for _, c := range []struct {
		name  string
		files map[string][]byte
		err   error
	}{
		{"no PIN", map[string][]byte{bundleName: sealed}, agent.ErrNeedsPIN},
		{"mistyped", map[string][]byte{bundleName: sealed, "pin": typo}, pin.ErrTypo},
		{"not a PIN", map[string][]byte{bundleName: sealed, "pin": []byte("2718")}, pin.ErrForm},
		{"UTF-16", map[string][]byte{bundleName: sealed, "pin": []byte("\xff\xfe0\x000\x00")}, pin.ErrForm},
		{"of another bundle", map[string][]byte{bundleName: sealed, "pin": []byte(pin.New([pin.Size]byte{9}).Text())}, bundle.ErrPassphrase},
		{"two bundles", map[string][]byte{bundleName: sealed, "dev-plc-2.e1.g1.bundle.age": sealed}, agent.ErrSeveral},
		{"two PINs", map[string][]byte{bundleName: sealed, "pin": good, "pin.txt": good}, agent.ErrSeveral},
		{"damaged", map[string][]byte{bundleName: sealed[:len(sealed)-1], "pin": good}, bundle.ErrFormat},
		{"empty", map[string][]byte{bundleName: nil, "pin": good}, bundle.ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := card(t, c.files)
			done, err := f.Run()
			if !errors.Is(err, c.err) || done.Changed || len(done.Wiped) > 0 {
				t.Errorf("%+v, %v; want %v", done, err, c.err)
			}
			if strings.Contains(err.Error(), string(good)) {
				t.Errorf("the error holds the PIN: %v", err)
			}
			if got := names(t, f.From); len(got) != len(c.files) {
				t.Errorf("left: %q", got)
			}
			if _, err := agent.Open(agent.Config{Dir: f.Dir}); !errors.Is(err, provision.ErrNone) {
				t.Errorf("open: %v", err)
			}
		})
	}
}

// Attack: somebody leaves a card with a bundle of his own PKG where a device
// gets its first identity; and one with somebody else's where a device has one.
func TestFirstBootOfAnotherPKG(t *testing.T) {
	t.Parallel()
	f := card(t, map[string][]byte{bundleName: sealToPIN(t, 1), "pin": []byte(testPIN().Text())})
	f.ParamsID = &bundle.Hash{1}
	if _, err := f.Run(); !errors.Is(err, bundle.ErrParams) || len(names(t, f.From)) != 2 {
		t.Errorf("held to another params_id: %v, left %q", err, names(t, f.From))
	}
	right := bundle.Hash(pkg().Params().ID())
	f.ParamsID = &right
	if _, err := f.Run(); err != nil {
		t.Errorf("held to its own: %v", err)
	}
}

// Nothing to do leaves nothing behind.
func TestFirstBootWithoutBundle(t *testing.T) {
	t.Parallel()
	f := card(t, map[string][]byte{"pin": []byte("x")})
	must[agent.FirstBooted](t)(f.Run())
	if _, err := os.Lstat(f.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state directory was made: %v", err)
	}
	f.From = filepath.Join(f.From, "missing")
	must[agent.FirstBooted](t)(f.Run())
}

// The power fails at each operation: the device has its identity or the bundle
// is still whole, and the next start leaves the identity and nothing on the
// card.
func TestFirstBootResumes(t *testing.T) {
	t.Parallel()
	sealed := sealToPIN(t, 1)
	for name, mode := range map[string]keyfiletest.Mode{"kill": keyfiletest.Kill, "power loss": keyfiletest.PowerLoss} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for cut := 1; firstBootIsCut(t, sealed, cut, mode); cut++ {
			}
		})
	}
}

// firstBootIsCut cuts a run at an operation, and resumes it; false if there was
// nothing to cut any more.
func firstBootIsCut(t *testing.T, sealed []byte, cut int, mode keyfiletest.Mode) bool {
	t.Helper()
	f := card(t, map[string][]byte{bundleName: sealed, "pin": []byte(testPIN().Text())})
	layer := keyfiletest.New(cut, mode)
	f.Layer = layer
	done, err := f.Run()
	if !layer.Cut() {
		if err != nil || done.Unwiped != nil {
			t.Fatal(err, done.Unwiped)
		}
		return false
	}
	// That an identity is whole if it is there, TestInstallIsAtomic shows.
	there := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	identity := filepath.Join(f.Dir, provision.IdentityFile)
	whole, _ := os.ReadFile(filepath.Join(f.From, bundleName))
	if !there(identity) && string(whole) != string(sealed) {
		t.Fatalf("cut %d (%v): no identity, and the bundle is damaged", cut, err)
	}
	f.Layer = nil
	if done, err = f.Run(); err != nil || done.Unwiped != nil {
		t.Fatalf("cut %d: %v, %v", cut, err, done.Unwiped)
	}
	if left := names(t, f.From); !there(identity) || len(left) > 0 || there(filepath.Join(f.Dir, "first-boot.json")) {
		t.Fatalf("cut %d: identity %v, left on the card %q, journal %v", cut, there(identity), left, there(filepath.Join(f.Dir, "first-boot.json")))
	}
	return true
}

// A partition that cannot be written does not keep a device from serving.
func TestFirstBootFromReadOnlyPartition(t *testing.T) {
	t.Parallel()
	f := card(t, map[string][]byte{bundleName: sealToPIN(t, 1), "pin": []byte(testPIN().Text())})
	f.Layer = readOnly{agent.OS{}, f.From}
	for range 2 {
		done, err := f.Run()
		if err != nil || !errors.Is(done.Unwiped, fs.ErrPermission) {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	device := must[*agent.Agent](t)(agent.Open(agent.Config{Dir: f.Dir}))
	if err := device.Close(); err != nil {
		t.Error(err)
	}
	f.Layer = nil
	if done := must[agent.FirstBooted](t)(f.Run()); len(done.Wiped) != 2 || len(names(t, f.From)) != 0 {
		t.Errorf("once it can: %+v, left %q", done, names(t, f.From))
	}
}

type readOnly struct {
	agent.OS
	dir string
}

func (r readOnly) Remove(path string) error {
	if filepath.Dir(path) == r.dir {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrPermission}
	}
	return r.OS.Remove(path)
}

// A bundle and its PIN, as they come from a FAT file system: long names, in
// lower case, with the '=' that stands for ':'. What a kernel does on a mounted
// one is not tested here.
func TestFirstBootFromFAT(t *testing.T) {
	t.Parallel()
	mkfs, mcopy, mmd := testpeer.Look(t, "mkfs.vfat"), testpeer.Look(t, "mcopy"), testpeer.Look(t, "mmd")
	const name = "dev-hw=b8:27.e1.g1.bundle.age"
	fat := strings.ReplaceAll(name, ":", "=")
	f := card(t, map[string][]byte{fat: sealToPIN(t, 1), "pin.txt": []byte(testPIN().Text() + "\r\n")})
	image := filepath.Join(filepath.Dir(f.From), "boot.img")
	for _, argv := range [][]string{
		{mkfs, "-C", image, "2048"},
		{mmd, "-i", image, "::/edgeclm"},
		{mcopy, "-i", image, filepath.Join(f.From, fat), filepath.Join(f.From, "pin.txt"), "::/edgeclm"},
		{mcopy, "-s", "-i", image, "::/edgeclm", filepath.Dir(f.From) + "/fat"},
	} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	f.From = filepath.Join(filepath.Dir(f.From), "fat")
	if got := names(t, f.From); !slices.Equal(got, []string{fat, "pin.txt"}) {
		t.Fatalf("names on FAT: %q", got)
	}
	if done := must[agent.FirstBooted](t)(f.Run()); !done.Changed || len(done.Wiped) != 2 {
		t.Errorf("%+v", done)
	}
}
