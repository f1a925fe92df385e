package pkgoffline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// Names in a rehearsal say what they are.
const (
	rehearsalCLM    = "rehearsal-clm"
	rehearsalDevice = "rehearsal-plc"
)

// steps are the ceremony.
func (h *rehearsal) steps() []step {
	return slices.Concat(h.made(), h.issued(), h.apart(), h.shared(), h.attacked())
}

func (h *rehearsal) made() []step {
	verify := []string{"shares", "verify", "--dir", "@pkg"}
	for i := 1; i <= h.shares; i++ {
		verify = append(verify, "--share-identity-file", "@"+h.holder(i)+".key")
	}
	for i := 1; i <= h.shares; i++ {
		verify = append(verify, h.share("sticks", i, 1))
	}
	return []step{
		{title: "the PKG is made", why: fmt.Sprintf("a master secret that nobody has: %d shares, of which %d are needed; each goes to its holder. The passphrase seals the recovery key.", h.shares, h.threshold),
			words: slices.Concat([]string{"init", "--dir", "@pkg", "--generate-passphrase", "@recovery.pass", "--recovery-file", "@recovery.age", "--shares-out", "@sticks",
				"--participant", "rehearsal officer, runs it", "--participant", "rehearsal witness, watches"}, h.holders())},
		{title: "the PKG is checked", why: "read params_id and the head of the ledger aloud, and write both down: on paper they prove later that nothing is missing.",
			words: []string{"verify", "--dir", "@pkg"}},
		{title: "every share is checked", why: "each one, not just enough of them: a share that does not hold would be noticed on the day it is needed.", words: verify},
	}
}

func (h *rehearsal) issued() []step {
	return []step{
		{title: "a CLM gets its key", why: "the shares are brought together on this machine, and the master secret is in its memory for the moment.",
			words: slices.Concat([]string{"issue", "--dir", "@pkg"}, h.with("sticks", 1), []string{"--out", "@usb", "--role", "clm", "--recipient-file", "@clm.age", rehearsalCLM})},
		{title: "a device gets its key", why: "sealed to the recipient that the device printed; on the day there is a list (--from).",
			words: slices.Concat([]string{"issue", "--dir", "@pkg"}, h.with("sticks", 1), []string{"--out", "@usb", "--clm", rehearsalCLM, "--recipient-file", "@device.age", rehearsalDevice + "-1"})},
	}
}

// apart are the steps of an issue for which the shares stay apart.
func (h *rehearsal) apart() []step {
	steps := []step{{title: "a batch is written down", why: "the better way: the holders stay apart, and the master secret is never put together. The batch says in plain words what is to be made.",
		words: []string{"issue", "--dir", "@pkg", "--out", "@usb", "--clm", rehearsalCLM, "--recipient-file", "@device.age", "--batch", "@batch.json", rehearsalDevice + "-2"}}}
	combine := []string{"shares", "combine", "--dir", "@pkg", "--batch", "@batch.json", "--out", "@usb"}
	for i := 1; i <= h.threshold; i++ {
		out := fmt.Sprintf("@contribution-%d.age", i)
		steps = append(steps, step{title: h.holder(i) + " contributes", why: "on a machine of the holder's own, who reads the batch first. A CLM or a key that goes out again needs an explicit --accept.",
			words: []string{"shares", "contribute", "--sharing", "@pkg/shares.json", "--share", h.share("sticks", i, 1), "--share-identity-file", "@" + h.holder(i) + ".key", "--out", out, "--yes", "@batch.json"}})
		combine = append(combine, out)
	}
	return append(steps, step{title: "the contributions are combined", why: "each one is held to the commitments; who contributed what does not hold is named.", words: combine})
}

func (h *rehearsal) shared() []step {
	lost := h.shares
	return []step{
		{title: "the shares are given anew", why: "a holder leaves, or a medium was out of sight: new shares of the same secret, and the earlier ones are worth nothing with them.",
			words: slices.Concat([]string{"shares", "refresh", "--dir", "@pkg"}, h.with("sticks", 1), h.holders(), []string{"--shares-out", "@sticks2"})},
		{title: "a share is lost, and made again", why: "by enough of the others.",
			before: func() error { return keyfile.Files{}.Wipe(h.path("sticks2/" + filepath.Base(h.share("x", lost, 2)))) },
			words: slices.Concat([]string{"shares", "recover", "--dir", "@pkg"}, h.with("sticks2", 2),
				[]string{"--holder", h.holder(lost) + "=@" + h.holder(lost) + ".age", "--shares-out", "@sticks2"})},
		{title: "the medium comes back", why: "issued, provisioned, commissioned, outstanding: nothing was provisioned in a rehearsal, so all of it is outstanding.",
			words: []string{"receipt", "--dir", "@pkg", "@usb"}},
		{title: "everything is verified", why: "without a secret, on any machine: the PKG, its transcripts, the medium.",
			words: []string{"verify", "--dir", "@pkg", "@usb"}},
	}
}

// attacked are the steps that show what does not go through.
func (h *rehearsal) attacked() []step {
	var bundleFile string
	var good []byte
	return []step{
		{title: "somebody tampers with a bundle", why: "one bit of one file on the medium is changed.", refused: true,
			before: func() error {
				all, err := filepath.Glob(h.path("usb/*.bundle.age"))
				if err != nil || len(all) == 0 {
					return fmt.Errorf("rehearsal: no bundle is on the medium: %w", err)
				}
				bundleFile = all[0]
				if good, err = os.ReadFile(bundleFile); err != nil {
					return err
				}
				return flip(bundleFile, good)
			},
			after: func() error { return keyfile.WriteDurable(bundleFile, good, keyfile.SecretPerm) },
			words: []string{"verify", "--dir", "@pkg", "@usb"}},
		{title: "somebody tampers with the record", why: "one bit of the first transcript is changed.", refused: true,
			before: func() error {
				all, err := filepath.Glob(h.path("pkg/" + transcript.Dir + "/0001-*"))
				if err != nil || len(all) != 1 {
					return fmt.Errorf("rehearsal: there is no first transcript: %w", err)
				}
				bundleFile = all[0]
				if good, err = os.ReadFile(bundleFile); err != nil {
					return err
				}
				return flip(bundleFile, good)
			},
			after: func() error { return keyfile.WriteDurable(bundleFile, good, keyfile.SecretPerm) },
			words: []string{"verify", "--dir", "@pkg"}},
		{title: "somebody brings a share of before", why: "one that should have been destroyed.", refused: true,
			words: slices.Concat([]string{"issue", "--dir", "@pkg"}, h.with("sticks", 1), []string{"--out", "@usb", "--clm", rehearsalCLM, "--recipient-file", "@device.age", rehearsalDevice + "-3"})},
		{title: "everything is verified again", why: "what was refused has changed nothing.", words: []string{"verify", "--dir", "@pkg", "@usb"}},
	}
}

// flip changes one bit in the middle of a file.
func flip(path string, data []byte) error {
	bad := slices.Clone(data)
	bad[len(bad)/2] ^= 1
	return keyfile.WriteDurable(path, bad, keyfile.SecretPerm)
}
