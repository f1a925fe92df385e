package coaplink

import (
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// Numbers of CoAP that the library does not name in the version that runs on
// 32-bit machines.
const (
	codeConflict            codes.Code = 4<<5 | 9  // 4.09, RFC 8132 section 2.3.4
	codeUnprocessableEntity codes.Code = 4<<5 | 22 // 4.22, RFC 8132 section 2.3.4

	optionRequestTag message.OptionID = 292 // RFC 9175 section 3.2

	maxRequestTag = 8 // bytes
)
