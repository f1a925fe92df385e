package hashlog

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

// State is where a log stands after its last signed head; the zero State is an
// empty log.
type State struct {
	Head       Head
	Size       int64 // bytes up to and with the line of the last signed head
	Unfinished int64 // bytes behind it
	last       Hash  // of the head's own line: the next line's prev
}

// Log is a log that was read and found whole.
type Log struct {
	State   State
	Entries []Entry
	heads   []headAt
	tail    []Entry // behind the last head
	end     State   // behind the tail
}

// headAt is a head with what its verification needs.
type headAt struct {
	head      Head
	signature []byte
	line      int
}

// Read reads a log and checks it: the chain of all lines and the signature of
// the last head, which covers everything before it. If that signature fails,
// the first head that fails is looked for. The error is a *LineError with the
// first line that does not hold; what stands behind the last head is none, but
// is not among the entries (State.Unfinished, Finished).
func Read(r io.Reader, verify Verifier) (*Log, error) {
	var entries []Entry
	l, err := ReadSuccession(r, verify, func(e Entry) Verifier {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.Entries = entries
	return l, nil
}

// ReadSuccession is Read of a log whose signer changes, and of one whose entries
// its caller keeps: Log.Entries stays empty. next is called with each entry
// that a head covers, in order, and returns who signs from there on, nil if that
// stays as it is: the first head that covers the entry is the last one of the
// signer before. Of every signer the last head is verified, so that none of them
// can change what was signed before his time. When next is called no signature
// was verified yet.
func ReadSuccession(r io.Reader, verify Verifier, next func(Entry) Verifier) (*Log, error) {
	l := &Log{}
	type succession struct {
		entry  uint64
		signer Verifier
	}
	var successors []succession
	err := l.scan(r, func(e Entry) {
		if signer := next(e); signer != nil {
			successors = append(successors, succession{e.Index, signer})
		}
	})
	if err != nil {
		return nil, err
	}
	heads := l.heads
	for _, s := range successors {
		covers := func(h headAt) bool { return h.head.Count >= s.entry }
		last := slices.IndexFunc(heads, covers) // there is one: what is not covered is no entry
		if err := verifyHeads(heads[:last+1], verify); err != nil {
			return nil, err
		}
		heads, verify = heads[last+1:], s.signer
	}
	if err := verifyHeads(heads, verify); err != nil {
		return nil, err
	}
	return l, nil
}

// scan checks the chain and calls entry with what a head covers.
func (l *Log) scan(r io.Reader, entry func(Entry)) error {
	var prev Hash
	var size int64
	var pending []Entry // behind the last head
	in := bufio.NewReaderSize(r, MaxLine+1)
	for n := 1; ; n++ {
		raw, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			// A torn line: an append that was interrupted.
			l.State.Unfinished = size + int64(len(raw)) - l.State.Size
			l.tail = pending
			l.end = State{Head: Head{l.State.Head.Count + uint64(len(pending)), prev}, Size: size, last: prev}
			return nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return &LineError{n, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxLine)}
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		line := bytes.TrimSuffix(raw, []byte("\n"))
		p, err := parseLine(line)
		if err == nil && *p.Prev != prev {
			err = ErrChain
		}
		if err != nil {
			return &LineError{n, err}
		}
		size += int64(len(raw))
		count := l.State.Head.Count + uint64(len(pending))
		if p.Index != nil {
			if *p.Index != count+1 {
				return &LineError{n, fmt.Errorf("%w: entry %d follows entry %d", ErrChain, *p.Index, count)}
			}
			pending = append(pending, Entry{*p.Index, p.Time, p.Body, n})
			prev = sha256.Sum256(line)
			continue
		}
		// Nothing is chained to the last line: it must be as it was written.
		if err := sameLine(headLine{p.V, *p.Prev, *p.Head, hex.EncodeToString(p.signature)}, line); err != nil {
			return &LineError{n, err}
		}
		if *p.Head != count {
			return &LineError{n, fmt.Errorf("%w: the head counts %d entries, there are %d", ErrChain, *p.Head, count)}
		}
		head := Head{count, prev}
		prev = sha256.Sum256(line)
		l.heads = append(l.heads, headAt{head, p.signature, n})
		for _, e := range pending {
			entry(e)
		}
		pending = nil
		l.State = State{Head: head, Size: size, last: prev}
	}
}

// verifyHeads checks the last of the heads of one signer, which covers
// everything before it. If it fails, the first that fails is looked for.
func verifyHeads(heads []headAt, verify Verifier) error {
	if len(heads) == 0 {
		return nil
	}
	check := func(h headAt) error {
		if err := verify(h.head.Document(), h.signature); err != nil {
			return &LineError{h.line, fmt.Errorf("%w: %w", ErrHead, err)}
		}
		return nil
	}
	last := check(heads[len(heads)-1])
	if last == nil {
		return nil
	}
	for _, h := range heads {
		if err := check(h); err != nil {
			return err
		}
	}
	return last
}

// Extend returns the entries that whole lines would add to the log, and the head
// to be signed behind them: for whoever signs only what he has read. Each line
// must be exactly as Append writes it. The log stays as it is. Errors are
// *LineError, or wrap ErrUnfinished if something stands behind the log's head
// already.
func (l *Log) Extend(lines []byte) ([]Entry, Head, error) {
	if err := l.Finished(); err != nil {
		return nil, Head{}, err
	}
	head, prev := l.State.Head, l.State.last
	n := 0
	if len(l.heads) > 0 {
		n = l.heads[len(l.heads)-1].line
	}
	var added []Entry
	for raw := range bytes.Lines(lines) {
		n++
		line, whole := bytes.CutSuffix(raw, []byte("\n"))
		p, err := parseLine(line)
		switch {
		case err != nil:
		case !whole || len(line) > MaxLine:
			err = fmt.Errorf("%w: not a whole line of at most %d bytes", ErrFormat, MaxLine)
		case p.Index == nil:
			err = fmt.Errorf("%w: a head, not an entry", ErrFormat)
		case *p.Prev != prev || *p.Index != head.Count+1:
			err = ErrChain
		default:
			err = sameLine(entryLine{p.V, *p.Prev, *p.Index, p.Time, p.Body}, line)
		}
		if err != nil {
			return nil, Head{}, &LineError{n, err}
		}
		prev = sha256.Sum256(line)
		head = Head{*p.Index, prev}
		added = append(added, Entry{*p.Index, p.Time, p.Body, n})
	}
	return added, head, nil
}

func sameLine(e any, line []byte) error {
	again, err := marshalLine(e)
	if err == nil && !bytes.Equal(again, line) {
		err = fmt.Errorf("%w: not as this release writes it", ErrFormat)
	}
	return err
}

// Tail returns the entries behind the last head: nobody has signed them.
func (l *Log) Tail() []Entry { return l.tail }

// Open returns the state behind the Tail, from which Add and Commit go on. It
// is for logs that are signed once, at their end; what is behind it, a torn line,
// is to be cut off.
func (l *Log) Open() State { return l.end }

// Advance notes that the bytes which State.Append returned were written.
func (l *Log) Advance(next State) {
	l.State = next
	l.heads = append(l.heads, headAt{head: next.Head})
}

// Finished reports, as a *LineError that wraps ErrUnfinished, that something
// stands behind the last head.
func (l *Log) Finished() error {
	if l.State.Unfinished == 0 {
		return nil
	}
	line := 1
	if n := len(l.heads); n > 0 {
		line = l.heads[n-1].line + 1
	}
	return &LineError{line, ErrUnfinished}
}

// Covers reports, as an error that wraps ErrTruncated, that the log does not
// contain a head known from elsewhere.
func (l *Log) Covers(known Head) error {
	for _, h := range l.heads {
		if h.head == known {
			return nil
		}
	}
	return fmt.Errorf("%w: it has %d entries and no head %d:%.16s…", ErrTruncated, l.State.Head.Count, known.Count, known.Hash)
}
