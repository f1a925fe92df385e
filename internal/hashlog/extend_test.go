package hashlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/edgeclm/edgeclm/internal/hashlog"
)

// What Append adds, without its head, is what Extend shows to whoever shall sign
// that head.
func TestExtend(t *testing.T) {
	sign, verify := key(1)
	data, _ := build(t, sign, 1, 2)
	log, err := read(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	var document []byte
	added, next, err := log.State.Append(epoch, func(d []byte) ([]byte, error) {
		document = d
		return sign(d)
	}, json.RawMessage(`{"n":4}`), json.RawMessage(`{"n":5}`))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(added, []byte("\n"))
	entries, head, err := log.Extend(bytes.Join(lines[:2], nil))
	if err != nil || head != next.Head || !bytes.Equal(head.Document(), document) {
		t.Fatalf("head %v, want %v: %v", head, next.Head, err)
	}
	if len(entries) != 2 || entries[1].Index != 5 || string(entries[1].Body) != `{"n":5}` || entries[0].Line != 6 {
		t.Errorf("%+v", entries)
	}
	if log.State.Head.Count != 3 || len(log.Entries) != 3 {
		t.Error("the log has changed")
	}
	if entries, head, err := log.Extend(nil); err != nil || len(entries) != 0 || head != log.State.Head {
		t.Errorf("nothing added: %v %v %v", entries, head, err)
	}
}

// Attack: whoever asks for a signature shows lines that do not continue the log,
// or in which something stands that this release does not read.
func TestAttackLinesToBeSignedAreReadStrictly(t *testing.T) {
	sign, verify := key(1)
	data, _ := build(t, sign, 1)
	log, err := read(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	added, _, err := log.State.Append(epoch, sign, json.RawMessage(`{"n":2}`), json.RawMessage(`{"n":3}`))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(added, []byte("\n"))
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for what, x := range map[string]struct {
		lines []byte
		line  int
		cause error
	}{
		"a head among them":  {added, 5, hashlog.ErrFormat},
		"swapped":            {join(lines[1], lines[0]), 3, hashlog.ErrChain},
		"one left out":       {lines[1], 3, hashlog.ErrChain},
		"twice":              {join(lines[0], lines[0]), 4, hashlog.ErrChain},
		"torn":               {lines[0][:len(lines[0])-1], 3, hashlog.ErrFormat},
		"an unknown key":     {bytes.Replace(lines[0], []byte(`"v":1`), []byte(`"v":1,"x":2`), 1), 3, hashlog.ErrFormat},
		"white space":        {bytes.Replace(lines[0], []byte(`"v":1`), []byte(`"v": 1`), 1), 3, hashlog.ErrFormat},
		"a key twice":        {bytes.Replace(lines[0], []byte(`"v":1`), []byte(`"v":2,"v":1`), 1), 3, hashlog.ErrFormat},
		"case of a key":      {bytes.Replace(lines[0], []byte(`"body"`), []byte(`"Body"`), 1), 3, hashlog.ErrFormat},
		"white space inside": {bytes.Replace(lines[0], []byte(`{"n":2}`), []byte(`{"n": 2}`), 1), 3, hashlog.ErrFormat},
		"an empty line":      {join(lines[0], []byte("\n")), 4, hashlog.ErrFormat},
		"another version":    {bytes.Replace(lines[0], []byte(`"v":1`), []byte(`"v":2`), 1), 3, hashlog.ErrFormat},
	} {
		_, _, err := log.Extend(x.lines)
		t.Run(what, func(t *testing.T) { wantLine(t, err, x.line, x.cause) })
	}
	log, err = read(append(data, "garbage"...), verify)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := log.Extend(lines[0]); !errors.Is(err, hashlog.ErrUnfinished) {
		t.Errorf("behind an interrupted append: %v", err)
	}
}
