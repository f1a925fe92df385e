package pkgen_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func TestReadCSV(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []pkgen.Line
	}{
		{"name only", "name\nplc-1\nplc-2\n", []pkgen.Line{{Number: 2, Name: "plc-1"}, {Number: 3, Name: "plc-2"}}},
		{
			"every column, in another order, with a byte order mark, as Windows writes it",
			"\xef\xbb\xbflabels,name,recipient,names,address\r\n\"line=3;site=b\", plc-1 ,age1x,\"cn:press;dns:press.example\",10.0.0.1\r\n",
			[]pkgen.Line{{
				Number: 2, Name: "plc-1", Address: "10.0.0.1:5684", Labels: map[string]string{"line": "3", "site": "b"}, Recipient: "age1x",
				Names: []fleet.Name{{Kind: fleet.KindCN, Value: "press"}, {Kind: fleet.KindDNS, Value: "press.example"}},
			}},
		},
		{
			"addresses",
			"name,address\na,host.example\nb,[::1]\nc,::1\nd,[::1]:1\ne,\n",
			[]pkgen.Line{
				{Number: 2, Name: "a", Address: "host.example:5684"},
				{Number: 3, Name: "b", Address: "[::1]:5684"},
				{Number: 4, Name: "c", Address: "[::1]:5684"},
				{Number: 5, Name: "d", Address: "[::1]:1"},
				{Number: 6, Name: "e"},
			},
		},
	} {
		got, err := pkgen.ReadCSV(strings.NewReader(tc.text))
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		}
	}
}

func TestReadCSVRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, says string }{
		{"empty", "", "there is no header"},
		{"header only", "name\n", "no line below the header"},
		{"no name", "address\n10.0.0.1:1\n", `no column "name"`},
		{"unknown column", "name,password\n", `line 1: column "password"`},
		{"another case", "Name\n", `line 1: column "Name"`},
		{"a column twice", "name,name\n", "twice"},
		{"too few fields", "name,address\na,h:1\nb\n", "line 3: wrong number of fields"},
		{"too many fields", "name\na\nb,c\n", "line 3: wrong number of fields"},
		{"a name twice", "name\na\nb\na\n", "line 4: a is on line 2 already"},
		{"a wrong name", "name\na\nB\n", "line 3: not a canonical identity"},
		{"no name in a line", "name,address\n,h:1\n", "line 2: not a canonical identity"},
		{"a wrong address", "name,address\na,h:0\n", "line 2: malformed: the address"},
		{"a wrong label", "name,labels\na,x\n", "line 2: not a label"},
		{"a wrong certificate name", "name,names\na,email:x\n", "line 2: not a certificate name"},
		{"an open quote", "name\n\"a\n", "line 2"},
		{"a long field", "name,recipient\na," + strings.Repeat("x", 9000) + "\n", "line 2: recipient has more than"},
		{"semicolons", "name;address\na;h:1\n", `line 1: column "name;address"`},
		{"after a quoted line break", "name,labels\na,\"x=1;\ny=2\"\nB,\n", "line 4: not a canonical identity"},
	} {
		got, err := pkgen.ReadCSV(strings.NewReader(tc.text))
		if got != nil || err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, error %v, want %q", tc.name, got, err, tc.says)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add("name,address,labels,recipient,names\nplc-1,10.0.0.1:5684,line=3;site=b,age1x,cn:press\n")
	f.Add("\xef\xbb\xbfname\r\na\r\n")
	f.Add("name,labels\na,\"x=1;\ny=2\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := pkgen.ReadCSV(strings.NewReader(text))
		if (err == nil) != (len(lines) > 0) {
			t.Fatalf("%d lines, error %v", len(lines), err)
		}
		last := 1
		for _, l := range lines {
			if l.Number <= last {
				t.Fatalf("line %d follows line %d", l.Number, last)
			}
			last = l.Number
		}
	})
}

// A recipient is found again where it was read.
func TestRecipientIsReadAgain(t *testing.T) {
	list := "\xef\xbb\xbfrecipient,name,labels\r\n\r\nage1a,one,\r\n\"age1b\",\"two\",\r\n\"age1c\",three,\"a=b;c=d\"\r\n"
	n := 0
	err := pkgen.EachLine(strings.NewReader(list), func(l pkgen.Line) error {
		n++
		got, err := l.RecipientIn(strings.NewReader(list))()
		if err != nil || got != l.Recipient || got == "" {
			t.Errorf("%s: %q, want %q: %v", l.Name, got, l.Recipient, err)
		}
		if _, err := l.RecipientIn(strings.NewReader("cut"))(); err == nil {
			t.Errorf("%s: found in a list that was cut", l.Name)
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%d lines, %v", n, err)
	}
}
