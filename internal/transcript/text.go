package transcript

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// WriteText writes a transcript for people. What it says is in the lines that
// were signed; nothing is added but the end, which says how it stands with the
// signature.
func (t *Transcript) WriteText(w io.Writer) error {
	out := &textWriter{w: w}
	out.line("Transcript %d of %s", t.Begin.Number, t.Begin.Command)
	if t.Begin.Rehearsal {
		out.line("REHEARSAL: nothing of it is real")
	}
	out.line("")
	for _, l := range t.Lines {
		out.line("%s  %s", l.Time.UTC().Format(time.DateTime), l.Fact.Text)
		if l.Fact.Begin != nil {
			out.begin(l.Fact.Begin)
		}
		for _, v := range l.Fact.Values {
			out.detail(v.Name, v.Value)
		}
		for _, e := range l.Fact.Entries {
			out.detail(fmt.Sprintf("entry %d", e.Index), e.Type+" "+e.What)
		}
		for _, f := range l.Fact.Files {
			out.file(f)
		}
		if e := l.Fact.End; e != nil {
			out.detail("ledger entries", fmt.Sprint(e.Entries))
			out.detail("files written", fmt.Sprint(e.Files))
			if e.Ledger != nil {
				out.detail("ledger", e.Ledger.String())
			}
		}
	}
	out.line("")
	if t.State == Signed {
		out.line("Signed by the PKG at head %d:%s", t.Head.Count, t.Head.Hash)
	} else {
		out.line("NOT SIGNED: %v", ErrUnsigned)
	}
	return out.err
}

type textWriter struct {
	w   io.Writer
	err error
}

// line writes a line without control characters: the text may be anybody's.
func (o *textWriter) line(format string, args ...any) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, fmt.Sprintf(format, args...))
	if o.err == nil {
		_, o.err = io.WriteString(o.w, text+"\n")
	}
}

func (o *textWriter) detail(name, value string) {
	if value != "" {
		o.line("    %-14s  %s", name, value)
	}
}

func (o *textWriter) begin(b *Begin) {
	if len(b.Participants) == 0 {
		o.detail("participants", "none were named")
	}
	for _, p := range b.Participants {
		o.detail("participant", p)
	}
	o.detail("program", strings.TrimSpace(b.Program.Version+" "+b.Program.Commit)+", "+b.Program.Go)
	o.detail("its SHA-256", b.Program.SHA256)
	o.detail("machine", b.Host.Name+", "+b.Host.Kernel)
	o.detail("machine-id", b.Host.MachineID)
	o.detail("boot", b.Host.BootID)
	o.detail("its clock", b.Host.Clock.UTC().Format(time.RFC3339Nano))
	for _, f := range b.AirGap {
		o.detail("air gap", f)
	}
	if b.Lab {
		o.detail("lab", "the machine was not air-gapped, and that was accepted")
	}
	for _, a := range b.Arguments {
		o.detail("argument", a)
	}
	o.detail("params_id", b.ParamsID)
	if b.Ledger != nil {
		o.detail("ledger", b.Ledger.String())
	}
	if p := b.Previous; p != nil {
		o.detail("run before", fmt.Sprintf("%s, SHA-256 %s", p.File, p.SHA256))
	}
}

func (o *textWriter) file(f File) {
	where := f.Path
	if f.PKG {
		where += " (of the PKG)"
	}
	if f.SHA256 != nil {
		where += "  SHA-256 " + f.SHA256.String()
	}
	o.detail(string(f.Change), where)
}
