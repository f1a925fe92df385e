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
	var out bytes.Buffer
	next := State{Head: s.Head, Size: s.Size, last: s.last}
	add := func(v any) error {
		line, err := marshalLine(v)
		if err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
		next.last = sha256.Sum256(line)
		next.Size += int64(len(line)) + 1
		out.Write(line)
		out.WriteByte('\n')
		return nil
	}
	for _, body := range bodies {
		next.Head.Count++
		if err := add(entryLine{version, next.last, next.Head.Count, now.UTC(), body}); err != nil {
			return nil, State{}, err
		}
	}
	next.Head.Hash = next.last
	signature, err := sign(next.Head.Document())
	if err != nil {
		return nil, State{}, fmt.Errorf("sign the head of the log: %w", err)
	}
	if err := add(headLine{version, next.last, next.Head.Count, hex.EncodeToString(signature)}); err != nil {
		return nil, State{}, err
	}
	return out.Bytes(), next, nil
}
