package tpm

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// ErrOther is wrapped when stored bytes belong to another TPM, or to this one
// before it was cleared.
var ErrOther = errors.New("made by another TPM, or this one was cleared since")

// srkHandle is where a storage root key is kept if somebody made it persistent
// (TCG TPM v2.0 Provisioning Guidance, section 7.8).
const srkHandle tpm2.TPMHandle = 0x81000001

// TPM is one of the machine. It is safe for concurrent use.
type TPM struct {
	path string
	mu   sync.Mutex // held for an operation: a device may be opened once only
}

// New returns the TPM behind a character device, or behind a UNIX socket that
// carries bare commands. It is opened when it is used; "" is DefaultDevice.
func New(path string) *TPM {
	if path == "" {
		path = DefaultDevice
	}
	return &TPM{path: path}
}

// Name says where keys live.
func (t *TPM) Name() string { return "tpm" }

// PEMType returns PEMType.
func (t *TPM) PEMType() string { return PEMType }

// Check reports why keys cannot be made, nil if the TPM is there and has a
// storage root key.
func (t *TPM) Check() error { return t.with(srkHandle, func(*root) error { return nil }) }

// root is the storage root key, while it is in use.
type root struct {
	c      *channel
	handle tpm2.TPMHandle
	stored tpm2.TPMHandle // what an object names as its parent
	public *tpm2.TPMTPublic
	name   tpm2.TPM2BName
}

// with runs an operation under the storage root key, and leaves the TPM as it
// was. Errors wrap ErrUnavailable or ErrOther.
func (t *TPM) with(parent tpm2.TPMHandle, operation func(*root) error) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := open(t.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	r, err := findRoot(c, parent)
	if err != nil {
		return explain(err)
	}
	if r.handle != r.stored {
		defer func() { err = errors.Join(err, flush(c, r.handle)) }()
	}
	return explain(operation(r))
}

// findRoot returns the persistent storage root key of a handle. Where there is
// none it makes the primary key of the owner hierarchy, which is the same key
// each time.
func findRoot(c *channel, parent tpm2.TPMHandle) (*root, error) {
	if parent>>24 == persistent {
		found, err := tpm2.ReadPublic{ObjectHandle: parent}.Execute(c)
		if err == nil {
			return newRoot(c, parent, parent, found.OutPublic)
		}
		if !errors.Is(err, tpm2.TPMRCHandle) {
			return nil, fmt.Errorf("read the storage root key: %w", err)
		}
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(srkTemplate())}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("make the storage root key: %w", err)
	}
	r, err := newRoot(c, made.ObjectHandle, tpm2.TPMRHOwner, made.OutPublic)
	if err != nil {
		return nil, errors.Join(err, flush(c, made.ObjectHandle))
	}
	return r, nil
}

func newRoot(c *channel, handle, stored tpm2.TPMHandle, out tpm2.TPM2BPublic) (*root, error) {
	public, err := out.Contents()
	if err != nil {
		return nil, fmt.Errorf("storage root key: %w", err)
	}
	a := public.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.FixedTPM || !a.FixedParent {
		return nil, fmt.Errorf("the key at %#x is no storage root key", uint32(handle))
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, fmt.Errorf("storage root key: %w", err)
	}
	return &root{c: c, handle: handle, stored: stored, public: public, name: *name}, nil
}

// srkTemplate is the one for ECC P-256 of the TCG TPM v2.0 Provisioning
// Guidance, section 7.5.1, with an empty unique field, as
// draft-bottomley-tpm2-keys wants it of the parent that a hierarchy stands for.
func srkTemplate() tpm2.TPMTPublic {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return template
}

// session authorises the use of one object, whose password is empty, in one
// command.
func (r *root) session(encrypt ...tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, append(encrypt, tpm2.Salted(r.handle, *r.public))...)
}

func in() tpm2.AuthOption    { return tpm2.AESEncryption(128, tpm2.EncryptIn) }
func out() tpm2.AuthOption   { return tpm2.AESEncryption(128, tpm2.EncryptOut) }
func inOut() tpm2.AuthOption { return tpm2.AESEncryption(128, tpm2.EncryptInOut) }

// create makes an object under the storage root key.
func (r *root) create(template tpm2.TPMTPublic, sensitive tpm2.TPMSSensitiveCreate) (*tpm2.CreateResponse, error) {
	return tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: r.handle, Name: r.name, Auth: r.session(inOut())},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &sensitive},
		InPublic:     tpm2.New2B(template),
	}.Execute(r.c)
}

// load loads an object for the time of an operation. The name is our own
// reckoning: a TPM that loaded something else is found out.
func (r *root) load(l loadable, operation func(handle tpm2.TPMHandle, name tpm2.TPM2BName) error) (err error) {
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: r.handle, Name: r.name, Auth: r.session(inOut())},
		InPrivate:    l.private, InPublic: l.public,
	}.Execute(r.c)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer func() { err = errors.Join(err, flush(r.c, loaded.ObjectHandle)) }()
	name, err := tpm2.ObjectName(l.contents)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return operation(loaded.ObjectHandle, *name)
}

func flush(c *channel, handle tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(c); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// explain says what a response code means here.
func explain(err error) error {
	is := func(codes ...tpm2.TPMRC) bool {
		for _, code := range codes {
			if errors.Is(err, code) {
				return true
			}
		}
		return false
	}
	switch {
	case is(tpm2.TPMRCIntegrity):
		return fmt.Errorf("%w: %w", ErrOther, err)
	case is(tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail):
		return fmt.Errorf("the TPM's owner hierarchy or storage root key has a password; a storage root key without one, made persistent at %#x, serves: %w", uint32(srkHandle), err)
	case is(tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles):
		return fmt.Errorf("the TPM is full of what another program left in it; %s has a resource manager: %w", DefaultDevice, err)
	}
	return err
}
