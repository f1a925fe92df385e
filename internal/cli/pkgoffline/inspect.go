package pkgoffline

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

type inspectOptions struct {
	identityFile, bundlePassphraseFile, params string
}

func (a *app) inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what is in a transcript, a bundle, a manifest, a statement or a params.json",
		Long: `inspect shows a transcript as a text to read, or a bundle, a manifest, an anchor
or epoch statement, or parameters. Of a sealed bundle only the outside is known; with the age key or the passphrase that opens it, inspect
checks it as a device would and shows all of it but the private key.`,
		Example: "  pkg-offline inspect pkg/params.json\n  pkg-offline inspect usb/manifest.json",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.runInspect(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.identityFile, "identity-file", "", "file with the age key (AGE-SECRET-KEY-…) that opens the bundle")
	f.StringVar(&o.bundlePassphraseFile, "bundle-passphrase-file", "", "file with the passphrase or PIN that opens the bundle, - for standard input")
	f.StringVar(&o.params, "params", "", "parameters of the PKG that signed a transcript, a params.json (default: those of the PKG that it lies in)")
	cmd.MarkFlagsMutuallyExclusive("identity-file", "bundle-passphrase-file")
	return cmd
}

func (a *app) runInspect(cmd *cobra.Command, o inspectOptions, path string) error {
	if isTranscript(target{path: path}) {
		data, err := keyfile.Read(path, transcript.MaxSize)
		if err != nil {
			return err
		}
		return explain(a.inspectTranscript(o, path, data))
	}
	data, err := keyfile.Read(path, bundle.MaxManifestSize)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(data, []byte("age-encryption.org/")) {
		return explain(a.inspectBundle(cmd, o, path, data))
	}
	if lifeboat.Is(data) {
		return explain(a.inspectLifeboat(path))
	}
	if o.identityFile != "" || o.bundlePassphraseFile != "" {
		return fmt.Errorf("%s is not a sealed bundle", path)
	}
	var probe struct {
		Suite string `json:"suite"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%s is neither a bundle nor a manifest, a statement or parameters", path)
	}
	if probe.Suite != "" {
		return a.inspectParams(path, data)
	}
	if bundle.IsSuccession(data) {
		return explain(a.inspectSuccession(path, data))
	}
	if bundle.IsAnchorStatement(data) {
		return explain(a.inspectStatement(path, data))
	}
	return explain(a.inspectManifest(path, data))
}

func (a *app) inspectStatement(path string, data []byte) error {
	params, err := bundle.AnchorParams(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	set, _, err := bundle.ParseAnchors(data, params)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	a.note("signed under params_id %s, epoch %d", set.ParamsID, set.Epoch)
	view := viewStatement(path, set)
	return a.render(view, view.fields()...)
}

func (a *app) inspectParams(path string, data []byte) error {
	params := new(ibc.Params)
	if err := json.Unmarshal(data, params); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	id, ppub := params.ID(), params.Ppub()
	return a.render(params,
		clikit.Field{Name: "suite", Value: ibc.Suite},
		clikit.Field{Name: "epoch", Value: strconv.FormatUint(uint64(params.Epoch()), 10)},
		clikit.Field{Name: "params_id", Value: hex.EncodeToString(id[:])},
		clikit.Field{Name: "ppub", Value: hex.EncodeToString(ppub[:])},
	)
}

// inspectAnchors is how trust anchors are shown.
func inspectAnchors(anchors [][]byte) []inspectedAnchor {
	out := []inspectedAnchor{}
	for _, der := range anchors {
		anchor := inspectedAnchor{SHA256: sha256.Sum256(der)}
		if cert, err := x509.ParseCertificate(der); err == nil {
			anchor.Subject = cert.Subject.String()
		}
		out = append(out, anchor)
	}
	return out
}

// inspectedManifest is the result for a manifest.
type inspectedManifest struct {
	Kind     string `json:"kind"`
	ParamsID string `json:"params_id"`
	Epoch    uint32 `json:"epoch"`
	Ledger   string `json:"ledger"`
}

func (a *app) inspectManifest(path string, data []byte) error {
	params, err := bundle.ManifestParams(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	m, err := bundle.ParseManifest(data, params)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	id := params.ID()
	a.note("signed under params_id %x, epoch %d", id, params.Epoch())
	return clikit.RenderListed(a.Out, a.Output,
		inspectedManifest{"manifest", hex.EncodeToString(id[:]), params.Epoch(), formatHead(m.Ledger)}, "rows", rowColumns(), rowElements(a.Output, m.Rows))
}

// inspectedBundle is the result for a bundle; of a sealed one all behind
// Content is absent.
type inspectedBundle struct {
	Kind     string           `json:"kind"`
	File     string           `json:"file"`
	SHA256   bundle.Hash      `json:"sha256"`
	SealedTo []string         `json:"sealed_to"`
	Content  *inspectedInside `json:"content"`
}

type inspectedInside struct {
	Identity     ibc.Identity      `json:"identity"`
	PublicKey    string            `json:"public_key"`
	ParamsID     string            `json:"params_id"`
	Peers        []bundle.Peer     `json:"peers"`
	Names        []fleet.Name      `json:"names"`
	Address      string            `json:"address"`
	CLMAddresses []string          `json:"clm_addresses"`
	Anchors      []inspectedAnchor `json:"anchors"`
	Epochs       []*ibc.Params     `json:"epochs"` // to which its statements lead
	Recovery     bundle.Hash       `json:"recovery_sha256"`
	Recipient    bundle.Hash       `json:"recipient_sha256"`
}

type inspectedAnchor struct {
	Subject string      `json:"subject"`
	SHA256  bundle.Hash `json:"sha256"`
}

func (a *app) inspectBundle(cmd *cobra.Command, o inspectOptions, path string, data []byte) error {
	kinds, err := bundle.SealedTo(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := inspectedBundle{Kind: "bundle", File: path, SHA256: sha256.Sum256(data), SealedTo: kinds}
	fields := []clikit.Field{{Name: "file", Value: path}, {Name: "sha256", Value: r.SHA256.String()}, {Name: "sealed_to", Value: strings.Join(kinds, ", ")}}
	b, err := a.open(cmd, o, data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if b == nil {
		if id, err := bundle.ParseFileName(filepath.Base(path)); err == nil {
			fields = append(fields, clikit.Field{Name: "identity by its file name", Value: id.String()})
		}
		a.note("the bundle is sealed; open it with --identity-file or --bundle-passphrase-file")
		return a.render(r, fields...)
	}
	b.Key.Destroy()
	r.Content = inside(b)
	return a.render(r, append(fields, r.Content.fields()...)...)
}

// open opens a bundle with what the flags name; nil if they name nothing.
func (a *app) open(cmd *cobra.Command, o inspectOptions, data []byte) (*bundle.Bundle, error) {
	if o.identityFile == "" && o.bundlePassphraseFile == "" {
		return nil, nil
	}
	if err := a.isolate(); err != nil {
		return nil, err
	}
	if o.identityFile != "" {
		secret, err := a.readKey(o.identityFile)
		if err != nil {
			return nil, clikit.WithCode(err, clikit.ExitUsage)
		}
		defer clear(secret)
		opener, _, err := bundle.ParseOpener(secret)
		if err != nil {
			return nil, clikit.WithCode(err, clikit.ExitUsage)
		}
		return bundle.Open(data, opener)
	}
	passphrase, err := a.readSecret(cmd.Context(), a.bundlePassphrase(o.bundlePassphraseFile))
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	return bundle.OpenTyped(data, passphrase)
}

func inside(b *bundle.Bundle) *inspectedInside {
	q, id := b.Identity.PublicKey(), b.Params.ID()
	in := &inspectedInside{
		Identity: b.Identity, PublicKey: hex.EncodeToString(q[:]), ParamsID: hex.EncodeToString(id[:]),
		Peers: b.Peers, Names: b.Names, Address: b.Address, CLMAddresses: b.CLMAddresses,
		Recovery: b.RecoveryHash, Recipient: b.Recipient, Anchors: inspectAnchors(b.Anchors),
	}
	in.Epochs = []*ibc.Params{}
	for _, s := range b.Epochs {
		in.Epochs = append(in.Epochs, s.Params)
	}
	return in
}

func (in *inspectedInside) fields() []clikit.Field {
	fields := []clikit.Field{
		{Name: "identity", Value: in.Identity.String()},
		{Name: "public_key", Value: in.PublicKey},
		{Name: "params_id", Value: in.ParamsID},
		{Name: "address", Value: in.Address},
		{Name: "names", Value: formatNames(in.Names)},
	}
	for _, p := range in.Peers {
		fields = append(fields, clikit.Field{Name: "clm", Value: fmt.Sprintf("%s from e%d.g%d on", p.Name, p.Epoch, p.Generation)})
	}
	fields = append(fields, clikit.Field{Name: "clm_addresses", Value: strings.Join(in.CLMAddresses, ", ")})
	for _, anchor := range in.Anchors {
		fields = append(fields, clikit.Field{Name: "anchor", Value: anchor.Subject + " sha256:" + anchor.SHA256.String()})
	}
	for _, p := range in.Epochs {
		fields = append(fields, clikit.Field{Name: "epoch_statement", Value: fmt.Sprintf("leads to epoch %d, params_id %x", p.Epoch(), p.ID())})
	}
	return append(fields,
		clikit.Field{Name: "recovery_sha256", Value: in.Recovery.String()},
		clikit.Field{Name: "recipient_sha256", Value: in.Recipient.String()})
}
