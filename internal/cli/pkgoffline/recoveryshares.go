package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// paths returns what may be standard input.
func (k *recoveryKeys) paths() []string {
	return slices.Concat([]string{k.passphraseFile}, k.shares.passphraseFiles, k.shares.identityFiles)
}

// openingRecovery is what opens a recovery key, once it was asked for.
type openingRecovery struct {
	file       string
	passphrase []byte // nil: shares
	shares     []*custody.RecoveryShare
}

func (o openingRecovery) open() (*pkgen.RecoveryKey, error) {
	if o.passphrase == nil {
		return pkgen.OpenRecoveryShares(o.file, o.shares)
	}
	return pkgen.OpenRecovery(o.file, o.passphrase)
}

// forget zeroes it.
func (o openingRecovery) forget() {
	clear(o.passphrase)
	destroy(o.shares)
}

// readRecovery asks for what opens a recovery key. The caller has passed the gate
// of the air gap.
func (a *app) readRecovery(ctx context.Context, k recoveryKeys) (openingRecovery, error) {
	o := openingRecovery{file: k.file}
	path := k.sharing
	if path == "" {
		path = k.file + pkgen.RecoverySharingSuffix
	}
	if len(k.shares.files) == 0 {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return o, needsShares(path)
		}
		from := a.pkgPassphrase(k.passphraseFile)
		from.Flag, from.What = "--recovery-passphrase-file", "passphrase of the recovery key"
		var err error
		o.passphrase, err = a.readSecret(ctx, from)
		return o, err
	}
	sharing, err := pkgen.ReadRecoverySharing(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = clikit.WithHint(err, "it is kept with the recovery key, and each holder may have a copy: --recovery-sharing FILE")
	}
	if err != nil {
		return o, fmt.Errorf("description of the shares: %w", err)
	}
	r, err := newShareReader(ctx, a, k.shares, recoveryShare(sharing))
	if err != nil {
		return o, err
	}
	if o.shares, err = r.all(k.shares.files); err != nil {
		o.forget()
	}
	return o, err
}

// needsShares says whose shares open a recovery key.
func needsShares(path string) error {
	sharing, err := pkgen.ReadRecoverySharing(path)
	if err != nil {
		return err
	}
	return clikit.WithHint(clikit.Usage("the recovery key is in shares: %d of those of %s open it, and none was given",
		sharing.Threshold(), strings.Join(sharing.Holders(), ", ")), "bring enough shares together: --recovery-share FILE for each")
}

// witnessRecovery notes in the transcript of an init who has shares of the
// recovery key, and signs it.
func (r *run) witnessRecovery(ledger *pkgen.Ledger, s bundle.Signer, path string) error {
	sharing, err := pkgen.ReadRecoverySharing(path)
	if err != nil {
		return err
	}
	values := []transcript.Value{
		{Name: "recovery_sha256", Value: sharing.Recovery().String()},
		{Name: "recovery_sharing_sha256", Value: sharing.ID().String()},
		{Name: "threshold", Value: fmt.Sprintf("%d of %d", sharing.Threshold(), len(sharing.Holders()))},
	}
	if err := r.note("what opens the recovery key was shared out", append(values, shareValues(sharing.Holders())...)...); err != nil {
		return err
	}
	return r.witness(ledger, s)
}

// recoverySharingView is a sharing of the recovery key as it is shown.
type recoverySharingView struct {
	File      string     `json:"file"` // the description
	SHA256    pkgen.Hash `json:"sha256"`
	Threshold int        `json:"threshold"`
	Holders   []string   `json:"holders"`
	Files     []string   `json:"files"`
}

func viewRecoverySharing(s *custody.RecoverySharing, path string, files []string) *recoverySharingView {
	return &recoverySharingView{path, s.ID(), s.Threshold(), s.Holders(), files}
}

func (v *recoverySharingView) fields() []clikit.Field {
	if v == nil {
		return nil
	}
	fields := []clikit.Field{
		{Name: "recovery_sharing", Value: v.File},
		{Name: "recovery_sharing_sha256", Value: v.SHA256.String()},
		{Name: "recovery_threshold", Value: fmt.Sprintf("%d of %d", v.Threshold, len(v.Holders))},
		{Name: "recovery_holders", Value: strings.Join(v.Holders, ", ")},
	}
	for _, path := range v.Files {
		fields = append(fields, clikit.Field{Name: "recovery_share", Value: path})
	}
	return fields
}
