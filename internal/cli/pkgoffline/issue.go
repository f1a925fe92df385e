package pkgoffline

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type issueOptions struct {
	dir, out, role, from   string
	keys                   keys
	recipientFile          string
	bundlePassphrase       sealing
	askBundlePassphrase    bool
	clms, anchorFiles      []string
	generation             uint32
	address, labels, names string
	sheet                  sheet
	batch                  string // "": it is issued at once
	all                    bool   // of the role
	except                 []string
}

func (a *app) issueCommand() *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue --dir DIR --out MEDIUM [--role clm] (NAME... | --from FILE.csv | --all)",
		Short: "Extract keys and write their sealed bundles to a medium",
		Long: `issue extracts the private key of every name, records it in the ledger, and
writes one sealed bundle per name and the signed manifest to the medium. Every
file is read back from the medium and compared.

A bundle is sealed to the age recipient that devagent recipient or clmctl
recipient prints, to a passphrase, or with --pin-sheet to a PIN of its own: the
sheet is a new file to print, for whoever puts the bundles on memory cards. A key that was issued goes to the same
recipient again at any time (so an interrupted run is completed by running it
again), but to another one only as the next generation.

A device needs the names of the CLMs that it shall listen to (--clm, up to 8);
this PKG must have issued them. Address, labels and names that are not given
are those of the name's latest issue.

--all issues for every name of the role that the ledger has, to the recipient
that got the latest key, with the CLMs that are on record: everybody needs it in
a new epoch. Leave out with --except who is out of service: what was issued again
counts as in service at the CLM.

With --batch nothing is issued, and no secret is needed: what the run would do is
written to a file, for the holders of shares to read and contribute to, each on a
machine of his own (shares contribute); shares combine then does it.

The list of --from is CSV; its header names the columns: name (required),
address, labels (k=v;k=v), recipient (an age recipient, or a file with one,
relative to the list) and names (as in --names).`,
		Example: `  pkg-offline issue --dir pkg --passphrase-file pass --out usb --role clm --recipient-file clm.age clm-1
  pkg-offline issue --dir pkg --passphrase-file pass --out usb --clm clm-1 --from devices.csv
  pkg-offline issue --dir pkg --passphrase-file pass --out usb --clm clm-1 --pin-sheet pins.txt plc-0002 plc-0003
  pkg-offline issue --dir pkg --passphrase-file pass --out usb --role clm --all
  pkg-offline issue --dir shared --share alice/share-1-alice.s1.share.age --share-identity-file alice.key --share bob/share-2-bob.s1.share.age --share-identity-file bob.key --out usb2 --role clm --recipient-file clm.age clm-1
  pkg-offline issue --dir shared --out usb3 --role clm --recipient-file clm.age --batch batch.json clm-2`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runIssue(cmd, o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	o.keys.register(f)
	f.StringVar(&o.out, "out", "", "the medium: a directory, made if need be")
	f.StringVar(&o.role, "role", "dev", "role of the names: dev or clm")
	f.StringVar(&o.recipientFile, "recipient-file", "", "file with the age recipient of the one name")
	a.registerSealing(f, &o.bundlePassphrase, "passphrase of bundles without recipient", "bundle-passphrase")
	f.BoolVar(&o.askBundlePassphrase, "ask-bundle-passphrase", false, "make or ask for the passphrase of bundles without recipient on the terminal")
	f.StringVar(&o.sheet.path, "pin-sheet", "", "new file for the PINs that bundles without recipient are sealed to, each to its own")
	f.BoolVar(&o.sheet.pages, "pin-pages", false, "each device on a page of its own of the PIN sheet")
	f.StringArrayVar(&o.clms, "clm", nil, "name of a CLM that the devices listen to (repeat for more)")
	f.StringArrayVar(&o.anchorFiles, "anchor-file", nil, "trust anchor of the devices, a CA certificate in PEM or DER (repeat for more)")
	f.StringVar(&o.from, "from", "", "list of devices in CSV, - for standard input")
	f.BoolVar(&o.all, "all", false, "every name of the role that the ledger has, to the recipients on record")
	f.StringArrayVar(&o.except, "except", nil, "with --all, leave this name out (repeat for more)")
	f.Uint32Var(&o.generation, "generation", 0, "generation of the keys (default: the present one)")
	f.StringVar(&o.address, "address", "", "host:port of the one name")
	f.StringVar(&o.labels, "labels", "", "labels: k=v;k=v")
	f.StringVar(&o.names, "names", "", "certificate names of the one device: cn:, dns:, ip:, uri:, separated by ';'")
	f.StringVar(&o.batch, batchFlag, "", batchUsage)
	a.participantFlag(f)
	_ = cmd.MarkFlagRequired("dir")
	_ = cmd.MarkFlagRequired("out")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"dev", "clm"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) runIssue(cmd *cobra.Command, o issueOptions, names []string) error {
	requests, err := a.requests(o, names)
	if err != nil {
		return explainRequest(err)
	}
	anchors, err := readAnchors(o.anchorFiles)
	if err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	if err := o.sheet.check(o.out); err != nil {
		return explain(err)
	}
	if err := apart("--generate-bundle-passphrase", o.bundlePassphrase.generate, o.out); err != nil {
		return err
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return explain(err)
	}
	r := a.newRun(cmd, o.dir)
	connected, err := r.gate(a.lab || public.Lab())
	if err != nil {
		return err
	}
	a.warnOfClassical(requests)
	ctx := cmd.Context()
	options := pkgen.IssueOptions{
		Medium: o.out, CLMs: o.clms, Anchors: anchors, PINs: o.sheet.path != "", Lab: connected, Progress: a.progress(),
	}
	if o.toPassphrase() {
		options.Passphrase, err = a.newPassphrase(ctx, o.bundlePassphrase)
		if err != nil {
			return err
		}
		defer clear(options.Passphrase)
	}
	if o.batch != "" {
		options.Progress = nil
		return explainRequest(a.propose(cmd, r, public, connected, o.batch, pkgen.Task{Issue: &pkgen.IssueTask{Requests: requests, Options: options}}))
	}
	opening, err := a.readKeys(ctx, o.dir, public, o.keys)
	if err != nil {
		return explain(err)
	}
	p, err := r.open(public, connected, opening)
	if err != nil {
		return explain(err)
	}
	issued, err := p.Issue(ctx, requests, options)
	if issued != nil {
		err = errors.Join(err, r.reissued(public, issued), o.sheet.write(a.files(), issued, public.Params, a.Now()))
	}
	err = errors.Join(r.end(err, p), p.Close())
	if issued != nil {
		err = errors.Join(a.renderIssued(o, public.Params, issued), err)
	}
	return explainRequest(err)
}

