package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pages adds the manual page of a command and those of its subcommands.
func pages(cmd *cobra.Command, files map[string][]byte) {
	if !cmd.IsAvailableCommand() && cmd.HasParent() || cmd.Name() == "help" || cmd.Name() == "completion" {
		return
	}
	cmd.InitDefaultHelpFlag()
	files["man/"+pageName(cmd)+".1"] = page(cmd)
	for _, sub := range cmd.Commands() {
		pages(sub, files)
	}
}

// pageName is the command's path, joined as git does it.
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page writes one manual page in the man(7) macros. It carries no date, so
// that it changes only when the command does.
func page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	name := pageName(cmd)
	fmt.Fprintf(&b, ".\\\" Generated from the source; do not edit.\n.TH %s 1 \"\" edgeclm\n", quote(strings.ToUpper(name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", escape(cmd.UseLine()))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, ".PP\nAlso called %s.\n", escape(strings.Join(cmd.Aliases, ", ")))
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintf(&b, ".SH DESCRIPTION\n")
	paragraphs(&b, text)
	commands(&b, cmd)
	options(&b, "OPTIONS", cmd.NonInheritedFlags())
	options(&b, "COMMON OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.EX\n")
		for line := range strings.Lines(cmd.Example) {
			fmt.Fprintf(&b, "%s\n", escape(strings.TrimRight(line, "\n")))
		}
		fmt.Fprintf(&b, ".EE\n")
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", escape(pageName(cmd.Parent())))
	}
	return b.Bytes()
}

// paragraphs writes text whose paragraphs are separated by empty lines.
func paragraphs(b *bytes.Buffer, text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		for line := range strings.Lines(p) {
			fmt.Fprintf(b, "%s\n", escape(strings.TrimSpace(line)))
		}
	}
}

func commands(b *bytes.Buffer, cmd *cobra.Command) {
	title := ".SH COMMANDS\n"
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.Name() == "help" {
			continue
		}
		fmt.Fprintf(b, "%s.TP\n.B %s\n%s\n", title, escape(sub.Name()), escape(sub.Short))
		title = ""
	}
}

func options(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		long := "--" + f.Name
		if f.Shorthand != "" {
			long = "-" + f.Shorthand + ", " + long
		}
		if kind != "" {
			long += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", escape(long), escape(usage))
	})
}

// escape makes text safe for roff: backslashes and hyphens are themselves, and
// no line begins a request.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}

func quote(text string) string { return `"` + strings.ReplaceAll(escape(text), `"`, `\(dq`) + `"` }
