package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

func (s *show) makePKG(ctx context.Context) error {
	s.title("The Private Key Generator (PKG)",
		"An air-gapped PC draws the master secret and seals it. Here it is this machine, so it is told --lab.")
	_, err := s.run(ctx, "pkg-offline init --dir pkg --generate-passphrase pass --lab")
	return err
}

func (s *show) makeRecipients(ctx context.Context) error {
	s.title("Who the keys are for",
		"The CLM and each device make an age key (post-quantum hybrid); its public half goes to the PKG.")
	if _, err := s.run(ctx, "clmctl --data-dir clm recipient > clm.age"); err != nil {
		return err
	}
	csv := "name,labels,recipient\n"
	for _, d := range s.devices {
		if _, err := s.run(ctx, "devagent --data-dir "+d.dir+" recipient > "+d.age); err != nil {
			return err
		}
		csv += fmt.Sprintf("%s,key=%s,%s\n", d.name, d.key, d.age)
	}
	return s.write("devices.csv", csv)
}

func (s *show) issueBundles(ctx context.Context) error {
	s.title("Key bundles, onto a USB stick",
		"One sealed bundle per identity, and a signed manifest beside them. devices.csv lists the four devices.")
	for _, line := range []string{
		"pkg-offline issue --dir pkg --passphrase-file pass --lab --out usb --role clm --recipient-file clm.age clm-1",
		"pkg-offline issue --dir pkg --passphrase-file pass --lab --out usb --clm clm-1 --from devices.csv",
	} {
		if _, err := s.run(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// listening is how an agent says where it can be reached.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[1-9][0-9]*)`)

func (s *show) startDevices(ctx context.Context) error {
	s.title("Four devices",
		"Each takes its identity from the stick and serves CoAP over DTLS. No device has a certificate yet.")
	addresses := "name,address\n"
	for _, d := range s.devices {
		if _, err := s.runQuietly(ctx, fmt.Sprintf("devagent --data-dir %s provision usb/dev-%s.e1.g1.bundle.age", d.dir, d.name)); err != nil {
			return err
		}
		address, err := s.start(ctx, "devagent --data-dir "+d.dir+" serve --listen 127.0.0.1:0", d.dir+".log", listening)
		if err != nil {
			return err
		}
		addresses += d.name + "," + address + "\n"
	}
	return s.write("addresses.csv", addresses)
}

// scepURL is the line that a lab CA prints once it listens.
var scepURL = regexp.MustCompile(`(?m)^(http://\S+)$`)

func (s *show) startCA(ctx context.Context) error {
	challenge := rand.Text()
	if err := s.write("challenge", challenge); err != nil {
		return err
	}
	if s.CA == StepCA {
		return s.startStepCA(ctx, challenge)
	}
	s.title("The corporate CA",
		fmt.Sprintf("A lab CA (root, issuing CA, RA) with SCEP. Its certificates live for %.0f minutes only.", lifetime.Minutes()))
	var err error
	s.url, err = s.start(ctx, fmt.Sprintf("clmctl lab-ca serve --dir ca --listen 127.0.0.1:0 --challenge-file challenge --lifetime %.0fm", lifetime.Minutes()), "ca.log", scepURL)
	s.root = "ca/root.pem"
	if err != nil {
		return err
	}
	text, err := os.ReadFile(s.path(s.root))
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s is not in PEM", s.root)
	}
	s.setFingerprint(block.Bytes)
	return nil
}

func (s *show) setFingerprint(der []byte) {
	sum := sha256.Sum256(der)
	s.fingerprint = "sha256:" + hex.EncodeToString(sum[:])
}

func (s *show) startStepCA(ctx context.Context, challenge string) error {
	s.title("The corporate CA",
		fmt.Sprintf("A real step-ca with a SCEP provisioner and a separate RA. Its certificates live for %.0f minutes only.", lifetime.Minutes()))
	binary, err := labpeer.Find(labpeer.StepCA)
	if err != nil {
		return err
	}
	s.say("   $ step-ca ca/ca.json &\n")
	ca, err := labpeer.StartStepCA(ctx, s.path("ca"), binary, labpeer.StepCAOptions{
		Challenge: challenge, SeparateRA: true, IncludeRoot: true, Lifetime: lifetime,
	})
	if err != nil {
		return err
	}
	s.stops = append(s.stops, ca.Stop)
	s.url, s.root = ca.URL, "ca/root.pem"
	s.setFingerprint(ca.Root.Raw)
	return nil
}

// config chooses a certificate profile by label, and renews early enough for
// nobody to wait.
func (s *show) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "renewal: {window_from: %v, window_to: %v}\nprofiles:\n", windowFrom, windowTo)
	for _, d := range s.devices {
		fmt.Fprintf(&b, "  - {name: %s, match: {key: %s}, key: %s}\n", d.key, d.key, d.key)
	}
	return b.String()
}

func (s *show) commission(ctx context.Context) error {
	s.title("The Certificate Lifecycle Management (CLM) side",
		"It takes its identity from the stick, pins the CA by its fingerprint, and the devices come from the manifest.")
	if err := s.write("clm/config.yaml", s.config()); err != nil {
		return err
	}
	s.say("   clm/config.yaml:\n%s", indent([]byte(s.config())))
	for _, line := range []string{
		"clmctl --data-dir clm init --bundle usb/clm-clm-1.e1.g1.bundle.age",
		"clmctl --data-dir clm ca add " + s.url + " --challenge-file challenge --fingerprint " + s.fingerprint,
		"clmctl --data-dir clm commission usb/manifest.json --addresses addresses.csv",
	} {
		if _, err := s.run(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

func (s *show) enrol(ctx context.Context) error {
	s.title("Enrol",
		"For each device: CSR over DTLS, SCEP on its behalf, check here, check on the device, activate, confirm.")
	if _, err := s.run(ctx, "clmctl --data-dir clm enrol --all"); err != nil {
		return err
	}
	_, err := s.run(ctx, "clmctl --data-dir clm device list")
	return err
}

func (s *show) renew(ctx context.Context) error {
	s.title("Renew",
		fmt.Sprintf("Here a certificate is due after %.0f to %.0f %% of its life (by default 33 to 48 %%). cron would run this.", 100*windowFrom, 100*windowTo))
	if err := s.waitUntilDue(ctx); err != nil {
		return err
	}
	if _, err := s.run(ctx, "clmctl --data-dir clm renew"); err != nil {
		return err
	}
	_, err := s.run(ctx, "clmctl --data-dir clm device list")
	return err
}

// waitUntilDue waits until every certificate is due.
func (s *show) waitUntilDue(ctx context.Context) error {
	out, err := s.capture(ctx, "clmctl --data-dir clm device list -o json")
	if err != nil {
		return err
	}
	var rows []struct {
		RenewAt time.Time `json:"renew_at"`
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		return fmt.Errorf("read the inventory: %w", err)
	}
	var last time.Time
	for _, r := range rows {
		if r.RenewAt.After(last) {
			last = r.RenewAt
		}
	}
	// The inventory shows whole seconds.
	wait := last.Add(time.Second).Sub(s.Now())
	s.say("   Waiting %v, until every certificate is due ...\n", max(0, wait).Round(time.Second))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
