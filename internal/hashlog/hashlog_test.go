package hashlog_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/hashlog"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func key(seed byte) (hashlog.Signer, hashlog.Verifier) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	sign := func(doc []byte) ([]byte, error) { return ed25519.Sign(private, doc), nil }
	verify := func(doc, sig []byte) error {
		if !ed25519.Verify(private.Public().(ed25519.PublicKey), doc, sig) {
			return errors.New("bad signature")
		}
		return nil
	}
	return sign, verify
}

type fataler interface{ Fatal(...any) }

// build appends batches of entries; the i-th entry of all has the body {"n":i}.
func build(t fataler, sign hashlog.Signer, batches ...int) ([]byte, hashlog.State) {
	var log []byte
	var state hashlog.State
	n := 0
	for _, size := range batches {
		var bodies []json.RawMessage
		for range size {
			n++
			bodies = append(bodies, json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)))
		}
		data, next, err := state.Append(epoch, sign, bodies...)
		if err != nil {
			t.Fatal(err)
		}
		log, state = append(log, data...), next
	}
	return log, state
}

func read(data []byte, verify hashlog.Verifier) (*hashlog.Log, error) {
	return hashlog.Read(bytes.NewReader(data), verify)
}

func TestAppendAndRead(t *testing.T) {
	sign, verify := key(1)
	data, state := build(t, sign, 1, 3, 2)
	log, err := read(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	if log.State != state {
		t.Errorf("state %+v, want %+v", log.State, state)
	}
	if err := log.Finished(); err != nil {
		t.Error(err)
	}
	if len(log.Entries) != 6 {
		t.Fatalf("%d entries, want 6", len(log.Entries))
	}
	// Heads stand on lines 2, 6 and 9.
	for i, line := range []int{1, 3, 4, 5, 7, 8} {
		e := log.Entries[i]
		if e.Index != uint64(i+1) || e.Line != line || !e.Time.Equal(epoch) || string(e.Body) != fmt.Sprintf(`{"n":%d}`, i+1) {
			t.Errorf("entry %d: %+v", i+1, e)
		}
	}
	empty, err := read(nil, verify)
	if err != nil || empty.State != (hashlog.State{}) || empty.Finished() != nil {
		t.Errorf("empty log: %+v, %v", empty, err)
	}
}

func TestEveryKnownHeadIsCovered(t *testing.T) {
	sign, verify := key(1)
	data, _ := build(t, sign, 1, 1, 1)
	full, err := read(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	for _, n := range []int{2, 4, 6} {
		part, err := read(bytes.Join(lines[:n], nil), verify)
		if err != nil {
			t.Fatal(err)
		}
		if err := full.Covers(part.State.Head); err != nil {
			t.Errorf("head after line %d: %v", n, err)
		}
		if n < 6 {
			if err := part.Covers(full.State.Head); !errors.Is(err, hashlog.ErrTruncated) {
				t.Errorf("log cut after line %d: error %v, want ErrTruncated", n, err)
			}
		}
	}
	other, _ := key(1)
	fork, _ := build(t, other, 1, 2)
	forked, err := read(fork, verify)
	if err != nil {
		t.Fatal(err)
	}
	if err := forked.Covers(full.State.Head); !errors.Is(err, hashlog.ErrTruncated) {
		t.Errorf("another history of the same length: error %v, want ErrTruncated", err)
	}
}

func TestAdvanceCoversWhatWasAppended(t *testing.T) {
	sign, verify := key(1)
	data, _ := build(t, sign, 1)
	log, err := read(data, verify)
	if err != nil {
		t.Fatal(err)
	}
	_, next, err := log.State.Append(epoch, sign, json.RawMessage(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if log.Covers(next.Head) == nil {
		t.Error("covered before it was written")
	}
	log.Advance(next)
	if err := log.Covers(next.Head); err != nil {
		t.Error(err)
	}
}

// Attack: somebody without the key changes one entry and computes all later
// hashes anew. The first head behind the entry is the first line that does not
// hold.
func TestRechainedLogIsRefused(t *testing.T) {
	sign, verify := key(1)
	mallory, _ := key(2)
	genuine, _ := build(t, sign, 1, 1, 1)
	forged, _ := build(t, mallory, 1, 1, 1)
	lines := bytes.SplitAfter(genuine, []byte("\n"))
	for from := 1; from < 6; from += 2 {
		// Keep the genuine lines up to a head, continue as mallory.
		part, err := read(bytes.Join(lines[:from-1], nil), verify)
		if err != nil {
			t.Fatal(err)
		}
		data, _, err := part.State.Append(epoch, mallory, json.RawMessage(`{"n":666}`))
		if err != nil {
			t.Fatal(err)
		}
		_, err = read(append(bytes.Join(lines[:from-1], nil), data...), verify)
		wantLine(t, err, from+1, hashlog.ErrHead)
	}
	_, err := read(forged, verify)
	wantLine(t, err, 2, hashlog.ErrHead)
}

func wantLine(t *testing.T, err error, line int, cause error) {
	t.Helper()
	var le *hashlog.LineError
	if !errors.As(err, &le) || le.Line != line || !errors.Is(err, cause) {
		t.Errorf("error %v, want line %d: %v", err, line, cause)
	}
}

// Attack: lines are changed, dropped, doubled or swapped.
func TestTamperedLinesAreNamed(t *testing.T) {
	sign, verify := key(1)
	data, _ := build(t, sign, 2, 2)
	lines := func() [][]byte { return bytes.SplitAfter(bytes.Clone(data), []byte("\n")) }
	for _, tc := range []struct {
		name   string
		tamper func([][]byte) [][]byte
		line   int
		cause  error
	}{
		{"body changed", func(l [][]byte) [][]byte {
			l[1] = bytes.Replace(l[1], []byte(`{"n":2}`), []byte(`{"n":3}`), 1)
			return l
		}, 3, hashlog.ErrChain},
		{"time changed", func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte("2026"), []byte("2025"), 1)
			return l
		}, 2, hashlog.ErrChain},
		{"dropped", func(l [][]byte) [][]byte { return append(l[:1:1], l[2:]...) }, 2, hashlog.ErrChain},
		{"doubled", func(l [][]byte) [][]byte { return append(l[:2:2], l[1:]...) }, 3, hashlog.ErrChain},
		{"swapped", func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l }, 1, hashlog.ErrChain},
		{"head dropped", func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }, 3, hashlog.ErrChain},
		{"head's count changed", func(l [][]byte) [][]byte {
			l[5] = bytes.Replace(l[5], []byte(`"head":4`), []byte(`"head":3`), 1)
			return l
		}, 6, hashlog.ErrChain},
		{"signature changed", func(l [][]byte) [][]byte {
			l[5] = append(bytes.Replace(l[5], []byte(`"signature":"`), []byte(`"signature":"0`), 1)[:len(l[5])-3], []byte("\"}\n")...)
			return l
		}, 6, hashlog.ErrHead},
		{"not JSON", func(l [][]byte) [][]byte { l[3] = []byte("garbage\n"); return l }, 4, hashlog.ErrFormat},
		{"another version", func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(`"v":1`), []byte(`"v":2`), 1)
			return l
		}, 4, hashlog.ErrFormat},
		{"empty line", func(l [][]byte) [][]byte { l[3] = []byte("\n"); return l }, 4, hashlog.ErrFormat},
		{"overlong line", func(l [][]byte) [][]byte {
			l[3] = append(bytes.Repeat([]byte(" "), hashlog.MaxLine), l[3]...)
			return l
		}, 4, hashlog.ErrFormat},
		{"both kinds at once", func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte(`"v":1`), []byte(`"v":1,"head":3,"signature":"00"`), 1)
			return l
		}, 4, hashlog.ErrFormat},
		{"garbage behind the end", func(l [][]byte) [][]byte { return append(l, []byte("garbage\n")) }, 7, hashlog.ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := read(bytes.Join(tc.tamper(lines()), nil), verify)
			wantLine(t, err, tc.line, tc.cause)
		})
	}
}

