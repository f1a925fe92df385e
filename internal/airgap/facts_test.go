package airgap_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// tree is a file system of files with content.
func tree(files map[string]string) fs.FS {
	out := fstest.MapFS{}
	for name, content := range files {
		out[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return out
}

const noSwap = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

func TestRead(t *testing.T) {
	quiet := map[string]string{
		"class/net/lo/flags":               "0x9\n",
		"class/net/eth0/flags":             "0x1002\n", // broadcast, multicast, down
		"class/net/bonding_masters":        "bond0\n",
		"class/net/wlan0/flags":            "0x1002\n",
		"class/rfkill/rfkill0/soft":        "1\n",
		"class/rfkill/rfkill0/hard":        "0\n",
		"class/rfkill/rfkill1/soft":        "0\n",
		"class/rfkill/rfkill1/hard":        "1\n",
		"class/net/removed/operstate":      "down\n", // its flags are gone already
		"class/rfkill/removed/uevent":      "",
		"devices/virtual/net/eth1/flags":   "0x1003\n",
		"class/bluetooth/hci0/uevent":      "",
		"class/rfkill/rfkill1/device/name": "",
	}
	with := func(changes ...string) fs.FS {
		files := map[string]string{}
		for name, content := range quiet {
			files[name] = content
		}
		for i := 0; i < len(changes); i += 2 {
			files[changes[i]] = changes[i+1]
		}
		return tree(files)
	}
	swap := func(lines string) fs.FS { return tree(map[string]string{"swaps": noSwap + lines}) }
	for name, tc := range map[string]struct {
		sys, proc fs.FS
		want      airgap.Facts
		reasons   string
	}{
		"nothing":               {with(), swap(""), airgap.Facts{}, ""},
		"a kernel without swap": {with(), tree(map[string]string{"meminfo": ""}), airgap.Facts{}, ""},
		"an interface":          {with("class/net/eth0/flags", "0x1003"), swap(""), airgap.Facts{Interfaces: []string{"eth0"}}, "network interface eth0 is up"},
		"two interfaces": {
			with("class/net/eth0/flags", "0x1003", "class/net/tun0/flags", "0x1091"), swap(""),
			airgap.Facts{Interfaces: []string{"eth0", "tun0"}}, "network interfaces eth0, tun0 are up",
		},
		"a radio, its interface down": {
			with("class/rfkill/rfkill0/soft", "0", "class/rfkill/rfkill0/name", "phy0\n", "class/rfkill/rfkill0/type", "wlan\n"), swap(""),
			airgap.Facts{Radios: []string{"phy0 (wlan)"}}, "radio phy0 (wlan) is on",
		},
		"swap": {
			with(), swap("/dev/dm-1 partition 8388604 0 -2\n/dev/zram0 partition 1 0 100\n"),
			airgap.Facts{Swap: []string{"/dev/dm-1", "/dev/zram0"}}, "swap is on (/dev/dm-1, /dev/zram0)",
		},
	} {
		got, err := airgap.Read(tc.sys, tc.proc)
		if err != nil || !reflect.DeepEqual(got, tc.want) || strings.Join(got.Reasons(), "; ") != tc.reasons || got.Clean() != (tc.reasons == "") {
			t.Errorf("%s: %+v (%q), %v; want %+v", name, got, got.Reasons(), err, tc.want)
		}
	}
}

// A machine that does not tell is not taken for one that is cut off.
func TestReadFailsWhereNothingIsKnown(t *testing.T) {
	whole := tree(map[string]string{"class/net/lo/flags": "0x9"})
	for name, tc := range map[string]struct{ sys, proc fs.FS }{
		"no /sys":             {tree(nil), tree(map[string]string{"swaps": noSwap})},
		"no /proc":            {whole, tree(nil)},
		"flags are no number": {tree(map[string]string{"class/net/eth0/flags": "up"}), tree(map[string]string{"swaps": noSwap})},
		"half a radio":        {tree(map[string]string{"class/net/lo/flags": "0x9", "class/rfkill/rfkill0/soft": "1"}), tree(map[string]string{"swaps": noSwap})},
	} {
		if got, err := airgap.Read(tc.sys, tc.proc); err == nil {
			t.Errorf("%s: %+v without an error", name, got)
		}
	}
}

// The facts of this machine are those that the kernel tells by netlink, unless
// this process is in another network namespace than /sys shows.
func TestFactsOfThisMachine(t *testing.T) {
	facts, err := airgap.Machine{}.Facts()
	if err != nil {
		t.Fatal(err)
	}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var up []string
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			up = append(up, i.Name)
		}
		if _, err := os.Stat("/sys/class/net/" + i.Name); err != nil {
			t.Logf("/sys shows another network namespace: it lacks %s", i.Name)
			return
		}
	}
	slices.Sort(up)
	if !slices.Equal(facts.Interfaces, up) {
		t.Errorf("interfaces %v are up, netlink says %v", facts.Interfaces, up)
	}
}

// realFacts mounts the /sys of the network namespace that it was put into, and
// brings up its loopback interface and a tunnel.
func realFacts() error {
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("sysfs", "/sys", "sysfs", 0, "")); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	raise := func(name string) error {
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
	}
	var seen []airgap.Facts
	look := func() error {
		facts, err := airgap.Machine{}.Facts()
		seen = append(seen, facts)
		return err
	}
	tunnel := func() error {
		tun, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
		if err != nil {
			return nil //nolint:nilerr // there are no tunnels here
		}
		request, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN)
		return errors.Join(unix.IoctlIfreq(tun, unix.TUNSETIFF, request), look(), raise("tun0"), look())
	}
	if err := errors.Join(look(), raise("lo"), look(), tunnel()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func TestFactsInANetworkNamespace(t *testing.T) {
	out, err := act(t, "facts", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
		if os.Getuid() != 0 {
			c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
	})
	if err != nil {
		testpeer.Missing(t, fmt.Sprint("no network namespace can be made here: ", err))
	}
	var seen []airgap.Facts
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "", "", "tun0"}[:len(seen)] {
		if got := strings.Join(seen[i].Interfaces, " "); got != want {
			t.Errorf("look %d: interfaces %q are up, want %q", i+1, got, want)
		}
	}
	t.Logf("%d looks", len(seen))
}
