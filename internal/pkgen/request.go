package pkgen

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pin"
)

// Request asks for one bundle. Address, labels and names that are not given
// are those of the name's latest issue.
type Request struct {
	Role       ibc.Role
	Name       string
	Generation uint32            // 0: the present one, 1 for a new name
	Recipient  *bundle.Recipient // nil: the passphrase of the run
	Address    string            // host:port or ""
	Labels     map[string]string
	Names      []fleet.Name // of a device; for a new one fleet.DefaultNames
	Where      string       // where it was read, for errors: "devices.csv: line 3"
}

// IssueOptions hold for every request of a run.
type IssueOptions struct {
	Medium     string   // the directory to write to; made if need be
	CLMs       []string // the CLM names that the devices shall listen to; none: those of their latest issue
	Anchors    [][]byte // DER trust anchors of the devices
	Passphrase []byte   // seals bundles without a recipient of their own; nil: there is none
	PINs       bool     // each bundle without a recipient is sealed to a PIN of its own
	Lab        bool     // the machine is not air-gapped: recorded in the ledger
	// Progress is told of every bundle that is durable on the medium, and how many
	// of them this run made: the others an interrupted run had brought there. May
	// be nil.
	Progress func(done, total, made int)
}

// job is a request that may be issued. A run has one for each of its bundles in
// memory: what many share is shared.
type job struct {
	identity  ibc.Identity
	address   string
	names     []fleet.Name
	labels    map[string]string
	recipient bundle.Recipient
	pin       pin.PIN // that it is sealed to; zero: none
	common    *common
	peers     *peers // of a device
	row       int    // index in the manifest
	file      string // path on the medium, with '/'
}

// common is what all bundles of a run have.
type common struct {
	params   *ibc.Params
	recovery Hash
	epochs   []ibc.Succession
	anchors  [][]byte // of devices
}

// bundle returns the bundle without its key.
func (j *job) bundle() *bundle.Bundle {
	b := &bundle.Bundle{
		Identity: j.identity, Params: j.common.params, Names: j.names, RecoveryHash: j.common.recovery,
		Address: j.address, Epochs: j.common.epochs, Recipient: Hash(j.recipient.Hash()),
	}
	if j.peers != nil {
		b.Peers, b.CLMAddresses, b.Anchors = j.peers.peers, j.peers.addresses, j.common.anchors
	}
	return b
}

// clms returns the names of a device's peers.
func (j *job) clms() []string {
	if j.peers == nil {
		return nil
	}
	return j.peers.names
}

// plan checks all requests, so that a run begins only if it can end.
func (p *PKG) plan(m *medium, requests []Request, o IssueOptions) ([]job, error) {
	if len(requests) == 0 {
		return nil, fmt.Errorf("%w: nothing was asked for", ErrRequest)
	}
	peersOf := p.peersOf()
	if _, err := peersOf(o.CLMs); err != nil {
		return nil, err
	}
	all := &common{p.Params(), p.Ledger.Recovery(), p.Ledger.Succession(), o.Anchors}
	jobs := make([]job, 0, len(requests))
	seen := make(map[bundle.Subject]bool, len(requests))
	for _, r := range requests {
		j, clms, err := p.planOne(r, o)
		j.common = all
		if err == nil && seen[subject(j.identity)] {
			err = fmt.Errorf("%w: it is asked for twice", ErrRequest)
		}
		if err == nil && r.Role == ibc.RoleDevice {
			j.peers, err = peersOf(clms)
		}
		if err == nil {
			err = j.bundle().Validate()
		}
		if err == nil {
			err = m.place(&j, p.Ledger)
		}
		if err != nil {
			return nil, r.wrap(err)
		}
		seen[subject(j.identity)] = true
		jobs = append(jobs, j)
	}
	return jobs, nil
}

func (r Request) wrap(err error) error {
	if r.Where != "" {
		return fmt.Errorf("%s: %s: %w", r.Where, r.Name, err)
	}
	return fmt.Errorf("%s: %w", r.Name, err)
}

