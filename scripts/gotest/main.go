// Command gotest runs "go test" with the arguments given, prints what it would
// print, and ends with what was skipped and why, and with the counts: tests
// that need a program which is not installed are skipped, and plain "go test"
// says so only with -v. It fails if go test does.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	test := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	test.Stderr = os.Stderr
	events, err := test.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := test.Start(); err != nil {
		return 1, err
	}
	r := newReport(os.Stdout)
	readErr := r.read(events)
	waitErr := test.Wait()
	r.summary()
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(waitErr, &exit):
		return 1, readErr
	case waitErr != nil || readErr != nil:
		return 1, errors.Join(readErr, waitErr)
	case r.failed > 0:
		return 1, errors.New("go test ended well, but a test failed")
	}
	return 0, nil
}
