package tui

import "github.com/edgeclm/edgeclm/internal/enrol"

// hint says what an operator can do about a class of failures; "" if nothing
// but to wait.
func hint(c enrol.Class) string {
	switch c {
	case enrol.ClassUnreachable:
		return "Is it powered and on the network? clmctl discover finds devices that moved; UDP port 5684 must be open."
	case enrol.ClassIdentity:
		return "Another device answers at this address, or one side has older keys. clmctl commission --probe NAME says who answers."
	case enrol.ClassDevice:
		return "The device refused the request: see its own log, and whether its bundle allows the names that are asked for."
	case enrol.ClassBusy:
		return "The device is busy or short of something (its disk may be full): devagent status on the device says more."
	case enrol.ClassFull:
		return "The device has no room left to store keys and certificates: make room on its disk."
	case enrol.ClassDeviceVerify:
		return "The device does not trust the certificate's chain: its trust anchors and the CA in use must fit (clmctl ca rollover)."
	case enrol.ClassHook:
		return "The reload hook on the device failed and it went back to its previous certificate: run the hook there by hand."
	case enrol.ClassNotServed:
		return "The device has the certificate, its TLS server does not present it: see the reload hook and the endpoint."
	case enrol.ClassUnconfirmed:
		return "The device went back before it could be confirmed: the network between CLM and device is poor, or too slow."
	case enrol.ClassSuperseded:
		return "This enrolment was given up; the next run begins a new one."
	case enrol.ClassCSR:
		return "The device asked for other names or a weaker key than the profile wants: compare its bundle and the profile."
	case enrol.ClassCLMVerify:
		return "The CA issues something else than was asked for: compare its template with the profile."
	case enrol.ClassCAMismatch:
		return "The CA's answer does not belong to the request: tell its administrator; nothing was installed."
	case enrol.ClassCARejected:
		return "The CA said no: is the challenge still valid, are these names allowed?"
	case enrol.ClassCAUnavail:
		return "The CA gave no usable answer: clmctl doctor tries it. Nothing is lost while the runway lasts."
	case enrol.ClassCAPending:
		return "The CA waits for somebody to approve the request."
	case enrol.ClassClock:
		return "The clock of this host is wrong: see its time synchronisation."
	case enrol.ClassInternal:
		return "This host could not work: see disk space and permissions with clmctl doctor."
	}
	return ""
}
