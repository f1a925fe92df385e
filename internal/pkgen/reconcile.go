package pkgen

import (
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// State says where an issued identity stands; the worst that is true of it.
type State string

// The states, the one that needs a person first.
const (
	// StateDuplicated: its bundle was installed more than once.
	StateDuplicated State = "duplicated"
	// StateOutstanding: no receipt says that it was installed.
	StateOutstanding State = "outstanding"
	// StateProvisioned: it was installed, and no CLM has taken it yet.
	StateProvisioned State = "provisioned"
	// StateCommissioned: it was installed, and a CLM has taken it.
	StateCommissioned State = "commissioned"
	// StateSuperseded: a later generation or epoch was issued since, so that
	// none of the above matters any more.
	StateSuperseded State = "superseded"
)

// Standing is where one issued identity stands. Times of receipts are those of
// their signers' clocks, which may be wrong.
type Standing struct {
	Identity     ibc.Identity   `json:"identity"`
	State        State          `json:"state"`
	Issued       time.Time      `json:"issued_at"`    // first
	LedgerIndex  uint64         `json:"ledger_index"` // of the last issue
	Provisioned  *time.Time     `json:"provisioned_at"`
	Receipts     int            `json:"receipts"` // of its own, the repeated ones too
	Commissioned *time.Time     `json:"commissioned_at"`
	By           []ibc.Identity `json:"commissioned_by"`
	Note         string         `json:"note,omitempty"`
}

// Unknown is a receipt that does not fit this PKG's ledger.
type Unknown struct {
	File   string        `json:"file,omitempty"` // "" of one that came back in an earlier run
	Kind   receipt.Kind  `json:"kind,omitempty"`
	Signer *ibc.Identity `json:"signer"` // as it claims; null if it cannot be read
	Time   *time.Time    `json:"time"`   // as it claims
	Reason string        `json:"reason"`
}

// Reconciled is the ledger held to all receipts that came back.
type Reconciled struct {
	Issued       int `json:"issued"` // identities that are not superseded; the next four are among them
	Provisioned  int `json:"provisioned"`
	Outstanding  int `json:"outstanding"`
	Commissioned int `json:"commissioned"`
	Duplicated   int `json:"duplicated"`
	Superseded   int `json:"superseded"`
	// SupersededOutstanding are those among Superseded of which no receipt came
	// back: their bundles may lie about, and are worth nothing once CLMs and
	// devices know the later ones.
	SupersededOutstanding int `json:"superseded_outstanding"`

	Identities []Standing `json:"identities"` // in the order of their first issue
	Unknown    []Unknown  `json:"unknown"`
}

// account gathers what receipts say.
type account struct {
	ledger  *Ledger
	issues  map[ibc.Identity]*issued
	order   []ibc.Identity
	unknown []Unknown
	seen    map[Hash]bool // receipts by Signed.ID
}

// issued is what is known of an identity.
type issued struct {
	first    time.Time
	last     uint64
	payloads []Hash
	places   []place
	receipts int
	by       []commission
}

// place is where a bundle was installed, and when that was said first.
type place struct {
	installation receipt.Installation
	board        Hash
	at           time.Time
}

type commission struct {
	clm ibc.Identity
	at  time.Time
}

func newAccount(l *Ledger) *account {
	a := &account{ledger: l, issues: map[ibc.Identity]*issued{}, seen: map[Hash]bool{}}
	for _, e := range l.Entries {
		if e.Type != typeIssue {
			continue
		}
		x := a.issues[*e.Identity]
		if x == nil {
			x = &issued{first: e.Time}
			a.issues[*e.Identity] = x
			a.order = append(a.order, *e.Identity)
		}
		x.last = e.Index
		if !slices.Contains(x.payloads, *e.Payload) {
			x.payloads = append(x.payloads, *e.Payload)
		}
	}
	return a
}

// add takes a verified receipt into account. The same again counts once.
func (a *account) add(s *receipt.Signed) {
	if a.seen[s.ID] {
		return
	}
	a.seen[s.ID] = true
	x := a.issues[s.Signer]
	if x == nil {
		a.refuse(s, "the ledger has no issue of this identity, though it has a key of this PKG")
		return
	}
	if s.Provisioned != nil {
		a.provisioned(x, s)
	} else {
		a.commissioned(s)
	}
}

func (a *account) refuse(s *receipt.Signed, format string, args ...any) {
	a.unknown = append(a.unknown, refusal("", s, fmt.Errorf(format, args...)))
}

func (a *account) provisioned(x *issued, s *receipt.Signed) {
	if !slices.Contains(x.payloads, s.Provisioned.Payload) {
		a.refuse(s, "the ledger has no issue of the bundle that was installed, with payload %s", s.Provisioned.Payload)
		return
	}
	x.receipts++
	for i, p := range x.places {
		if p.installation == s.Installation && (p.board == s.Board || p.board == (Hash{}) || s.Board == (Hash{})) {
			if s.Time.Before(p.at) {
				x.places[i].at = s.Time
			}
			if p.board == (Hash{}) {
				x.places[i].board = s.Board
			}
			return
		}
	}
	x.places = append(x.places, place{s.Installation, s.Board, s.Time})
}

func (a *account) commissioned(s *receipt.Signed) {
	c := s.Commissioned
	if err := a.ledger.Covers(c.Ledger); err != nil {
		a.refuse(s, "its manifest is of a ledger of %d entries: %w", c.Ledger.Index, err)
		return
	}
	var strange int
	var first receipt.Row
	for row := range s.Rows() {
		x := a.issues[row.Identity]
		if x == nil || row.LedgerIndex == 0 || row.LedgerIndex > x.last || !a.isIssue(row) {
			if strange++; strange == 1 {
				first = row
			}
			continue
		}
		at := slices.IndexFunc(x.by, func(b commission) bool { return b.clm == s.Signer })
		if at < 0 {
			x.by = append(x.by, commission{s.Signer, s.Time})
		} else if s.Time.Before(x.by[at].at) {
			x.by[at].at = s.Time
		}
	}
	if strange > 0 {
		a.refuse(s, "of %d devices that it took the ledger has no such issue: first %s, as entry %d", strange, first.Identity, first.LedgerIndex)
	}
}

func (a *account) isIssue(row receipt.Row) bool {
	e := a.ledger.Entries[row.LedgerIndex-1]
	return e.Type == typeIssue && *e.Identity == row.Identity
}

// Reconcile holds the ledger to the receipts. Refused are those that Take did
// not keep.
func (b *ReceiptBook) Reconcile(refused []Unknown) *Reconciled {
	r := &Reconciled{Identities: []Standing{}, Unknown: append(slices.Clone(refused), b.account.unknown...)}
	if r.Unknown == nil {
		r.Unknown = []Unknown{}
	}
	for _, id := range b.account.order {
		s := b.account.standing(id)
		r.Identities = append(r.Identities, s)
		if s.State == StateSuperseded {
			r.Superseded++
			if s.Provisioned == nil {
				r.SupersededOutstanding++
			}
			continue
		}
		r.Issued++
		count(&r.Provisioned, s.Provisioned != nil)
		count(&r.Outstanding, s.Provisioned == nil)
		count(&r.Commissioned, s.Commissioned != nil)
		count(&r.Duplicated, s.State == StateDuplicated)
	}
	return r
}

func count(n *int, yes bool) {
	if yes {
		*n++
	}
}

func (a *account) standing(id ibc.Identity) Standing {
	x := a.issues[id]
	s := Standing{Identity: id, Issued: x.first, LedgerIndex: x.last, Receipts: x.receipts, By: []ibc.Identity{}}
	for _, p := range x.places {
		s.Provisioned = earlier(s.Provisioned, p.at)
	}
	for _, c := range x.by {
		s.Commissioned = earlier(s.Commissioned, c.at)
		s.By = append(s.By, c.clm)
	}
	latest, _ := a.ledger.Latest(bundle.Subject{Role: id.Role, Name: id.Name})
	switch {
	case *latest.Identity != id:
		s.State = StateSuperseded
		s.Note = fmt.Sprintf("e%d.g%d was issued since", latest.Identity.Epoch, latest.Identity.Generation)
		if len(x.places) == 0 {
			s.Note += "; no receipt came back"
		}
		if len(x.places) > 1 {
			s.Note += "; " + twice(x.places)
		}
	case len(x.places) > 1:
		s.State, s.Note = StateDuplicated, twice(x.places)
	case len(x.places) == 0:
		s.State = StateOutstanding
	case s.Commissioned == nil:
		s.State = StateProvisioned
	default:
		s.State = StateCommissioned
	}
	return s
}

func earlier(t *time.Time, other time.Time) *time.Time {
	if t != nil && !other.Before(*t) {
		return t
	}
	return &other
}

// twice says how a bundle was installed more than once.
func twice(places []place) string {
	installations := map[receipt.Installation]bool{}
	for _, p := range places {
		installations[p.installation] = true
	}
	if len(installations) == 1 {
		return fmt.Sprintf("one installation on %d machines: its storage was copied or moved", len(places))
	}
	return fmt.Sprintf("installed on %d machines, or in as many directories: the bundle was copied", len(places))
}
