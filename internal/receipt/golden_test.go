package receipt_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// What the first release wrote stays readable, and keeps its name; the example of
// docs/protocol.md is one of the files.
func TestReceiptsOfTheFirstRelease(t *testing.T) {
	data, err := os.ReadFile("testdata/params.json")
	if err != nil {
		t.Fatal(err)
	}
	params := new(ibc.Params)
	if err := json.Unmarshal(data, params); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"provisioned":  "provisioned-dev-plc-0001.e1.g1.7b02a25e602fd43b.receipt.json",
		"commissioned": "commissioned-clm-clm-1.e1.g1.e22514f990cb6a96.receipt.json",
	} {
		s, err := receipt.Read(filepath.Join("testdata", file+receipt.Suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(params); err != nil {
			t.Error(err)
		}
		if name, err := s.FileName(); err != nil || name != want {
			t.Errorf("%s is named %s, %v", file, name, err)
		}
	}
	docs, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("testdata/provisioned" + receipt.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(docs), strings.TrimSpace(string(example))) {
		t.Error("docs/protocol.md shows another receipt")
	}
}
