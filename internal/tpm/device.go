package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// DefaultDevice is the TPM behind the resource manager of Linux.
const DefaultDevice = "/dev/tpmrm0"

// ErrUnavailable is wrapped when the TPM cannot be reached, or does not answer.
var ErrUnavailable = errors.New("the TPM is not available")

const (
	headerSize  = 10   // tag, size, code (Library Specification part 1, clause 18)
	maxResponse = 4096 // bytes; TPM_PT_MAX_RESPONSE_SIZE of all that are known
	// commandTimeout bounds one command on a socket; the kernel bounds those on a
	// device. A TPM may take a minute to find an RSA key.
	commandTimeout = 3 * time.Minute
	// retries bounds the repetitions of a command that the TPM is too busy for;
	// the wait between them begins with 1 ms and doubles.
	retries = 10
)

// channel carries commands to a TPM one at a time; it implements transport.TPM
// of go-tpm.
type channel struct{ file io.ReadWriteCloser }

// open opens a character device, or a UNIX socket that carries bare commands.
func open(path string) (*channel, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var file io.ReadWriteCloser
	switch {
	case info.Mode()&fs.ModeSocket != 0:
		// A crypto.Signer has no context.
		file, err = (&net.Dialer{Timeout: commandTimeout}).DialContext(context.Background(), "unix", path)
	case info.Mode()&fs.ModeCharDevice != 0:
		file, err = os.OpenFile(path, os.O_RDWR, 0)
	default:
		return nil, fmt.Errorf("%w: %s is neither a device nor a socket", ErrUnavailable, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &channel{file: file}, nil
}

func (c *channel) close() error { return c.file.Close() }

// Send runs one command and returns the response.
func (c *channel) Send(command []byte) ([]byte, error) {
	wait := time.Millisecond
	for range retries {
		response, err := c.exchange(command)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if binary.BigEndian.Uint32(response[6:]) != uint32(tpm2.TPMRCRetry) {
			return response, nil
		}
		time.Sleep(wait)
		wait *= 2
	}
	return nil, fmt.Errorf("%w: it is busy", ErrUnavailable)
}

func (c *channel) exchange(command []byte) ([]byte, error) {
	if conn, ok := c.file.(net.Conn); ok {
		if err := conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
			return nil, err
		}
	}
	if _, err := c.file.Write(command); err != nil {
		return nil, err
	}
	// A device gives the response in one piece, and may forget what is not taken
	// at once; a socket gives it as it likes.
	buf := make([]byte, maxResponse)
	for n := 0; ; {
		m, err := c.file.Read(buf[n:])
		if err != nil {
			return nil, err
		}
		n += m
		if n < headerSize {
			continue
		}
		switch size := int64(binary.BigEndian.Uint32(buf[2:])); {
		case size < headerSize || size > maxResponse || int64(n) > size:
			return nil, fmt.Errorf("a response of %d bytes says that it has %d", n, size)
		case int64(n) == size:
			return buf[:n], nil
		}
	}
}
