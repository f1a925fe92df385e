package metrics

import (
	"os"
	"strings"
	"testing"
)

// TestFullIsFull: the golden file, which stands for what is exported in the
// tests of documents, rules and dashboard, has every metric.
func TestFullIsFull(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/full.prom")
	if err != nil {
		t.Fatal(err)
	}
	all := families()
	for _, f := range all {
		if !strings.Contains(string(data), "# TYPE "+prefix+f.name+" ") {
			t.Errorf("%s is not in it", f.name)
		}
	}
	if n := strings.Count(string(data), "# TYPE "); n != len(all) {
		t.Errorf("it has %d metrics, there are %d", n, len(all))
	}
}
