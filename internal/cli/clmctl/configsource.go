package clmctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// keyDataDir is the one key of the file that is no setting: where settings are
// may depend on it.
const keyDataDir = "data_dir"

// sources are where the configuration comes from, read and decoded, before
// anybody has asked whether the values make sense together.
type sources struct {
	path  string // of the file, which need not exist
	dir   string // the data directory
	data  []byte // of the file; nil: there is none
	file  fileConfig
	viper *viper.Viper
	flags *pflag.FlagSet
	env   func(string) string
}

func readSources(flags *pflag.FlagSet, s clikit.Streams) (x sources, err error) {
	x = sources{flags: flags, env: s.Getenv}
	if x.path, x.dir, err = configPath(flags, s); err != nil {
		return x, err
	}
	if x.data, err = clikit.ReadConfig(x.path, maxConfigFile, x.dir == ""); err != nil {
		return x, err
	}
	if err := clikit.DecodeConfig(x.data, &x.file); err != nil {
		return x, fmt.Errorf("%s: %w", x.path, err)
	}
	switch {
	case x.dir == "":
		x.dir, err = clikit.ResolveDataDir(clikit.DataCLM, flagValue(flags, clikit.FlagDataDir), x.file.DataDir, s)
	case x.file.DataDir != "":
		err = fmt.Errorf("%s: data_dir only works in a file that is named with --config, not in one that was found in the data directory", x.path)
	}
	if err != nil {
		return x, err
	}
	x.viper, err = newViper(x.data, flags, s)
	return x, err
}

// exists reports whether there is a configuration file.
func (x sources) exists() bool {
	_, err := os.Stat(x.path)
	return !errors.Is(err, fs.ErrNotExist)
}

// The kinds of origin of a value.
const (
	originFlag        = "flag"
	originEnvironment = "environment"
	originFile        = "file"
	originDefault     = "default"
)

// origin says where a value comes from: the kind, and the flag, the variable or
// the file and line.
type origin struct {
	kind string
	at   string // "" for a default
}

// origin finds where the value of a key comes from, with the precedence with
// which it was read.
func (x sources) origin(path keyPath) origin {
	flag, variable, key := "", "", path.String()
	if key == keyDataDir {
		flag, variable = clikit.FlagDataDir, clikit.VariableDataDir
	}
	for _, known := range settings() {
		if known.key == key {
			flag, variable = known.flag, known.variable()
		}
	}
	if f := x.flags.Lookup(flag); flag != "" && f != nil && f.Changed {
		return origin{originFlag, "--" + flag}
	}
	if variable != "" && x.env(variable) != "" {
		return origin{originEnvironment, variable}
	}
	if line := lineOf(x.data, path); line > 0 {
		return origin{originFile, x.path + ":" + strconv.Itoa(line)}
	}
	return origin{kind: originDefault}
}

// locate adds to an error that begins with the key of a setting where the value
// was given.
func (x sources) locate(err error) error {
	for _, known := range settings() {
		rest, ok := strings.CutPrefix(err.Error(), known.key)
		if !ok || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, ":") {
			continue
		}
		path := keyPath(strings.Split(known.key, "."))
		switch o := x.origin(path); o.kind {
		case originFile:
			return fmt.Errorf("%s: line %d: %w", x.path, lineOf(x.data, path), err)
		case originEnvironment:
			return fmt.Errorf("environment variable %s: %w", o.at, err)
		}
	}
	return err
}

// value returns the value of a setting, of the type of its default.
func (x sources) value(known setting) any {
	switch known.value.(type) {
	case bool:
		return x.viper.GetBool(known.key)
	case int:
		return x.viper.GetInt(known.key)
	case float64:
		return x.viper.GetFloat64(known.key)
	case time.Duration:
		return x.viper.GetDuration(known.key)
	}
	return x.viper.GetString(known.key)
}

// keyPath leads to a value of the file: names of keys, and numbers of elements.
type keyPath []string

// String returns the path as people write it: enrolment.floor,
// profiles[0].name.
func (p keyPath) String() string {
	var b strings.Builder
	for i, name := range p {
		if _, err := strconv.Atoi(name); err == nil && i > 0 {
			b.WriteString("[" + name + "]")
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(name)
	}
	return b.String()
}

// lineOf returns the line of a YAML document on which a value's key is, 0 if it
// is not there.
func lineOf(data []byte, path keyPath) int {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil || len(document.Content) == 0 {
		return 0
	}
	node, line := document.Content[0], 0
	for _, name := range path {
		if node, line = child(node, name); node == nil {
			return 0
		}
	}
	return line
}

// child returns the value of a mapping's key, or an element of a sequence.
func child(node *yaml.Node, name string) (value *yaml.Node, line int) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.SequenceNode:
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= len(node.Content) {
			return nil, 0
		}
		return node.Content[i], node.Content[i].Line
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return node.Content[i+1], node.Content[i].Line
			}
		}
	}
	return nil, 0
}
