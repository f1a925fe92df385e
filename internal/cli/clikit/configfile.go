package clikit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ReadConfig reads a configuration file of at most limit bytes; one that
// nobody named need not exist.
func ReadConfig(path string, limit int64, named bool) ([]byte, error) {
	data, err := keyfile.Read(path, limit)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return data, nil
}

// DecodeConfig decodes a configuration file over the values of v, strictly:
// unknown keys and wrong types are errors that name the line. An empty file
// changes nothing.
func DecodeConfig(data []byte, v any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil // empty, or comments alone
	}
	if err != nil {
		return explainYAML(data, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("a second YAML document")
	}
	return nil
}

// explainYAML words an error of the YAML library for people who do not know
// the types of this program.
func explainYAML(data []byte, err error) error {
	var parts *yaml.TypeError
	if !errors.As(err, &parts) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	unknown := regexp.MustCompile(`field (\S+) not found in type \S+`)
	words := strings.NewReplacer("time.Duration", "a duration like 90s or 10m", "!!str ", "", "!!int ", "")
	lines := strings.Split(string(data), "\n")
	for i, text := range parts.Errors {
		parts.Errors[i] = words.Replace(unknown.ReplaceAllString(nameKey(text, lines), `unknown key "$1"`))
	}
	return errors.New(strings.Join(parts.Errors, "; "))
}

// nameKey adds the key of its line to an error about a value.
func nameKey(text string, lines []string) string {
	number, _, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": cannot unmarshal ")
	at, err := strconv.Atoi(number)
	if !ok || err != nil || at < 1 || at > len(lines) {
		return text
	}
	key, _, ok := strings.Cut(strings.TrimLeft(lines[at-1], " -"), ":")
	if !ok {
		return text
	}
	return fmt.Sprintf("%s (%s)", text, OneLine(key))
}
