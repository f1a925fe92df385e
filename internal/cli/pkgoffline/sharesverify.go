package pkgoffline

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type sharesVerifyOptions struct {
	dir, sharing, paramsID string
	keys                   shareKeys
}

func (a *app) sharesVerifyCommand() *cobra.Command {
	var o sharesVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify (--dir DIR | --sharing FILE) SHARE-FILE...",
		Short: "Check shares, each by itself",
		Long: `verify opens every share file that is given and checks it against the commitments
in shares.json: each by itself, not only enough of them. It says which of the
known shares were not shown, makes nothing, and assembles nothing.

A holder checks the own share alone, on the own machine: with a copy of
shares.json (--sharing), which is public, and the params_id that the ceremony
printed (--params-id). With --dir, shares.json is held to the PKG's ledger too.`,
		Example: `  pkg-offline shares verify --sharing shared/shares.json --share-identity-file alice.key alice/share-1-alice.s1.share.age
  pkg-offline shares verify --dir shared --share-identity-file alice.key --share-identity-file bob.key alice/share-1-alice.s1.share.age bob/share-2-bob.s1.share.age`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return explain(a.runSharesVerify(cmd, o, args)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.sharing, "sharing", "", "shares.json, or a copy of it")
	f.StringVar(&o.paramsID, "params-id", "", "params_id that the shares must be of, in hex")
	o.keys.registerSecrets(f)
	cmd.MarkFlagsOneRequired("dir", "sharing")
	cmd.MarkFlagsMutuallyExclusive("dir", "sharing")
	return cmd
}

// verifiedShare is a line of the result of shares verify.
type verifiedShare struct {
	Index  int    `json:"index"`  // 0: it could not be read
	Holder string `json:"holder"` // "" then
	File   string `json:"file"`   // "": it was not shown
	Holds  bool   `json:"holds"`
	Reason string `json:"reason"` // why it does not hold; "" if it does, or was not shown
}

func (v verifiedShare) row() []string {
	result, index := "holds", ""
	switch {
	case v.File == "":
		result = "not shown"
	case !v.Holds:
		result = "DOES NOT HOLD: " + v.Reason
	}
	if v.Index > 0 {
		index = strconv.Itoa(v.Index)
	}
	return []string{index, v.Holder, v.File, result}
}

func (a *app) runSharesVerify(cmd *cobra.Command, o sharesVerifyOptions, files []string) error {
	sharing, lab, err := o.read()
	if err != nil {
		return err
	}
	if id := sharing.Params().ID(); o.paramsID != "" && hex.EncodeToString(id[:]) != o.paramsID {
		return fmt.Errorf("the description of the shares is %w: its params_id is %x", bundle.ErrParams, id)
	}
	if _, err := a.checkAirGap(a.lab || lab); err != nil {
		return err
	}
	r, err := a.newShareReader(cmd.Context(), sharing, o.keys)
	if err != nil {
		return err
	}
	var lines []verifiedShare
	failed, seen := 0, map[int]bool{}
	for _, path := range files {
		line := verifiedShare{File: path}
		x, err := r.open(path)
		switch {
		case clikit.ExitCode(err) == clikit.ExitUsage || cmd.Context().Err() != nil:
			return fmt.Errorf("share %s: %w", path, err)
		case err != nil:
			line.Reason = clikit.OneLine(err.Error())
			failed++
		default:
			line.Index, line.Holder, line.Holds = x.Index(), x.Holder, true
			seen[x.Index()] = true
			x.Destroy()
		}
		lines = append(lines, line)
	}
	if err := r.finished(); err != nil {
		return err
	}
	for i, name := range sharing.Holders() {
		if !seen[i+1] {
			lines = append(lines, verifiedShare{Index: i + 1, Holder: name})
		}
	}
	t := clikit.Table{Columns: clikit.Columns("share", "holder", "file", "result")}
	for _, line := range lines {
		t.Rows = append(t.Rows, line.row())
	}
	id := sharing.Params().ID()
	a.note("sharing %d of params_id %x: any %d of %d make the master secret", sharing.Serial(), id, sharing.Threshold(), len(sharing.Holders()))
	if err := clikit.Render(a.Out, a.Output, lines, t); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d shares: %w", failed, len(files), errDoesNotHold)
	}
	return nil
}

func (o sharesVerifyOptions) read() (s *custody.Sharing, lab bool, err error) {
	if o.sharing != "" {
		s, err = pkgen.ReadSharingFile(o.sharing)
		return s, false, err
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return nil, false, err
	}
	s, err = pkgen.ReadSharing(o.dir, public)
	return s, public.Lab(), err
}
