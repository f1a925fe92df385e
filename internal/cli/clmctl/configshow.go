package clmctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	cmd.AddCommand(a.configShowCommand())
	return cmd
}

func (a *app) configShowCommand() *cobra.Command {
	var origins bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration in force, and where each value comes from",
		Long: `show prints every setting with the value in force here: of the flags given, the
environment, the configuration file and the defaults, in this order. With -o yaml
the result can be used as a configuration file itself.

--origin adds where each value comes from: a flag, an environment variable, the
file with its line, or the default. Secrets do not occur: the configuration
names the files that hold them.`,
		Example: "  clmctl config show --origin\n  clmctl config show -o yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.open(cmd); err != nil {
				return err
			}
			x, err := readSources(cmd.Flags(), a.Streams)
			if err != nil {
				return clikit.WithCode(err, clikit.ExitUsage)
			}
			return a.showConfig(x, origins)
		},
	}
	cmd.Flags().BoolVar(&origins, "origin", false, "say where each value comes from")
	return cmd
}

// configView is the result of config show --origin.
type configView struct {
	File     *string       `json:"file"` // null: there is none
	Settings []settingView `json:"settings"`
}

type settingView struct {
	Key    string  `json:"key"`
	Value  any     `json:"value"`
	Source string  `json:"source"` // flag, environment, file or default
	At     *string `json:"at"`     // the flag, the variable, or file:line
}

func (a *app) showConfig(x sources, origins bool) error {
	tree := x.effective()
	var v configView
	t := clikit.Table{Columns: clikit.Columns("key", "value")}
	if origins {
		t.Columns = clikit.Columns("key", "value", "source", "at")
	}
	if x.exists() {
		v.File = optional(x.path)
	} else {
		a.note("there is no configuration file %s", x.path)
	}
	tree.each(nil, func(path keyPath, value any) {
		o := x.origin(path)
		v.Settings = append(v.Settings, settingView{path.String(), value, o.kind, optional(o.at)})
		row := []string{path.String(), cell(value)}
		if origins {
			row = append(row, o.kind, o.at)
		}
		t.Rows = append(t.Rows, row)
	})
	if origins {
		return clikit.Render(a.Out, a.Output, v, t)
	}
	return clikit.Render(a.Out, a.Output, tree, t)
}

// effective returns the configuration in force in the form of the file, made
// from the file's type: what is added there appears here.
func (x sources) effective() section {
	inForce := map[string]any{keyDataDir: x.dir}
	for _, known := range settings() {
		inForce[known.key] = x.value(known)
	}
	return sectionOf("", reflect.ValueOf(x.file), inForce)
}

// section is a part of the configuration, its members in the file's order.
type section []member

type member struct {
	name  string
	value any // a section, a list ([]any) of sections or scalars, a scalar, or nil
}

// sectionOf makes a section of a struct with yaml tags. Values of inForce
// stand for those of the struct.
func sectionOf(prefix string, v reflect.Value, inForce map[string]any) section {
	var out section
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		value, ok := inForce[prefix+name]
		if ok {
			value = plain(name, reflect.ValueOf(value), "", nil)
		} else {
			value = plain(name, v.Field(i), prefix+name+".", inForce)
		}
		out = append(out, member{name, value})
	}
	return out
}

// plain makes of a value what JSON and YAML can show; what would be a secret is
// left out.
func plain(name string, v reflect.Value, prefix string, inForce map[string]any) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return plain(name, v.Elem(), prefix, inForce)
	case reflect.Struct:
		return sectionOf(prefix, v, inForce)
	case reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, plain(name, v.Index(i), "", nil))
		}
		return out
	case reflect.Map:
		out := section{}
		for _, key := range slices.Sorted(maps.Keys(v.Interface().(map[string]string))) {
			out = append(out, member{key, withoutSecret(name, v.MapIndex(reflect.ValueOf(key)).String())})
		}
		return out
	case reflect.String:
		return withoutSecret(name, v.String())
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return shortDuration(d)
	}
	return v.Interface()
}

// withoutSecret drops what may be a secret: credentials and queries of URLs,
// and whatever somebody may call one in a later release by mistake.
func withoutSecret(name, text string) string {
	for _, word := range []string{"secret", "password", "passphrase", "token"} {
		if text != "" && strings.HasSuffix(name, word) {
			return "(not shown)"
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User == nil && u.RawQuery == "" {
		return text
	}
	if u.RawQuery != "" {
		u.RawQuery = "..."
	}
	return u.Redacted()
}

// shortDuration is d without the zeros at its end, as people write it: 10m.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// each calls visit with every value that is no section, and no list of them.
func (s section) each(prefix keyPath, visit func(path keyPath, value any)) {
	for _, m := range s {
		visitValue(append(slices.Clip(prefix), m.name), m.value, visit)
	}
}

func visitValue(path keyPath, value any, visit func(path keyPath, value any)) {
	if s, ok := value.(section); ok {
		s.each(path, visit)
		return
	}
	list, _ := value.([]any)
	if !slices.ContainsFunc(list, func(v any) bool { _, ok := v.(section); return ok }) {
		visit(path, value)
		return
	}
	for i, element := range list {
		visitValue(append(slices.Clip(path), strconv.Itoa(i)), element, visit)
	}
}

// cell is a value on one line.
func cell(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case []any:
		words := make([]string, len(value))
		for i, v := range value {
			words[i] = fmt.Sprint(v)
		}
		return strings.Join(words, ", ")
	}
	return fmt.Sprint(value)
}

// MarshalJSON implements json.Marshaler: an object, in order.
func (s section) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
