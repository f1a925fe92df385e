package renewal_test

import (
	"crypto/x509"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// states counts the devices with a valid certificate, and those in quarantine.
func (m *month) states() (operational, quarantined int) {
	for _, d := range m.plant.Store.Devices() {
		if d.State(time.Now()) == fleet.Operational {
			operational++
		}
		if d.Quarantined {
			quarantined++
		}
	}
	return operational, quarantined
}

// TestCAThatFitsNobody: for two days the CA issues certificates that fit nobody,
// or rejects every request, since somebody has changed its configuration. That
// is no device's fault: none is quarantined, and all renew once it is mended.
func TestCAThatFitsNobody(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(*enroltest.CA){
		"unfitting": func(ca *enroltest.CA) {
			ca.Alter = func(c *x509.Certificate, _ *enrol.Answer) { c.DNSNames = []string{"somebody-else"} }
		},
		"rejections": func(ca *enroltest.CA) {
			ca.Refuse = func(string, enrol.Submission) error {
				return &enrol.CARejection{FailInfo: "badRequest", Text: "wrong challenge"}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMonth(t, 20)
				m.plant.Store.OnCommit = nil
				m.keep(1)
				m.plant.CA.Set(wrong)
				m.keep(2)
				if _, quarantined := m.states(); quarantined > 0 {
					t.Errorf("%d devices are quarantined", quarantined)
				}
				m.plant.CA.Set(func(ca *enroltest.CA) { ca.Alter, ca.Refuse = nil, nil })
				m.keep(1)
				if operational, _ := m.states(); operational != 20 {
					t.Errorf("%d devices are operational a day after it was mended", operational)
				}
			})
		})
	}
}

// TestSomeThatTheCADoesNotServe: three of twenty devices get a certificate that
// does not fit, or a rejection, each time; the others have theirs nonetheless.
func TestSomeThatTheCADoesNotServe(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]func(*enroltest.CA, []string){
		"unfitting": func(ca *enroltest.CA, bad []string) {
			ca.Alter = func(c *x509.Certificate, _ *enrol.Answer) {
				if slices.Contains(bad, c.Subject.CommonName) {
					c.DNSNames = []string{"somebody-else"}
				}
			}
		},
		"rejections": func(ca *enroltest.CA, bad []string) {
			ca.Refuse = func(device string, _ enrol.Submission) error {
				if slices.Contains(bad, device) {
					return &enrol.CARejection{FailInfo: "badRequest", Text: "this name is not allowed"}
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMonth(t, 20)
				m.plant.Store.OnCommit = nil
				m.plant.CA.Set(func(ca *enroltest.CA) { wrong(ca, m.plant.Names[:3]) })
				for d := range 4 {
					m.keep(1)
					if operational, _ := m.states(); operational != 17 {
						t.Errorf("day %d: %d devices are operational", d+1, operational)
					}
				}
			})
		})
	}
}
