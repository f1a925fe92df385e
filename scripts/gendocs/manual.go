package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exitStatus is the contract of all three programs, see clikit's constants.
const exitStatus = `.TP
.B 0
done, or nothing was to be done
.TP
.B 1
failed
.TP
.B 2
usage or configuration
.TP
.B 3
some devices failed
.TP
.B 4
another run holds the lock
.TP
.B 5
the CA is unavailable and work is left
`

// manual returns the manual page of a program, man(7): one page with a section
// for each command.
func manual(root *cobra.Command) []byte {
	var b bytes.Buffer
	name := root.Name()
	fmt.Fprintf(&b, ".TH %s 1 \"\" edgeclm \"edgeclm manual\"\n", strings.ToUpper(roff(name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(root.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I command\n[\\fIoptions\\fR] [\\fIarguments\\fR]\n", roff(name))
	b.WriteString(".SH DESCRIPTION\n")
	prose(&b, root.Long)
	b.WriteString(".SH COMMON OPTIONS\n")
	options(&b, root.PersistentFlags())
	b.WriteString(".SH COMMANDS\n")
	for _, command := range root.Commands() {
		section(&b, command)
	}
	b.WriteString(".SH EXIT STATUS\n" + exitStatus)
	var others []string
	for _, other := range []string{"clmctl", "devagent", "pkg-offline"} {
		if other != name {
			others = append(others, ".BR "+roff(other)+" (1)")
		}
	}
	b.WriteString(".SH SEE ALSO\n" + strings.Join(others, " ,\n") + "\n")
	return b.Bytes()
}

// section describes a command, and after it those below it.
func section(b *bytes.Buffer, command *cobra.Command) {
	if !command.IsAvailableCommand() {
		return
	}
	if command.Runnable() {
		_, usage, _ := strings.Cut(command.UseLine(), " ")
		fmt.Fprintf(b, ".SS %s\n", roff(usage))
		if len(command.Aliases) > 0 {
			fmt.Fprintf(b, "Also: %s.\n.PP\n", roff(strings.Join(command.Aliases, ", ")))
		}
		if command.Long == "" {
			prose(b, command.Short+".")
		} else {
			prose(b, command.Long)
		}
		options(b, command.NonInheritedFlags())
		if command.Example != "" {
			b.WriteString(".PP\nExample:\n")
			literal(b, strings.Split(strings.Trim(command.Example, "\n"), "\n"))
		}
	}
	for _, sub := range command.Commands() {
		section(b, sub)
	}
}

// options describes flags.
func options(b *bytes.Buffer, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		if value != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(value))
		}
		fmt.Fprintf(b, "\n%s", roff(usage))
		switch f.DefValue {
		case "", "false", "[]", "0", "0s":
		default:
			fmt.Fprintf(b, " (default %s)", roff(f.DefValue))
		}
		b.WriteString("\n")
	})
}

// prose writes paragraphs; one whose lines are indented is kept as it is.
func prose(b *bytes.Buffer, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		lines := strings.Split(strings.Trim(paragraph, "\n"), "\n")
		if strings.HasPrefix(lines[0], " ") || strings.HasPrefix(lines[0], "\t") {
			literal(b, lines)
			continue
		}
		for _, line := range lines {
			b.WriteString(roff(strings.TrimSpace(line)) + "\n")
		}
	}
}

// literal writes lines that are not filled.
func literal(b *bytes.Buffer, lines []string) {
	b.WriteString(".nf\n")
	for _, line := range lines {
		b.WriteString(roff(line) + "\n")
	}
	b.WriteString(".fi\n")
}

// roff escapes text for one line: a hyphen is a minus that can be copied, a
// backslash itself, and no line of text begins a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}
