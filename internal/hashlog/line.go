package hashlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Entry is one entry of the log.
type Entry struct {
	Index uint64 // from 1
	Time  time.Time
	Body  json.RawMessage
	Line  int // of the log, from 1
}

type entryLine struct {
	V     int             `json:"v"`
	Prev  Hash            `json:"prev"`
	Index uint64          `json:"index"`
	Time  time.Time       `json:"time"`
	Body  json.RawMessage `json:"body"`
}

type headLine struct {
	V         int    `json:"v"`
	Prev      Hash   `json:"prev"`
	Head      uint64 `json:"head"`
	Signature string `json:"signature"`
}

// parsedLine is either of the two.
type parsedLine struct {
	V         int             `json:"v"`
	Prev      *Hash           `json:"prev"`
	Index     *uint64         `json:"index"`
	Time      time.Time       `json:"time"`
	Body      json.RawMessage `json:"body"`
	Head      *uint64         `json:"head"`
	Signature string          `json:"signature"`
	signature []byte
}

func parseLine(line []byte) (parsedLine, error) {
	var p parsedLine
	if err := json.Unmarshal(line, &p); err != nil {
		return p, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if p.V != version {
		return p, fmt.Errorf("%w: version %d, this release reads %d", ErrFormat, p.V, version)
	}
	isEntry := p.Index != nil && len(p.Body) > 0 && p.Body[0] == '{' && !p.Time.IsZero()
	isHead := p.Head != nil && p.Signature != ""
	if p.Prev == nil || isEntry == isHead {
		return p, fmt.Errorf("%w: neither an entry nor a head", ErrFormat)
	}
	var err error
	if p.signature, err = hex.DecodeString(p.Signature); err != nil {
		return p, fmt.Errorf("%w: signature: %w", ErrFormat, err)
	}
	return p, nil
}

func marshalLine(v any) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(line) > MaxLine || bytes.ContainsRune(line, '\n') {
		return nil, fmt.Errorf("%w: an entry of %d bytes", ErrFormat, len(line))
	}
	return line, nil
}
