package clmctl

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func TestParseAddresses(t *testing.T) {
	t.Parallel()
	got, err := parseAddresses([]byte("\xef\xbb\xbfname,address\r\nplc-1,192.0.2.1:5684\r\n plc-2 ,\n"))
	if err != nil || fmt.Sprint(got) != "[{plc-1 192.0.2.1:5684} {plc-2 }]" {
		t.Fatalf("%v, %v", got, err)
	}
	if got, err = parseAddresses([]byte("address,name\n[2001:db8::1]:5684,plc-1\n")); err != nil || got[0].Address != "[2001:db8::1]:5684" {
		t.Fatalf("%v, %v", got, err)
	}
	for in, want := range map[string]string{
		"":                                      "empty",
		"name\nplc-1\n":                         "line 1: the header",
		"name,address,labels\n":                 "line 1: the header",
		"name,name\n":                           "line 1: the header",
		"name,address\nplc-1\n":                 "line 2: wrong number of fields",
		"name,address\nplc-1,a:1,x\n":           "line 2: wrong number of fields",
		"name,address\nplc-1,\"a:1\n":           "line 2: extraneous or missing \"",
		"name,address\nPLC-1,a:1\n":             "line 2: not a canonical identity",
		"name,address\nplc-1,a\n":               "line 2: malformed: the address",
		"name,address\nplc-1,a:99999\n":         "line 2: malformed: the address",
		"name,address\nplc-1,a:1\n\nplc-1,b:1":  "line 4: plc-1 is on line 2 already",
		"name,address\nplc-1,a:1\nplc-2,\x00:1": "line 3: malformed: the address",
	} {
		if _, err := parseAddresses([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func FuzzParseAddresses(f *testing.F) {
	f.Add([]byte("name,address\nplc-1,192.0.2.1:5684\nplc-2,\n"))
	f.Add([]byte("\xef\xbb\xbfaddress,name\r\n\"[::1]:1\",a\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := parseAddresses(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, r := range rows {
			if ibc.ValidateName(r.Device) != nil || r.Address != "" && bundle.ValidateAddress(r.Address) != nil || seen[r.Device] {
				t.Errorf("accepted %+v", r)
			}
			seen[r.Device] = true
		}
	})
}

func TestParseAuthority(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"version":1,"authorities":[{"name":"a","challenge_file":"challenge-00"}]}`: "",
		`{"version":1,"later":true,"authorities":[{"name":"a"},{"name":"b"}]}`:       "",
		`{"version":2,"authorities":[{"name":"a"}]}`:                                 "version 2",
		`{"version":1}`: "no CA",
		`{"version":1,"authorities":[{"name":"a","challenge_file":"../x/challenge-00"}]}`:    "not the name of a challenge file",
		`{"version":1,"authorities":[{"name":"a","challenge_file":"identity.json"}]}`:        "not the name of a challenge file",
		`{"version":1,"authorities":[{"name":"a","challenge_file":"challenge-/../secret"}]}`: "not the name of a challenge file",
		`{`: "unexpected end",
		`{"version":1,"authorities":[{"name":"a"},{"name":"b"}],"rollover":{"stage":"trust-both","statements":["YQ=="]}}`:                     "",
		`{"version":1,"authorities":[{"name":"a"}],"rollover":{"stage":"trust-both","statements":["YQ=="]}}`:                                  "not between two CAs",
		`{"version":1,"authorities":[{"name":"a"},{"name":"a"}],"rollover":{"stage":"trust-both","statements":["YQ=="]}}`:                     "not between two CAs",
		`{"version":1,"authorities":[{"name":"a"},{"name":"b"}],"rollover":{"stage":"later","statements":["YQ=="]}}`:                          "is not known",
		`{"version":1,"authorities":[{"name":"a"},{"name":"b"}],"rollover":{"stage":"drop-old"}}`:                                             "cross-signed root",
		`{"version":1,"authorities":[{"name":"a"},{"name":"b"},{"name":"c","challenge_file":"../x"}],"rollover":{"stage":"drop-old"}}`:        "not the name of a challenge file",
		`{"version":1,"authorities":[{"name":"a"},{"name":"b"}],"rollover":{"stage":"drop-old","statements":["YQ=="],"cross_signed":"YQ=="}}`: "cross-signed root",
	} {
		f, err := parseAuthorities([]byte(in))
		switch {
		case want == "" && (err != nil || f.Authorities[0].Name != "a"):
			t.Errorf("%s: %+v, %v", in, f, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	f.Add([]byte(`{"version":1,"authorities":[{"name":"a","url":"http://x","challenge_file":"challenge-00","added_at":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		f, err := parseAuthorities(data)
		if err != nil {
			return
		}
		for _, a := range f.Authorities {
			if strings.Contains(a.ChallengeFile, "/") {
				t.Errorf("accepted %q", a.ChallengeFile)
			}
		}
	})
}
