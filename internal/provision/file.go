package provision

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// file is identity.json.
type file struct {
	Version      int           `json:"version"`
	Identity     ibc.Identity  `json:"identity"`
	Params       *ibc.Params   `json:"params"`
	Key          string        `json:"key"` // d in hex
	Peers        []bundle.Peer `json:"peers,omitempty"`
	Names        []fleet.Name  `json:"names,omitempty"`
	RecoveryHash bundle.Hash   `json:"recovery_sha256"`
	Address      string        `json:"address,omitempty"`
	CLMAddresses []string      `json:"clm_addresses,omitempty"`
	Anchors      [][]byte      `json:"anchors,omitempty"`
	Recipient    bundle.Hash   `json:"recipient_sha256"`

	Root         bundle.Hash   `json:"root_params_id,omitzero"` // zero: that of Params
	Floors       []bundle.Peer `json:"floors,omitempty"`
	Predecessors []Predecessor `json:"predecessors,omitempty"`
	Earlier      []epochFile   `json:"earlier_epochs,omitempty"`
	Lifeboat     *accepted     `json:"lifeboat,omitempty"` // absent: none yet
}

// accepted is a lifeboat.Accepted in JSON.
type accepted struct {
	Serial uint32      `json:"serial"`
	Digest bundle.Hash `json:"document_sha256"`
}

func parse(data []byte) (*Endpoint, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if f.Version != version {
		return nil, fmt.Errorf("%w: version %d, this release reads %d", ErrFile, f.Version, version)
	}
	e := &Endpoint{
		Bundle: &bundle.Bundle{
			Identity: f.Identity, Params: f.Params, Peers: f.Peers, Names: f.Names, RecoveryHash: f.RecoveryHash,
			Address: f.Address, CLMAddresses: f.CLMAddresses, Anchors: f.Anchors, Recipient: f.Recipient,
		},
		Root: f.Root, Floors: f.Floors, Predecessors: f.Predecessors,
	}
	if f.Lifeboat != nil {
		e.Lifeboat = lifeboat.Accepted{Serial: f.Lifeboat.Serial, Digest: f.Lifeboat.Digest}
	}
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if e.Root == (bundle.Hash{}) {
		e.Root = e.Params.ID()
	}
	d, err := hex.DecodeString(f.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: the key is not in hex", ErrFile)
	}
	defer clear(d)
	if e.Key, err = ibc.NewPrivateKey(e.Params, e.Identity, d); err != nil {
		return nil, err
	}
	e.Earlier, err = parseEpochs(f.Earlier)
	return e, err
}

func (e *Endpoint) encode() ([]byte, error) {
	d := e.Key.Bytes()
	defer clear(d)
	root := e.Root
	if root == e.Params.ID() {
		root = bundle.Hash{}
	}
	var boat *accepted
	if e.Lifeboat != (lifeboat.Accepted{}) {
		boat = &accepted{e.Lifeboat.Serial, e.Lifeboat.Digest}
	}
	data, err := json.MarshalIndent(file{
		version, e.Identity, e.Params, hex.EncodeToString(d), e.Peers, e.Names, e.RecoveryHash,
		e.Address, e.CLMAddresses, e.Anchors, e.Recipient, root, e.Floors, e.Predecessors, encodeEpochs(e.Earlier), boat,
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	return append(data, '\n'), nil
}

// validate reports what is wrong with what is beside the key; bundle.Validate
// of the bundle, and that nothing is missing from the rest.
func (e *Endpoint) validate() error {
	if err := e.Validate(); err != nil {
		return err
	}
	for _, p := range e.Predecessors {
		if p.Params == nil || len(p.Peers) == 0 {
			return fmt.Errorf("a predecessor without parameters or peers")
		}
	}
	return nil
}
