package clmctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// Bounds of what completion offers, to somebody who waits at a prompt.
const (
	maxOffered     = 200
	completeWithin = time.Second
)

// completeFromInventory gives every command that takes devices, and every flag
// that takes a device, a label or a CA, what the inventory has. Whatever goes
// wrong, nothing is offered and nothing is said.
func (a *app) completeFromInventory(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.completeFromInventory(sub)
	}
	const noFiles = cobra.ShellCompDirectiveNoFileComp
	offer := func(flag string, f cobra.CompletionFunc) {
		if _, taken := cmd.GetFlagCompletionFunc(flag); !taken && cmd.LocalFlags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, f)
		}
	}
	names := func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.offerDevices(cmd, typed), noFiles
	}
	offer(flagSelector, func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.offerLabels(cmd, typed)
	})
	offer("device", names)
	offer("ca", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.offerAuthorities(cmd, typed), noFiles
	})
	if cmd.ValidArgsFunction != nil || !takesDevices(cmd) {
		return
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		// The arguments with one more say whether there may be one.
		if cmd.Args != nil && cmd.Args(cmd, append(slices.Clone(args), "x")) != nil {
			return nil, noFiles
		}
		offered := a.offerDevices(cmd, typed)
		return slices.DeleteFunc(offered, func(name string) bool { return slices.Contains(args, name) }), noFiles
	}
}

// takesDevices reports whether the arguments of a command are devices.
func takesDevices(cmd *cobra.Command) bool {
	if cmd.LocalFlags().Lookup(flagSelector) != nil {
		return true
	}
	return cmd.HasParent() && cmd.Parent().Name() == "device" && strings.Contains(cmd.Use, "NAME")
}

// peek looks into the inventory.
func (a *app) peek(cmd *cobra.Command, look func(ctx context.Context, p *sqlite.Peek) ([]string, error)) []string {
	s, err := a.open(cmd)
	if err != nil {
		return nil
	}
	p, err := sqlite.OpenPeek(s.dir.path(inventoryFile))
	if err != nil {
		return nil
	}
	// It was only read.
	defer func() { _ = p.Close() }()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), completeWithin)
	defer cancel()
	found, err := look(ctx, p)
	if err != nil {
		return nil
	}
	return found
}

// offerDevices offers names, and assets once something was typed.
func (a *app) offerDevices(cmd *cobra.Command, typed string) []string {
	return a.peek(cmd, func(ctx context.Context, p *sqlite.Peek) ([]string, error) {
		found, err := p.Names(ctx, typed, maxOffered)
		if err != nil || typed == "" {
			return found, err
		}
		assets, err := p.Assets(ctx, typed, maxOffered)
		return append(found, assets...), err
	})
}

// offerLabels offers keys, and the values once there is a key. Of several,
// separated by ';', the last one is what is being typed.
func (a *app) offerLabels(cmd *cobra.Command, typed string) ([]string, cobra.ShellCompDirective) {
	before, last := "", typed
	if i := strings.LastIndexByte(typed, ';'); i >= 0 {
		before, last = typed[:i+1], typed[i+1:]
	}
	key, value, hasKey := strings.Cut(last, "=")
	directive := cobra.ShellCompDirectiveNoFileComp
	if !hasKey {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	found := a.peek(cmd, func(ctx context.Context, p *sqlite.Peek) ([]string, error) {
		if hasKey {
			return p.LabelValues(ctx, key, value, maxOffered)
		}
		return p.LabelKeys(ctx, key, maxOffered)
	})
	for i, text := range found {
		if hasKey {
			found[i] = before + key + "=" + text
		} else {
			found[i] = before + text + "="
		}
	}
	return found, directive
}

// offerAuthorities offers the names of the CAs that were added.
func (a *app) offerAuthorities(cmd *cobra.Command, typed string) []string {
	s, err := a.open(cmd)
	if err != nil {
		return nil
	}
	f, err := s.dir.authorities()
	if err != nil {
		return nil
	}
	var out []string
	for _, ca := range f.Authorities {
		if strings.HasPrefix(ca.Name, typed) {
			out = append(out, ca.Name)
		}
	}
	return out
}
