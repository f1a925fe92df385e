package enrol_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// probeTime is how long a device that finds out keeps the others off.
const probeTime = 3 * time.Minute

// breakerTest is one CA's breaker, and the device that finds out whether the CA
// is back, as far as the test knows.
type breakerTest struct {
	b       enrol.Breaker
	now     time.Time
	policy  enrol.Policy
	probing string // "": nobody
	since   time.Time
}

func (x *breakerTest) device(t *rapid.T) string {
	return fmt.Sprint("plc-", rapid.IntRange(0, 5).Draw(t, "device"))
}

// held reports whether the device that finds out still has time to.
func (x *breakerTest) held() bool {
	return x.probing != "" && !x.now.Before(x.since) && x.now.Before(x.since.Add(probeTime))
}

// wait lets time go by until somebody may ask, pass any time; jump sets the
// clock.
func (x *breakerTest) wait(*rapid.T) {
	if ok, until, _ := x.b.Allows(x.now); !ok {
		x.now = until
	}
}

func (x *breakerTest) pass(t *rapid.T) {
	x.now = x.now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "passed")))
}

func (x *breakerTest) jump(t *rapid.T) {
	x.now = x.now.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "jumped")))
	x.now = x.now.AddDate(rapid.SampledFrom([]int{0, 0, -50, -1, 1, 50}).Draw(t, "years"), 0, 0)
}

func (x *breakerTest) ask(t *rapid.T) {
	device, before := x.device(t), x.b
	ok := x.b.Probe(x.now, device)
	switch {
	case x.held() && ok:
		t.Fatalf("%s asks while %s finds out: %+v", device, x.probing, x.b)
	case !ok && fmt.Sprint(x.b) != fmt.Sprint(before):
		t.Fatalf("who may not ask changed %+v to %+v", before, x.b)
	case ok && x.b.State == enrol.BreakerHalfOpen:
		x.probing, x.since = device, x.now
		if x.b.Probing != device || !x.b.Until.Equal(x.now.Add(probeTime)) {
			t.Fatalf("%s is to find out: %+v", device, x.b)
		}
	case ok && x.b.State != enrol.BreakerClosed && x.b.State != "":
		t.Fatalf("%s asks: %+v", device, x.b)
	}
}

func (x *breakerTest) release(t *rapid.T) {
	device := x.device(t)
	if x.probing != "" && rapid.Bool().Draw(t, "itself") {
		device = x.probing
	}
	if did := x.b.Release(device); did != (x.probing == device) {
		t.Fatalf("%s lets others: %v, %+v", device, did, x.b)
	} else if did {
		x.probing = ""
	}
}

func (x *breakerTest) succeed(t *rapid.T) {
	x.b.Succeeded(x.now, time.Second)
	x.closed(t)
}

func (x *breakerTest) answer(t *rapid.T) {
	x.b.Answered()
	x.closed(t)
}

func (x *breakerTest) closed(t *rapid.T) {
	x.probing = ""
	if ok, _, probe := x.b.Allows(x.now); !ok || probe {
		t.Fatalf("not closed by an answer: %+v", x.b)
	}
}

// fail is also that of devices that asked before the breaker opened, and of
// devices with certificates of all lifetimes.
func (x *breakerTest) fail(t *rapid.T) {
	before, device, could := x.b, x.device(t), x.free()
	class := rapid.SampledFrom([]enrol.Class{
		enrol.ClassCAUnavail, enrol.ClassCARejected, enrol.ClassCAMismatch, enrol.ClassUnreachable, enrol.ClassHook,
	}).Draw(t, "class")
	after := time.Duration(rapid.Int64Range(0, int64(28*time.Hour)).Draw(t, "after"))
	life := time.Duration(rapid.Int64Range(int64(2*time.Minute), int64(2*365*24*time.Hour)).Draw(t, "lifetime"))
	x.b.Failed(x.now, device, &enrol.Fault{Class: class, After: after, Err: errors.New("no")}, x.policy.BreakerFor(life))
	if class == enrol.ClassUnreachable || class == enrol.ClassHook {
		if fmt.Sprint(x.b) != fmt.Sprint(before) {
			t.Fatalf("%s changed %+v to %+v", class, before, x.b)
		}
		return
	}
	if x.b.State == enrol.BreakerHalfOpen {
		t.Fatalf("%s failed, and %s may still find out: %+v", device, x.probing, x.b)
	}
	x.probing = ""
	if before.State == enrol.BreakerOpen && !could && x.b.State == enrol.BreakerOpen && !x.b.Until.Equal(before.Until) {
		t.Fatalf("a late failure moved the end from %s to %s", before.Until, x.b.Until)
	}
}

// free reports whether anybody may ask the CA.
func (x *breakerTest) free() bool {
	ok, _, _ := x.b.Allows(x.now)
	return ok
}

// check is what holds at any time: left alone, the breaker lets somebody ask
// within the longest wait, and if that one is never heard of again, the next
// one after the time that finding out may take.
func (x *breakerTest) check(t *rapid.T) {
	if len(x.b.Rejected) > x.policy.BreakerRejected || len(x.b.Mismatched) > x.policy.BreakerDevice {
		t.Fatalf("unbounded: %+v", x.b)
	}
	ok, until, _ := x.b.Allows(x.now)
	if x.b.State != enrol.BreakerOpen && ok == x.held() {
		t.Fatalf("at %s, %q finding out since %s: %+v", x.now, x.probing, x.since, x.b)
	}
	longest := x.policy.BreakerLongest
	if x.b.State == enrol.BreakerHalfOpen {
		longest = probeTime
	}
	if wait := until.Sub(x.now); !ok && (wait <= 0 || wait > longest) {
		t.Fatalf("at %s nobody asks for %v: %+v", x.now, wait, x.b)
	}
	later := *x
	if !ok {
		later.now = until
	}
	for _, device := range []string{"plc-6", "plc-7"} { // the first one dies
		if !later.b.Probe(later.now, device) {
			t.Fatalf("at %s nobody asks: %+v", later.now, later.b)
		}
		later.now = later.now.Add(probeTime)
	}
}

// TestBreakerAlwaysEndsUp: whatever happens, and whatever the clocks do, the CA
// is asked again within the longest wait and the time of one device that finds
// out, and while it is tried one device at a time asks.
func TestBreakerAlwaysEndsUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		x := &breakerTest{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), policy: enrol.DefaultPolicy()}
		x.policy.BreakerLongest = time.Duration(rapid.Int64Range(int64(time.Minute), int64(24*time.Hour)).Draw(rt, "longest"))
		for range rapid.SampledFrom([]int{0, x.policy.BreakerStrikes}).Draw(rt, "strikes") {
			x.b.Failed(x.now, "plc-0", &enrol.Fault{Class: enrol.ClassCAUnavail, Err: errors.New("no")}, x.policy)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": x.check, "pass": x.pass, "wait": x.wait, "wait 2": x.wait, "wait 3": x.wait, "jump": x.jump, "ask": x.ask, "ask 2": x.ask, "ask 3": x.ask,
			"release": x.release, "release 2": x.release, "succeed": x.succeed, "answer": x.answer,
			"fail": x.fail, "fail 2": x.fail, "fail 3": x.fail, "fail 4": x.fail, "fail 5": x.fail,
		})
	})
}
