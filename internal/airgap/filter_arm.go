package airgap

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_ARM

// socketcall is that of the old ABI: not in the table of EABI, but its number
// is refused too.
const socketcall = 102

func archCalls() []uint32 { return []uint32{unix.SYS_SEND, unix.SYS_RECV, socketcall} }
