package clikit

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Execute runs a program and returns its exit code. What goes wrong before a
// command starts (flags, arguments, an unknown command) is a usage error. The
// first SIGINT or SIGTERM cancels the command's context, a second one kills.
func Execute(root *cobra.Command, args []string, s Streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SilenceErrors, root.SilenceUsage = true, true
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	started := false
	prepare(root, &started)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	if !started && ExitCode(err) == ExitFailed {
		err = WithCode(err, ExitUsage)
		if e := (hintError{}); !errors.As(err, &e) {
			err = WithHint(err, "see "+root.Name()+" --help")
		}
	}
	Report(s.Err, root.Name(), err)
	return ExitCode(err)
}

// prepare notes when a command starts, and makes commands that only group
// others refuse what is none of them (cobra shows help and succeeds).
func prepare(cmd *cobra.Command, started *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = unknownCommand
	}
	for _, sub := range cmd.Commands() {
		prepare(sub, started)
	}
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	see := "see " + cmd.CommandPath() + " --help"
	if len(args) == 0 {
		return WithHint(Usage("%s needs a command", cmd.CommandPath()), see)
	}
	cmd.SuggestionsMinimumDistance = 2
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		see = "did you mean " + similar[0] + "? " + see
	}
	return WithHint(Usage("unknown command %q for %s", args[0], cmd.CommandPath()), see)
}
