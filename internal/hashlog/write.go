package hashlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Append returns the bytes that add entries with these bodies (JSON objects)
// and a signed head to a log in this state, and the state that it has when
// they are written. The caller writes them at State.Size, having cut off what
// is behind it, and makes them durable before it acts on the entries.
func (s State) Append(now time.Time, sign Signer, bodies ...json.RawMessage) ([]byte, State, error) {
	entries, next, err := s.Add(now, bodies...)
	if err != nil {
		return nil, State{}, err
	}
	head, next, err := next.Commit(sign)
	if err != nil {
		return nil, State{}, err
	}
	return append(entries, head...), next, nil
}

// Add is the first half of Append, for logs whose entries are written one by
// one and signed at their end: entries without a head. The state's Head is the
// one to be signed; no reader takes the entries for committed before Commit.
func (s State) Add(now time.Time, bodies ...json.RawMessage) ([]byte, State, error) {
	var out bytes.Buffer
	next := State{Head: s.Head, Size: s.Size, last: s.last}
	for _, body := range bodies {
		next.Head.Count++
		if err := next.line(&out, entryLine{version, next.last, next.Head.Count, now.UTC(), body}); err != nil {
			return nil, State{}, err
		}
	}
	next.Head.Hash = next.last
	return out.Bytes(), next, nil
}

// Commit is the second half of Append: the signed head of all entries.
func (s State) Commit(sign Signer) ([]byte, State, error) {
	signature, err := sign(s.Head.Document())
	if err != nil {
		return nil, State{}, fmt.Errorf("sign the head of the log: %w", err)
	}
	var out bytes.Buffer
	if err := s.line(&out, headLine{version, s.last, s.Head.Count, hex.EncodeToString(signature)}); err != nil {
		return nil, State{}, err
	}
	return out.Bytes(), s, nil
}

// line adds a line.
func (s *State) line(out *bytes.Buffer, v any) error {
	line, err := marshalLine(v)
	if err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	s.last = sha256.Sum256(line)
	s.Size += int64(len(line)) + 1
	out.Write(line)
	out.WriteByte('\n')
	return nil
}
