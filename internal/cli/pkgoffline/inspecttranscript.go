package pkgoffline

import (
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// inspectedTranscript is the result for a transcript.
type inspectedTranscript struct {
	Kind  string            `json:"kind"`
	File  string            `json:"file"`
	State transcript.State  `json:"state"`
	Lines []transcript.Fact `json:"lines"`
}

// inspectTranscript shows a transcript as a text. Its signature is checked where
// the parameters are known: those beside it, or of --params.
func (a *app) inspectTranscript(o inspectOptions, path string, data []byte) error {
	var known []*ibc.Params
	var err error
	if o.params != "" {
		var params *ibc.Params
		if params, err = pkgen.ReadParams(o.params); err != nil {
			return err
		}
		known = []*ibc.Params{params}
	} else if known, err = paramsBeside(path); err != nil {
		return clikit.WithHint(fmt.Errorf("parameters of the transcript: %w", err), "give --params FILE")
	}
	t, err := transcript.Parse(data, signedUnder(known))
	if err != nil && !errors.Is(err, transcript.ErrUnsigned) {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		a.warn(fmt.Sprintf("%s: %v", path, err))
	}
	if a.Output == clikit.FormatTable || a.Output == clikit.FormatWide {
		return t.WriteText(a.Out)
	}
	view := inspectedTranscript{Kind: "transcript", File: path, State: t.State}
	table := clikit.Table{Columns: clikit.Columns("time", "type", "text")}
	for _, l := range t.Lines {
		view.Lines = append(view.Lines, l.Fact)
		table.Rows = append(table.Rows, []string{l.Time.UTC().Format("2006-01-02T15:04:05Z07:00"), l.Fact.Type, l.Fact.Text})
	}
	return clikit.Render(a.Out, a.Output, view, table)
}
