package keyfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Read reads a regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) { return read(path, limit, false, false) }

// ReadSecret reads a regular file of at most limit bytes that nobody but its
// owner may read or write; else the error wraps ErrPermissions. The caller
// zeroes the result after use.
func ReadSecret(path string, limit int64) ([]byte, error) { return read(path, limit, true, false) }

// ReadBack reads a file from the medium itself, dropping the page cache first,
// and compares it with what was written. A difference wraps ErrReadBack.
func ReadBack(path string, want []byte) error {
	got, err := read(path, int64(len(want))+1, false, true)
	if errors.Is(err, ErrTooLarge) || err == nil && !bytes.Equal(got, want) {
		return fmt.Errorf("read back %s: %w", path, ErrReadBack)
	}
	return err
}

// ReadBackContent is ReadBack of what was written as a stream.
func ReadBackContent(path string, want Content) error {
	got := Content{}
	digest := sha256.New()
	err := withFile(path, want.Size, false, true, func(file *os.File, _ int64) (err error) {
		got.Size, err = io.Copy(digest, io.LimitReader(file, want.Size+1))
		return err
	})
	got.SHA256 = [sha256.Size]byte(digest.Sum(nil))
	if errors.Is(err, ErrTooLarge) || err == nil && got != want {
		return fmt.Errorf("read back %s: %w", path, ErrReadBack)
	}
	return err
}

func read(path string, limit int64, secret, uncached bool) (data []byte, err error) {
	err = withFile(path, limit, secret, uncached, func(file *os.File, size int64) error {
		data = make([]byte, size+1)
		n, err := io.ReadFull(file, data)
		switch {
		case err == nil || int64(n) > limit:
			clear(data)
			return fmt.Errorf("%s grew while it was read", path)
		case !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF):
			clear(data)
			return fmt.Errorf("read %s: %w", path, err)
		}
		data = data[:n]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// withFile opens a file for do, which is told its size.
func withFile(path string, limit int64, secret, uncached bool, do func(file *os.File, size int64) error) (err error) {
	// A FIFO or device in the file's place would block or never end.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if secret && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, want 0600 (chmod 600 %s): %w", path, info.Mode().Perm(), path, ErrPermissions)
	}
	if info.Size() > limit {
		return tooLarge(path, limit)
	}
	if uncached {
		if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return fmt.Errorf("drop the page cache of %s: %w", path, err)
		}
	}
	return do(file, info.Size())
}

func tooLarge(path string, limit int64) error {
	return fmt.Errorf("%s has more than %d bytes: %w", path, limit, ErrTooLarge)
}
