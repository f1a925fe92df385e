package pkgoffline

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// maxParticipants bounds who may be typed in.
const maxParticipants = 32

// noteValues is how many values one note takes: its line is bounded.
const noteValues = 64

// run is a run of a command that opens or makes a secret, with its transcript.
// Such a command goes this way:
//
//	r := a.newRun(cmd, dir)               // with which program, on which machine; nothing is written
//	connected, err := r.gate(…)           // the gate, and who is there; what it warns of goes into the transcript
//	passphrase, err := …
//	err = r.begin(public, connected)      // the first line, durable; takes the lock of the transcripts
//	p, err := pkgen.Open(r.config(), …)   // files and ledger entries are noted by themselves
//	… r.note("…", transcript.Value{…})    // what else is worth knowing: commitments, holders, choices
//	err = r.end(err, p)                   // how it ended, signed; before p.Close. With p nil: unsigned
//
// Everything between begin and end that is an error is handed to end, which
// returns it. A command without a PKG (a holder's machine) hands begin a nil
// ledger and ends with nil: its transcript is chained and unsigned until a
// later one notes it. A run that is only proposed ends with proposed (batch.go).
type run struct {
	app     *app
	dir     string
	begins  transcript.Begin
	told    []string // warnings before the beginning
	written *transcript.Run
	head    *transcript.Head // of the ledger
	ended   bool             // what it proposed is signed later
}

// participantFlag adds --participant to a command that writes a transcript.
func (a *app) participantFlag(f *pflag.FlagSet) {
	f.StringArrayVar(&a.participants, "participant", nil, `who takes part, "NAME, role", for the transcript (repeat for more; default: ask on a terminal)`)
}

// newRun gathers what the transcript begins with. The command's warnings are
// noted from here on.
func (a *app) newRun(cmd *cobra.Command, dir string) *run {
	program, host := a.Machine()
	a.run = &run{app: a, dir: dir, begins: transcript.Begin{
		Command: cmd.CommandPath(), Arguments: arguments(cmd),
		Program: program, Host: host, Rehearsal: a.Rehearsal,
	}}
	return a.run
}

// gate is checkAirGap, and then, since nobody should type names for a run that is
// refused, asks who takes part.
func (r *run) gate(waived bool) (connected bool, err error) {
	if connected, err = r.app.checkAirGap(waived); err != nil {
		return connected, err
	}
	r.begins.Participants, err = r.app.askParticipants()
	return connected, err
}

// askParticipants returns those of --participant, or asks a person on a terminal.
func (a *app) askParticipants() ([]string, error) {
	people := a.participants
	if len(people) == 0 && !a.NoInput && !a.Yes && clikit.IsTerminal(a.In) && clikit.IsTerminal(a.Err) {
		clikit.Note(a.Err, program, "who takes part goes into the transcript; an empty line ends the list")
		for len(people) < maxParticipants {
			line, err := clikit.Ask(a.Streams, "Participant (NAME, role): ")
			if err != nil {
				return nil, err
			}
			if line == "" {
				break
			}
			people = append(people, line)
		}
	}
	if len(people) > maxParticipants {
		return nil, clikit.Usage("--participant: more than %d", maxParticipants)
	}
	for i, p := range people {
		people[i] = strings.TrimSpace(clikit.OneLine(p))
		if people[i] == "" || len(people[i]) > 200 {
			return nil, clikit.Usage("--participant: %.40q is empty or has more than 200 bytes", p)
		}
	}
	return people, nil
}

// arguments are the flags that were given and the arguments: no secret is ever
// among them.
func arguments(cmd *cobra.Command) []string {
	var out []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name == "participant" {
			return
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		for _, v := range values {
			out = append(out, "--"+f.Name+"="+v)
		}
	})
	return append(out, cmd.Flags().Args()...)
}

// begin writes the first line. ledger is that of the PKG, nil if there is none
// yet; findings are told beside what the gate found, did and warned of.
func (r *run) begin(ledger *pkgen.Ledger, connected bool, findings ...string) error {
	b := r.begins
	b.Lab = connected
	b.AirGap = slices.Concat(r.app.gate.findings(), findings, r.told)
	if ledger != nil {
		id := ledger.Params.ID()
		b.ParamsID = fmt.Sprintf("%x", id)
		r.setHead(ledger.Head())
		b.Ledger = r.head
	}
	var err error
	r.app.run = r
	r.written, err = transcript.Start(r.app.files(), r.dir, r.app.Now, b)
	return err
}