// warnOfClassical says which bundles a quantum attacker could open one day.
func (a *app) warnOfClassical(requests []pkgen.Request) {
	n, first := 0, ""
	for _, r := range requests {
		if r.Recipient == nil || r.Recipient.PostQuantum() {
			continue
		}
		if n++; n == 1 {
			first = r.Name
		}
	}
	if n > 0 {
		a.warn(fmt.Sprintf("not post-quantum: %d of %d bundles (first: %s) are sealed to plain X25519 recipients; who records the medium may open them one day (devagent recipient and clmctl recipient make hybrid ones)", n, len(requests), first))
	}
}

// issueResult is the result of issue, without the rows: the list "issued".
type issueResult struct {
	ParamsID string `json:"params_id"`
	Manifest string `json:"manifest"`
	Ledger   string `json:"ledger"`
}

func (a *app) renderIssued(o issueOptions, params *ibc.Params, issued *pkgen.Issued) error {
	id := params.ID()
	r := issueResult{
		ParamsID: hex.EncodeToString(id[:]),
		Manifest: filepath.Join(o.out, bundle.ManifestName),
		Ledger:   formatHead(issued.Ledger),
	}
	a.note("issued to %s: %d; the ledger is at %s", o.out, len(issued.Rows), r.Ledger)
	if o.sheet.path != "" {
		a.note("the PINs are in %s: print it, then delete it", o.sheet.path)
	}
	return clikit.RenderListed(a.Out, a.Output, r, "issued", rowColumns(), rowElements(a.Output, issued.Rows))
}

func formatHead(h bundle.LedgerHead) string {
	return strconv.FormatUint(h.Index, 10) + ":" + h.Hash.String()
}
