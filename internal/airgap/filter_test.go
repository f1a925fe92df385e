package airgap

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the filter as the kernel would; the interpreter reads big-endian.
func verdict(t *testing.T, vm *bpf.VM, arch, call uint32) uint32 {
	t.Helper()
	data := binary.BigEndian.AppendUint32(nil, call)
	data = binary.BigEndian.AppendUint32(data, arch)
	out, err := vm.Run(append(data, make([]byte, 56)...))
	if err != nil {
		t.Fatal(err)
	}
	return uint32(out)
}

// Every call of every architecture is judged as it should be.
func TestFilterJudgesEveryCall(t *testing.T) {
	arches := []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM}
	refused := map[uint32]bool{}
	for _, call := range refusedCalls() {
		if refused[call] {
			t.Errorf("call %d is listed twice", call)
		}
		refused[call] = true
	}
	for _, own := range arches {
		vm, err := bpf.NewVM(filter(own, refusedCalls()))
		if err != nil {
			t.Fatal(err)
		}
		for call := range uint32(1000) {
			want := uint32(allow)
			if refused[call] {
				want = refuse
			}
			if got := verdict(t, vm, own, call); got != want {
				t.Errorf("arch %#x: call %d: verdict %#x, want %#x", own, call, got, want)
			}
			if got := verdict(t, vm, own, x32Bit|call); got != kill {
				t.Errorf("arch %#x: x32 call %d: verdict %#x, want the end", own, call, got)
			}
		}
		for _, foreign := range append(arches, unix.AUDIT_ARCH_I386, 0) {
			if got := verdict(t, vm, foreign, unix.SYS_READ); foreign != own && got != kill {
				t.Errorf("arch %#x: a call of %#x: verdict %#x, want the end", own, foreign, got)
			}
		}
	}
	if _, err := assemble(filter(auditArch, refusedCalls())); err != nil {
		t.Error(err)
	}
}