func (r *run) setHead(h bundle.LedgerHead) {
	r.head = &transcript.Head{Count: h.Index, SHA256: hashlog.Hash(h.Hash)}
}

// config is that of the PKG, with the transcript.
func (r *run) config() pkgen.Config {
	c := r.app.config(r.dir)
	c.Files, c.Transcript = r.written.Files(), r
	return c
}

// open begins the transcript and opens the PKG.
func (r *run) open(public *pkgen.Ledger, connected bool, with opening) (*pkgen.PKG, error) {
	if err := r.begin(public, connected); err != nil {
		with.forget()
		return nil, err
	}
	p, err := with.open(r.config())
	if err != nil {
		return nil, r.end(err, nil)
	}
	return p, nil
}

// reissued notes what was issued again: the ledger has no new entry for it.
func (r *run) reissued(before *pkgen.Ledger, issued *pkgen.Issued) error {
	known := before.Head().Index
	var again []transcript.Value
	for _, row := range issued.Rows {
		if row.LedgerIndex <= known {
			again = append(again, transcript.Value{Name: row.Identity().String(), Value: fmt.Sprintf("as in ledger entry %d", row.LedgerIndex)})
		}
	}
	for len(again) > 0 {
		some := again[:min(noteValues, len(again))]
		again = again[len(some):]
		if err := r.note(fmt.Sprintf("issued again, to the same recipient: %d", len(some)), some...); err != nil {
			return err
		}
	}
	return nil
}

// ID implements pkgen.Transcript.
func (r *run) ID() pkgen.Hash { return pkgen.Hash(r.written.ID()) }

// Recorded implements pkgen.Transcript.
func (r *run) Recorded(entries []pkgen.Entry, head bundle.LedgerHead) error {
	r.setHead(head)
	out := make([]transcript.Entry, len(entries))
	for i, e := range entries {
		out[i] = transcript.Entry{Index: e.Index, Type: e.Type, What: e.What()}
	}
	return r.written.Recorded(out, *r.head)
}

// note states something in the transcript.
func (r *run) note(text string, values ...transcript.Value) error {
	return r.written.Note(text, values...)
}

// warn notes a warning; a failure to do so comes up at the end.
func (r *run) warn(text string) {
	if r.written == nil {
		r.told = append(r.told, text)
		return
	}
	_ = r.written.Warning(text)
}

// signer signs a transcript: an open PKG.
type signer interface {
	SignTranscript(document []byte) ([]byte, error)
}

// end writes how the run ended and signs the transcript; s is nil if nobody can.
// It returns err, and what goes wrong here with it.
func (r *run) end(err error, s signer) error {
	var sign hashlog.Signer
	if s != nil {
		sign = s.SignTranscript
	}
	ended := r.written.End(err, r.head, sign)
	if err == nil && ended == nil && sign != nil {
		r.tell()
	}
	r.app.run = nil
	return errors.Join(err, ended, r.written.Close())
}

// tell says where the transcript is, and what it had to note about the last.
func (r *run) tell() {
	path := r.written.Path()
	r.app.note("the transcript is %s; its head: %s", path, formatTranscriptHead(r.written.Head()))
	if p := r.written.Previous(); p != nil && p.State != transcript.Signed {
		r.app.note("the transcript before, %s, is %s: this one notes it", filepath.Join(filepath.Dir(path), p.File), p.State)
	}
}

func formatTranscriptHead(h hashlog.Head) string { return fmt.Sprintf("%d:%s", h.Count, h.Hash) }

// witness signs the transcript of an init.
func (r *run) witness(_ *pkgen.Ledger, s bundle.Signer) error {
	return r.end(nil, statementSigner{s})
}

// unwitnessed ends an init that failed before its witness could sign.
func (r *run) unwitnessed(err error) error {
	if r.app.run == nil {
		return err
	}
	return r.end(err, nil)
}

// statementSigner signs with what makes statements of every kind.
type statementSigner struct{ bundle.Signer }

// SignTranscript implements signer.
func (s statementSigner) SignTranscript(document []byte) ([]byte, error) {
	return s.Sign(ibc.KindTranscript, document)
}

// files writes durably: into the transcript, while there is one.
func (a *app) files() keyfile.Files {
	if a.run != nil && a.run.written != nil {
		return a.run.written.Files()
	}
	return keyfile.On(a.Layer)
}
