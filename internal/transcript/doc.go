// Package transcript is the record that a run of pkg-offline keeps of itself:
// who was there, on which machine and with which program, what was issued, which
// files were written, and how it ended.
//
// A transcript is a log of package hashlog: JSON lines, chained by hashes, with
// one head at the end that the PKG signs as a statement of kind "transcript".
// The body of each line carries a sentence for people (text) and the facts that
// the sentence is about. The first line is written, durably, before a secret is
// opened or made; so a run that is cut leaves a transcript without a head.
//
// The transcripts of a PKG lie in its directory transcripts/, one file per run,
// numbered from 1, never overwritten. They hold together in two ways. The first
// line of each names the file before it with the SHA-256 of all its bytes,
// whatever its state: the next signed transcript notes one that was cut, and
// nothing can be changed before a signed one. And each entry that a run adds to
// the ledger has the SHA-256 of the run's first line: one that is missing is
// missed by the ledger.
//
// A transcript that nobody could sign (the passphrase was wrong, or the power
// failed) is not distinguishable from one that somebody cut short. It is
// reported until a later, signed one has noted it.
package transcript

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/hashlog"
)

// Dir is the name of the directory of transcripts in that of a PKG.
const Dir = "transcripts"

const lockFile = "lock"

// Sentinels; those of hashlog and keyfile are wrapped beside them.
var (
	// ErrUnsigned is wrapped when no signed head covers a transcript to its end.
	ErrUnsigned = errors.New("no signed head covers it to its end: the run was cut, could not open the PKG, or the file was cut short")
	// ErrMissing is wrapped when a transcript that is known of is not there.
	ErrMissing = errors.New("a transcript is missing or replaced")
	// ErrFile is wrapped when a file is not as the last run left it.
	ErrFile = errors.New("is not the file that was written")
)

// Types of facts.
const (
	TypeBegin   = "begin"
	TypeNote    = "note"
	TypeWarning = "warning"
	TypeEntries = "entries"
	TypeFiles   = "files"
	TypeEnd     = "end"
)

// Fact is the body of a line.
type Fact struct {
	Type    string  `json:"type"`
	Text    string  `json:"text"` // what a person reads
	Begin   *Begin  `json:"begin,omitempty"`
	Values  []Value `json:"values,omitempty"`
	Entries []Entry `json:"entries,omitempty"`
	Files   []File  `json:"files,omitempty"`
	End     *End    `json:"end,omitempty"`
}

// Begin is what is known before a secret is opened.
type Begin struct {
	Number       uint64    `json:"number"`
	Previous     *Previous `json:"previous,omitempty"` // absent in the first
	Command      string    `json:"command"`            // as "pkg-offline issue"
	Arguments    []string  `json:"arguments"`          // flags and names; no secret is among them
	Participants []string  `json:"participants"`       // "NAME, role", as typed
	Program      Program   `json:"program"`
	Host         Host      `json:"host"`
	AirGap       []string  `json:"air_gap"` // what was found about the machine's connections
	Lab          bool      `json:"lab"`     // it was not air-gapped, and that was accepted
	Rehearsal    bool      `json:"rehearsal"`
	ParamsID     string    `json:"params_id,omitempty"` // of the PKG; absent when it is made
	Ledger       *Head     `json:"ledger,omitempty"`    // before the run
}

// Previous is the transcript before.
type Previous struct {
	File   string       `json:"file"`
	SHA256 hashlog.Hash `json:"sha256"` // of all its bytes, as they lay there
	State  State        `json:"state"`
}

// State is how a transcript ended, as its last line has it.
type State string

// The states.
const (
	Signed   State = "signed"   // with a head
	Unsigned State = "unsigned" // with an end, but nobody could sign it
	Cut      State = "cut"      // without
)

// Program is what ran.
type Program struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	SHA256  string `json:"sha256,omitempty"` // of the executable, in hex; "" if it could not be read
}

// Host is where it ran.
type Host struct {
	Name      string    `json:"name"`
	Kernel    string    `json:"kernel"`
	MachineID string    `json:"machine_id,omitempty"` // a keyed hash of the machine-id, in hex
	BootID    string    `json:"boot_id,omitempty"`
	Clock     time.Time `json:"clock"` // what the machine took for the time
}

// Value is a named value that a note states.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Entry is an entry that the run added to the ledger.
type Entry struct {
	Index uint64 `json:"index"`
	Type  string `json:"type"`
	What  string `json:"what"` // an identity, or what else it is about
}

// File is what happened to a file.
type File struct {
	Path   string        `json:"path"`
	PKG    bool          `json:"pkg,omitempty"` // the path is relative to the PKG's directory
	Change Change        `json:"change"`
	SHA256 *hashlog.Hash `json:"sha256,omitempty"` // of one that was written
}

// Change is what happened to it.
type Change string

// The changes.
const (
	Written Change = "written"
	Grown   Change = "grown" // appended to, cut back or overwritten
	Removed Change = "removed"
)

// Head is a head of the ledger.
type Head struct {
	Count  uint64       `json:"count"`
	SHA256 hashlog.Hash `json:"sha256"`
}

// String returns it as it is printed, "<count>:<sha256>".
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Count, h.SHA256) }

// End is how a run ended.
type End struct {
	Outcome Outcome `json:"outcome"`
	Error   string  `json:"error,omitempty"`
	Ledger  *Head   `json:"ledger,omitempty"` // after the run, if it was open
	Entries int     `json:"entries"`          // added to the ledger
	Files   int     `json:"files"`            // written
}

// Outcome is done, failed or proposed.
type Outcome string

// The outcomes.
const (
	Done     Outcome = "done"
	Failed   Outcome = "failed"
	Proposed Outcome = "proposed" // it was done, by others, if it is signed
)

func sum(data []byte) hashlog.Hash { return sha256.Sum256(data) }
