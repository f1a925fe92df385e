package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type sharesVerifyOptions struct {
	dir, sharing, paramsID, recovery string
	keys                             shareKeys
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
printed (--params-id). With --dir, shares.json is held to the PKG's ledger too.

Shares of what opens the recovery key are checked the same way, with --sharing
and the description that lies beside the key (recovery.age.shares.json).`,
		Example: `  pkg-offline shares verify --sharing shared/shares.json --share-identity-file alice.key alice/share-1-alice.s1.share.age
  pkg-offline shares verify --dir shared --share-identity-file alice.key --share-identity-file bob.key alice/share-1-alice.s1.share.age bob/share-2-bob.s1.share.age`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return explain(a.runSharesVerify(cmd, o, args)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.sharing, "sharing", "", "shares.json, or recovery.age.shares.json, or a copy of it")
	f.StringVar(&o.paramsID, "params-id", "", "params_id that the shares must be of, in hex")
	f.StringVar(&o.recovery, "recovery-sha256", "", "hash of the recovery key that the shares must be of, in hex")
	o.keys.registerSecrets(f)
	cmd.MarkFlagsOneRequired("dir", "sharing")
	cmd.MarkFlagsMutuallyExclusive("dir", "sharing")
	cmd.MarkFlagsMutuallyExclusive("params-id", "recovery-sha256")
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
	if err := sharing.heldTo(o); err != nil {
		return err
	}
	if _, err := a.checkAirGap(a.lab || lab); err != nil {
		return err
	}
	check, finished, err := sharing.checker(cmd.Context(), a, o.keys)
	if err != nil {
		return err
	}
	var lines []verifiedShare
	failed, seen := 0, map[int]bool{}
	for _, path := range files {
		line := verifiedShare{File: path}
		index, err := check(path)
		switch {
		case clikit.ExitCode(err) == clikit.ExitUsage || cmd.Context().Err() != nil:
			return fmt.Errorf("share %s: %w", path, err)
		case err != nil:
			line.Reason = clikit.OneLine(err.Error())
			failed++
		default:
			line.Index, line.Holder, line.Holds = index, sharing.holders[index-1], true
			seen[index] = true
		}
		lines = append(lines, line)
	}
	if err := finished(); err != nil {
		return err
	}
	for i, name := range sharing.holders {
		if !seen[i+1] {
			lines = append(lines, verifiedShare{Index: i + 1, Holder: name})
		}
	}
	t := clikit.Table{Columns: clikit.Columns("share", "holder", "file", "result")}
	for _, line := range lines {
		t.Rows = append(t.Rows, line.row())
	}
	a.note("%s", sharing.what)
	if err := clikit.Render(a.Out, a.Output, lines, t); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d shares: %w", failed, len(files), errDoesNotHold)
	}
	return nil
}

// checkedSharing is what shares are held to, of either kind.
type checkedSharing struct {
	holders  []string
	what     string     // a sentence
	paramsID pkgen.Hash // zero of a recovery key
	recovery pkgen.Hash // zero of a master secret
	checker  func(context.Context, *app, shareKeys) (checkShare, func() error, error)
}

// checkShare checks the share in a file and returns its number.
type checkShare func(path string) (index int, err error)

// heldTo holds it to what the ceremony printed.
func (s *checkedSharing) heldTo(o sharesVerifyOptions) error {
	switch {
	case o.paramsID != "" && s.paramsID.String() != o.paramsID:
		return fmt.Errorf("the description of the shares is %w: its params_id is %s", bundle.ErrParams, s.paramsID)
	case o.recovery != "" && s.recovery.String() != o.recovery:
		return fmt.Errorf("the description of the shares: %w: its recovery_sha256 is %s", pkgen.ErrRecovery, s.recovery)
	}
	return nil
}

func (o sharesVerifyOptions) read() (s *checkedSharing, lab bool, err error) {
	if o.sharing != "" {
		recovery, err := pkgen.ReadRecoverySharing(o.sharing)
		if err == nil {
			return checkRecovery(recovery), false, nil
		}
		if !errors.Is(err, custody.ErrKind) {
			return nil, false, err
		}
		master, err := pkgen.ReadSharingFile(o.sharing)
		if err != nil {
			return nil, false, err
		}
		return checkMaster(master), false, nil
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return nil, false, err
	}
	master, err := pkgen.ReadSharing(o.dir, public)
	if err != nil {
		return nil, false, err
	}
	return checkMaster(master), public.Lab(), nil
}

func checkMaster(s *custody.Sharing) *checkedSharing {
	id := pkgen.Hash(s.Params().ID())
	return &checkedSharing{
		holders: s.Holders(), paramsID: id, checker: newChecker(masterShare(s)),
		what: fmt.Sprintf("sharing %d of params_id %s: any %d of %d make the master secret", s.Serial(), id, s.Threshold(), len(s.Holders())),
	}
}

func checkRecovery(s *custody.RecoverySharing) *checkedSharing {
	return &checkedSharing{
		holders: s.Holders(), recovery: s.Recovery(), checker: newChecker(recoveryShare(s)),
		what: fmt.Sprintf("recovery key %s: any %d of %d open it", s.Recovery(), s.Threshold(), len(s.Holders())),
	}
}

// newChecker returns what checks shares of a kind, and then that no passphrase is
// left over.
func newChecker[S interface {
	Index() int
	Destroy()
}](open openShare[S]) func(context.Context, *app, shareKeys) (checkShare, func() error, error) {
	return func(ctx context.Context, a *app, k shareKeys) (checkShare, func() error, error) {
		r, err := newShareReader(ctx, a, k, open)
		if err != nil {
			return nil, nil, err
		}
		return func(path string) (int, error) {
			x, err := r.open(path)
			if err != nil {
				return 0, err
			}
			defer x.Destroy()
			return x.Index(), nil
		}, r.finished, nil
	}
}
