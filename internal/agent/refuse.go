package agent

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// maxDetail bounds the words of a refusal in bytes.
const maxDetail = 256

func refuse(problem enrol.Problem, format string, args ...any) *enrol.DeviceError {
	return &enrol.DeviceError{Problem: problem, Detail: clip(fmt.Sprintf(format, args...))}
}

// clip makes one line of printable UTF-8 of at most maxDetail bytes.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "")
}
