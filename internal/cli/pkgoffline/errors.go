package pkgoffline

import (
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// errDoesNotHold is the end of a check that failed; what failed was said.
var errDoesNotHold = errors.New("do not hold")

// explain adds to an error what to do next.
func explain(err error) error {
	for _, e := range []struct {
		cause error
		hint  string
	}{
		{pkgen.ErrNoPKG, "make one with pkg-offline init --dir DIR"},
		{pkgen.ErrExists, "choose another directory; a PKG is never overwritten"},
		{pkgen.ErrOtherRecipient, "give the new recipient the next generation of the key: --generation N"},
		{pkgen.ErrPassphrase, "nothing was issued or changed: try again, from the right paper; that run notes the transcript of this one, which nobody could sign"},
		{pkgen.ErrSuperseded, "leave --generation out to issue the latest again"},
		{pkgen.ErrUnknownCLM, "issue it first: pkg-offline issue --role clm --recipient-file FILE NAME"},
		{pkgen.ErrEarlierEpoch, "issue it first: pkg-offline issue --role clm --all, or with its --recipient-file"},
		{pkgen.ErrEpochUnfinished, "run pkg-offline new-epoch again: it completes what was interrupted"},
		{pkgen.ErrRecovery, "bring the recovery key of the PKG that is left; pkg-offline ledger shows its hash"},
		{pkgen.ErrSerial, "give the number after the last: --serial N; lifeboats that are out stay in force up to it"},
		{lifeboat.ErrSignature, "bring the statement again from the new PKG"},
		{pkgen.ErrForeign, "use the medium and the files of this PKG, or an empty medium"},
		{bundle.ErrParams, "use the medium and the files of this PKG, or an empty medium"},
		{pkgen.ErrOtherBatch, "contribute to this batch; the SHA-256 that each command prints tells batches apart"},
		{pkgen.ErrMoved, "make a new batch, with --batch, and contribute to that"},
		{pkgen.ErrUnreadable, "contribute nothing, and ask whoever made the batch"},
		{pkgen.ErrShared, "bring enough shares together: --share FILE for each"},
		{pkgen.ErrWhole, "give its passphrase; pkg-offline shares split turns it into shares"},
		{custody.ErrKind, "--share takes shares of the master secret, --recovery-share those of the recovery key"},
		{custody.ErrCeremony, "bring the share of this PKG, or of its recovery key"},
		{custody.ErrSharing, "bring the share that was made last, and destroy the earlier ones"},
		{custody.ErrTwice, "give each share once"},
		{custody.ErrTyped, "compare the lines that are named with the paper"},
		{errDoesNotHold, "bring the right file or passphrase, or make the share again: pkg-offline shares recover"},
		{ibc.ErrShare, "bring another share, or its copy on paper; shares verify checks each"},
		{transcript.ErrUnsigned, "the next run that opens the PKG notes it in its own, signed transcript; whether it was cut short, a head on paper tells (--head)"},
		{transcript.ErrMissing, "bring back the transcripts from a copy"},
		{transcript.ErrFile, "bring it back from a copy"},
		{hashlog.ErrUnfinished, "the next pkg-offline issue drops what is behind the last signed head"},
		{hashlog.ErrTruncated, "bring back the latest copy of the ledger before anything is issued"},
		{hashlog.ErrChain, "bring it back from a copy, and find out who changed it"},
		{hashlog.ErrHead, "bring it back from a copy, and find out who changed it"},
		{keyfile.ErrLocked, "wait until the other run has ended"},
		{keyfile.ErrReadBack, "use another medium"},
		{keyfile.ErrExists, "move it away first"},
	} {
		if errors.Is(err, e.cause) {
			return clikit.WithHint(err, e.hint)
		}
	}
	return err
}

// explainRequest is explain for what a person asked for: mistakes in it are
// usage errors.
func explainRequest(err error) error {
	for _, cause := range []error{pkgen.ErrRequest, custody.ErrOptions, fleet.ErrName, fleet.ErrLabel, ibc.ErrIdentity} {
		if errors.Is(err, cause) {
			return clikit.WithCode(explain(err), clikit.ExitUsage)
		}
	}
	return explain(err)
}
