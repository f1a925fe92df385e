package oslock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// entries is the file of the last entries through a gate: a ring of at least as
// many times as the rate has entries in its unit.
//
//	0   number of times in the ring
//	8   the next place in it
//	16  the times, nanoseconds since 1970; 0: none
//
// All are 8 bytes, big endian. An entry is its time first, and then the next
// place: one whose process dies in between was none.
type entries struct {
	path string
	rate fleet.Rate
}

const (
	entriesHeader = 16
	lockByte      = 1 << 40 // far behind the content
	maxEntries    = 1_000_000
)

// enter returns how long the next entry has to wait, and takes it down if that
// is not at all. The caller holds the lock.
func (l entries) enter(file *os.File, now time.Time, take bool) (wait time.Duration, err error) {
	size, next, err := l.prepare(file, int64(l.rate.N))
	if err != nil {
		return 0, err
	}
	last, err := readWord(file, entriesHeader+8*((next+size-1)%size))
	if err != nil {
		return 0, err
	}
	if time.Unix(0, last).Sub(now) > l.rate.Interval() {
		if err := clamp(file, size, now); err != nil {
			return 0, err
		}
	}
	oldest, err := readWord(file, entriesHeader+8*((next+size-int64(l.rate.N))%size))
	if err != nil {
		return 0, err
	}
	if oldest != 0 {
		wait = time.Unix(0, oldest).Add(l.rate.Per).Sub(now)
	}
	if wait > 0 || !take {
		return max(wait, 0), nil
	}
	if err := writeWord(file, entriesHeader+8*next, now.UnixNano()); err != nil {
		return 0, err
	}
	return 0, writeWord(file, 8, (next+1)%size)
}

// prepare returns the size and the next place of a ring of at least n, which it
// makes anew if it is smaller or if the file makes no sense. It never shrinks:
// another process may still have the higher rate.
func (l entries) prepare(file *os.File, n int64) (size, next int64, err error) {
	if size, err = readWord(file, 0); err != nil {
		return 0, 0, err
	}
	if next, err = readWord(file, 8); err != nil {
		return 0, 0, err
	}
	if size >= n && size <= maxEntries && next >= 0 && next < size {
		return size, next, nil
	}
	var times []int64
	if size > 0 && size <= maxEntries {
		if times, err = readTimes(file, size); err != nil {
			return 0, 0, err
		}
	}
	slices.Sort(times)
	times = times[max(0, int64(len(times))-n):]
	// The size is last: a process that dies before leaves a file that is made
	// anew once more.
	if err := writeWord(file, 0, 0); err != nil {
		return 0, 0, err
	}
	ring := make([]int64, n) // none in front, and the latest at the end
	copy(ring[n-int64(len(times)):], times)
	if err := writeTimes(file, ring); err != nil {
		return 0, 0, err
	}
	return n, 0, errors.Join(writeWord(file, 8, 0), writeWord(file, 0, n))
}

// clamp makes times that a wrong clock wrote, which lie in the future, now: the
// entries were before.
func clamp(file *os.File, n int64, now time.Time) error {
	times, err := readTimes(file, n)
	if err != nil {
		return err
	}
	for i, t := range times {
		times[i] = min(t, now.UnixNano())
	}
	return writeTimes(file, times)
}

func readWord(file *os.File, offset int64) (int64, error) {
	var b [8]byte
	if _, err := file.ReadAt(b[:], offset); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read entries: %w", err)
	}
	return int64(binary.BigEndian.Uint64(b[:])), nil
}

func writeWord(file *os.File, offset, value int64) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(value))
	if _, err := file.WriteAt(b[:], offset); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	return nil
}

func readTimes(file *os.File, n int64) ([]int64, error) {
	b := make([]byte, 8*n)
	got, err := file.ReadAt(b, entriesHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read entries: %w", err)
	}
	times := make([]int64, 0, n)
	for b = b[:got-got%8]; len(b) > 0; b = b[8:] {
		times = append(times, int64(binary.BigEndian.Uint64(b)))
	}
	return times, nil
}

func writeTimes(file *os.File, times []int64) error {
	b := make([]byte, 0, 8*len(times))
	for _, t := range times {
		b = binary.BigEndian.AppendUint64(b, uint64(t))
	}
	if _, err := file.WriteAt(b, entriesHeader); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	return nil
}