// A log cut at any byte is the log up to its last whole head, and says that
// something is behind it.
func TestInterruptedAppendIsLeftOut(t *testing.T) {
	sign, verify := key(1)
	first, committed := build(t, sign, 2)
	data, _ := build(t, sign, 2, 3)
	for cut := len(first); cut < len(data); cut++ {
		log, err := read(data[:cut], verify)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if len(log.Entries) != 2 || log.State.Size != int64(len(first)) || log.State.Unfinished != int64(cut-len(first)) {
			t.Fatalf("cut at %d: %d entries, %+v", cut, len(log.Entries), log.State)
		}
		if cut == len(first) {
			continue
		}
		wantLine(t, log.Finished(), 4, hashlog.ErrUnfinished)
		// What is appended there continues the log.
		more, _, err := log.State.Append(epoch, sign, json.RawMessage(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := read(append(bytes.Clone(first), more...), verify); err != nil || len(again.Entries) != 3 {
			t.Fatalf("cut at %d, continued: %v", cut, err)
		}
	}
	if log, err := read(first, verify); err != nil || log.State != committed {
		t.Errorf("state %+v, %v", log.State, err)
	}
}

func TestAppendRefusesWhatItCouldNotRead(t *testing.T) {
	sign, _ := key(1)
	for name, body := range map[string]string{
		"too long": `{"x":"` + strings.Repeat("a", hashlog.MaxLine) + `"}`,
		"not JSON": `{`,
	} {
		if _, _, err := (hashlog.State{}).Append(epoch, sign, json.RawMessage(body)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := (hashlog.State{}).Append(epoch, func([]byte) ([]byte, error) { return nil, errors.New("no key") }); err == nil {
		t.Error("a signer's error was lost")
	}
}

// Property: whatever one byte of a log becomes, the log is refused, or lacks
// only entries at its end and says so, or has the same entries (a byte changed
// the case of a key or the white space).
func TestAnyChangedByteShows(t *testing.T) {
	sign, verify := key(1)
	data, state := build(t, sign, 2, 1)
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(data)
		at := rapid.IntRange(0, len(data)-1).Draw(t, "at")
		changed[at] ^= rapid.ByteRange(1, 255).Draw(t, "change")
		log, err := read(changed, verify)
		if err != nil || log.Finished() != nil {
			return
		}
		if log.State.Head != state.Head {
			t.Fatalf("byte %d changed to %q: accepted another history", at, changed[at])
		}
	})
}

func FuzzRead(f *testing.F) {
	sign, verify := key(1)
	data, _ := build(f, sign, 1, 2)
	f.Add(data)
	f.Add(data[:len(data)-10])
	f.Add([]byte("{}\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		log, err := read(data, verify)
		if err != nil {
			var le *hashlog.LineError
			if !errors.As(err, &le) || le.Line < 1 {
				t.Fatalf("error without a line: %v", err)
			}
			return
		}
		if log.State.Size+log.State.Unfinished != int64(len(data)) {
			t.Fatalf("%d + %d bytes of %d", log.State.Size, log.State.Unfinished, len(data))
		}
		if uint64(len(log.Entries)) != log.State.Head.Count {
			t.Fatalf("%d entries, head of %d", len(log.Entries), log.State.Head.Count)
		}
	})
}