// planOne returns the job, and the names of the CLMs of a device.
func (p *PKG) planOne(r Request, o IssueOptions) (job, []string, error) {
	id, err := p.identity(r)
	if err != nil {
		return job{}, nil, err
	}
	if err := fleet.ValidateLabels(r.Labels); err != nil {
		return job{}, nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	to, own, err := p.recipient(r, id, o)
	if err != nil {
		return job{}, nil, err
	}
	if err := p.Ledger.mayIssue(id, Hash(to.Hash())); err != nil {
		return job{}, nil, err
	}
	if id.Role == ibc.RoleCLM && len(r.Names) > 0 {
		return job{}, nil, fmt.Errorf("%w: a CLM has no certificate names", ErrRequest)
	}
	var clms []string
	if id.Role == ibc.RoleDevice {
		last, _ := p.Ledger.Latest(subject(id))
		if clms = o.CLMs; len(clms) == 0 {
			clms = last.CLMs
		}
	}
	if id.Role == ibc.RoleDevice && len(clms) == 0 {
		return job{}, nil, fmt.Errorf("%w: a device needs the name of at least one CLM", ErrRequest)
	}
	r = p.complete(r)
	return job{identity: id, address: r.Address, names: r.Names, labels: r.Labels, recipient: *to, pin: own}, clms, nil
}

// recipient returns whom a request is sealed to, with the PIN if it is one.
func (p *PKG) recipient(r Request, id ibc.Identity, o IssueOptions) (*bundle.Recipient, pin.PIN, error) {
	switch {
	case r.Recipient != nil:
		return r.Recipient, pin.PIN{}, nil
	case o.PINs:
		own, err := p.pin(id)
		if err != nil {
			return nil, own, err
		}
		to, err := p.passphraseRecipient(id, []byte(own.Text()), min(cmp.Or(p.WorkFactor, pin.WorkFactor), pin.WorkFactor))
		return to, own, err
	}
	to, err := p.passphraseRecipient(id, o.Passphrase, p.WorkFactor)
	return to, pin.PIN{}, err
}

// complete fills in what the request leaves open.
func (p *PKG) complete(r Request) Request {
	last, _ := p.Ledger.Latest(bundle.Subject{Role: r.Role, Name: r.Name})
	if r.Address == "" {
		r.Address = last.Address
	}
	if len(r.Labels) == 0 {
		r.Labels = last.Labels
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	if len(r.Names) == 0 {
		r.Names = last.Names
	}
	if len(r.Names) == 0 && r.Role == ibc.RoleDevice {
		r.Names = fleet.DefaultNames(r.Name)
	}
	return r
}

// identity fills in epoch and generation.
func (p *PKG) identity(r Request) (ibc.Identity, error) {
	id := ibc.Identity{Role: r.Role, Name: r.Name, Epoch: p.Params().Epoch(), Generation: r.Generation}
	if id.Generation == 0 {
		id.Generation = 1
		if last, ok := p.Ledger.Latest(subject(id)); ok && last.Identity.Epoch == id.Epoch {
			id.Generation = last.Identity.Generation
		}
	}
	if err := id.Validate(); err != nil {
		return id, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return id, nil
}

// peers are the CLMs that a device listens to.
type peers struct {
	names     []string
	peers     []bundle.Peer // with their floors, which are their latest identities
	addresses []string      // as far as they are known
}

// peersOf returns a function that looks the CLMs of a list of names up: most
// devices of a run have the same.
func (p *PKG) peersOf() func(names []string) (*peers, error) {
	known := map[string]*peers{}
	return func(names []string) (*peers, error) {
		key := strings.Join(names, " ")
		if to, ok := known[key]; ok {
			return to, nil
		}
		to, err := p.peers(names)
		if err == nil {
			known[key] = to
		}
		return to, err
	}
}

func (p *PKG) peers(names []string) (*peers, error) {
	to := &peers{names: names}
	for _, name := range names {
		last, ok := p.Ledger.Latest(bundle.Subject{Role: ibc.RoleCLM, Name: name})
		if !ok {
			return nil, fmt.Errorf("%.70q: %w", name, ErrUnknownCLM)
		}
		// Who took the device's bundle over would have no key to meet it again.
		if last.Identity.Epoch != p.Params().Epoch() {
			return nil, fmt.Errorf("%s %w, epoch %d", name, ErrEarlierEpoch, p.Params().Epoch())
		}
		to.peers = append(to.peers, bundle.Peer{Name: name, Epoch: last.Identity.Epoch, Generation: last.Identity.Generation})
		if last.Address != "" {
			to.addresses = append(to.addresses, last.Address)
		}
	}
	return to, nil
}

// passphraseRecipient names a passphrase in the ledger by a function of it and
// of the master secret: it tells the PKG whether the passphrase is the same
// again, and helps nobody else to guess it.
func (p *PKG) passphraseRecipient(id ibc.Identity, passphrase []byte, workFactor int) (*bundle.Recipient, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: neither a recipient nor a passphrase to seal it to", ErrRequest)
	}
	key, err := p.authority.Derive("edgeclm/v1/passphrase-recipient", sha256.Size)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	msg, err := ibc.LP([]byte(id.Role), []byte(id.Name), passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(msg)
	mac := hmac.New(sha256.New, key)
	mac.Write(msg)
	r, err := bundle.PassphraseRecipient(passphrase, [32]byte(mac.Sum(nil)), workFactor)
	return &r, err
}

// pin returns the PIN of an identity. It is derived from the master secret, so
// that an interrupted run is completed with the same PINs, and a lost sheet can
// be printed again by whoever may issue the key itself again.
func (p *PKG) pin(id ibc.Identity) (pin.PIN, error) {
	random, err := p.authority.Derive("edgeclm/v1/pin/"+id.String(), pin.Size)
	if err != nil {
		return pin.PIN{}, err
	}
	defer clear(random)
	return pin.New([pin.Size]byte(random)), nil
}
