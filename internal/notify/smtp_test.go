package notify_test

import (
	"errors"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/notify"
)

// mailServer takes one e-mail over a plain connection; answer is what it says
// to the recipient.
func mailServer(t testing.TB, answer string) (address string, got <-chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	out := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		text := textproto.NewConn(conn)
		defer text.Close()
		_ = text.PrintfLine("220 test ESMTP")
		for {
			line, err := text.ReadLine()
			if err != nil {
				return
			}
			switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
			case "RCPT":
				_ = text.PrintfLine("%s", answer)
			case "DATA":
				_ = text.PrintfLine("354 go on")
				data, err := text.ReadDotBytes()
				if err != nil {
					return
				}
				out <- string(data)
				_ = text.PrintfLine("250 taken")
			case "QUIT":
				_ = text.PrintfLine("221 bye")
				return
			case "RSET":
				return // without a word: for a message that was taken it says nothing
			default:
				_ = text.PrintfLine("250 test")
			}
		}
	}()
	return listener.Addr().String(), out
}

func smtp(server string) notify.SMTP {
	return notify.SMTP{Server: server, TLS: notify.TLSNone, From: "clm@example.com", To: "ops@example.com", Timeout: time.Minute}
}

// TestHeaderInjectionByDeviceError: what a device says cannot add a header.
func TestHeaderInjectionByDeviceError(t *testing.T) {
	t.Parallel()
	server, got := mailServer(t, "250 ok")
	if err := smtp(server).Send(t.Context(), message("x\r\nBcc: evil@example.com\r\n\r\n.\r\nMAIL FROM:<a@b>")); err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(<-got, "\n\n")
	for _, want := range []string{"Auto-Submitted: auto-generated", "Message-ID: <msg_0123@example.com>", "edgeclm:_critical"} {
		if !strings.Contains(header, want) {
			t.Errorf("no %q in\n%s", want, header)
		}
	}
	if strings.Contains("\n"+header, "\nBcc:") {
		t.Errorf("%s", header)
	}
}

// TestMailTakenByARudeServer: it hangs up once it has the message, which is not
// sent again for that.
func TestMailTakenByARudeServer(t *testing.T) {
	t.Parallel()
	server, got := mailServer(t, "250 ok")
	if err := smtp(server).Send(t.Context(), message("x")); err != nil || len(got) != 1 {
		t.Errorf("%d taken, %v", len(got), err)
	}
}

// TestMailRefused: for good, or for now.
func TestMailRefused(t *testing.T) {
	t.Parallel()
	for answer, final := range map[string]bool{"550 nobody here": true, "451 later": false} {
		server, _ := mailServer(t, answer)
		if err := smtp(server).Send(t.Context(), message("x")); err == nil || errors.Is(err, notify.ErrFinal) != final {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// TestMailWithoutTLS is not sent where TLS is wanted.
func TestMailWithoutTLS(t *testing.T) {
	t.Parallel()
	server, got := mailServer(t, "250 ok")
	s := smtp(server)
	s.TLS = notify.TLSStart
	if err := s.Send(t.Context(), message("x")); err == nil || len(got) > 0 {
		t.Errorf("%v", err)
	}
}
