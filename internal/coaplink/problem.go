package coaplink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// problemDetails is the payload of an error response (RFC 9290 section 2).
type problemDetails struct {
	Title  string `cbor:"-1,keyasint,omitempty"` // an enrol.Problem
	Detail string `cbor:"-2,keyasint,omitempty"`
}

func problemCodes() map[enrol.Problem]codes.Code {
	return map[enrol.Problem]codes.Code{
		enrol.ProblemBadRequest:  codes.BadRequest,
		enrol.ProblemForbidden:   codes.Forbidden,
		enrol.ProblemUnknown:     codes.NotFound,
		enrol.ProblemUnknownCA:   codes.NotFound,
		enrol.ProblemConflict:    codeConflict,
		enrol.ProblemUnverified:  codeUnprocessableEntity,
		enrol.ProblemRolledBack:  codes.InternalServerError,
		enrol.ProblemInternal:    codes.InternalServerError,
		enrol.ProblemFull:        codes.InternalServerError,
		enrol.ProblemUnavailable: codes.ServiceUnavailable,
		enrol.ProblemReplaced:    codes.ServiceUnavailable,
	}
}

// refusal turns an error of Services into one that may be told to the peer.
// Only a *enrol.DeviceError is meant for it; that there is no room is told all
// the same, since somebody has to go there and make some.
func refusal(err error) *enrol.DeviceError {
	var e *enrol.DeviceError
	switch {
	case errors.As(err, &e):
		if _, ok := problemCodes()[e.Problem]; ok {
			return e
		}
	case errors.Is(err, context.Canceled):
		return &enrol.DeviceError{Problem: enrol.ProblemUnavailable, Detail: "the agent is stopping"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &enrol.DeviceError{Problem: enrol.ProblemFull, Detail: "no space left on the device"}
	case errors.Is(err, errPayload):
		return &enrol.DeviceError{Problem: enrol.ProblemBadRequest, Detail: err.Error()}
	}
	return &enrol.DeviceError{Problem: enrol.ProblemInternal, Detail: "internal error, see the device's log"}
}

func encodeProblem(e *enrol.DeviceError) ([]byte, error) {
	return encode(problemDetails{string(e.Problem), truncate(e.Detail, maxDetail)})
}

// decodeProblem turns an error response into the *enrol.DeviceError that it
// tells. The code counts where it and the title disagree.
func decodeProblem(r *reply) *enrol.DeviceError {
	out := &enrol.DeviceError{Problem: problemOf(r.code), Detail: fmt.Sprintf("response code %d.%02d", r.code>>5, r.code&0x1f)}
	var p problemDetails
	if r.format != formatProblem || decode(r.payload, &p) != nil {
		return out
	}
	if p.Detail != "" {
		out.Detail = printable(truncate(p.Detail, maxDetail))
	}
	if code, ok := problemCodes()[enrol.Problem(p.Title)]; ok && code == r.code {
		out.Problem = enrol.Problem(p.Title)
	}
	return out
}

// problemOf is the problem of a response without details. A bare 4.04 is a
// device without such a resource, not one that forgot the enrolment.
func problemOf(c codes.Code) enrol.Problem {
	switch {
	case c == codes.Forbidden, c == codes.Unauthorized:
		return enrol.ProblemForbidden
	case c == codeConflict:
		return enrol.ProblemConflict
	case c == codeUnprocessableEntity:
		return enrol.ProblemUnverified
	case c == codes.ServiceUnavailable, c == codes.TooManyRequests:
		return enrol.ProblemUnavailable
	case c>>5 == 5:
		return enrol.ProblemInternal
	}
	return enrol.ProblemBadRequest
}

// printable keeps control characters of a device out of terminals and logs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
