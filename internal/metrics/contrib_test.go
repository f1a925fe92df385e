package metrics_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/edgeclm/edgeclm/internal/testpeer"
)

const (
	rulesFile     = "../../contrib/prometheus/edgeclm.rules.yml"
	rulesTestFile = "../../contrib/prometheus/edgeclm.rules_test.yml"
	dashboardFile = "../../contrib/grafana/edgeclm.json"
	document      = "../../docs/metrics.md"
)

// rule is one of Prometheus' rules.
type rule struct {
	Alert       string            `yaml:"alert,omitempty"`
	Record      string            `yaml:"record,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

type group struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []group `yaml:"groups"`
	}
	readYAML(t, rulesFile, &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules")
	}
	return all
}

func readYAML(t *testing.T, path string, out any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readFile(t, path)), out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", rulesFile}, {"test", "rules", rulesTestFile}} {
		if out, ok := testpeer.Promtool(t, nil, args...); !ok {
			t.Errorf("promtool %s: %s", strings.Join(args, " "), out)
		}
	}
}

// TestEveryAlertIsTried: the tests of the rules have each alert, in each of its
// severities, fire and keep quiet.
func TestEveryAlertIsTried(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Alerts []struct {
				Name     string `yaml:"alertname"`
				Expected []struct {
					Labels map[string]string `yaml:"exp_labels"`
				} `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		} `yaml:"tests"`
	}
	readYAML(t, rulesTestFile, &file)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, a := range test.Alerts {
			for _, severity := range []string{"warning", "critical"} {
				there := false
				for _, e := range a.Expected {
					there = there || e.Labels["severity"] == severity
				}
				key := a.Name + " " + severity
				fires[key], quiet[key] = fires[key] || there, quiet[key] || !there
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		key := r.Alert + " " + r.Labels["severity"]
		if !fires[key] || !quiet[key] {
			t.Errorf("%s: fires in a test: %v, keeps quiet: %v", key, fires[key], quiet[key])
		}
	}
}

// TestAlertsSayWhatToDo: each has words, and a section of the document that
// they lead to, which has no others.
func TestAlertsSayWhatToDo(t *testing.T) {
	t.Parallel()
	var alerts []string
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts = append(alerts, r.Alert)
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s has no words", r.Alert)
		}
		if want := "/docs/metrics.md#" + strings.ToLower(r.Alert); !strings.HasSuffix(r.Annotations["runbook_url"], want) {
			t.Errorf("%s leads to %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
	slices.Sort(alerts)
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (Edgeclm\S+)$`).FindAllStringSubmatch(readFile(t, document), -1) {
		sections = append(sections, m[1])
	}
	slices.Sort(sections)
	if alerts = slices.Compact(alerts); !slices.Equal(alerts, sections) {
		t.Errorf("sections %q, alerts %q", sections, alerts)
	}
}

// exported returns the metrics of a full fleet with their types.
func exported(t *testing.T) map[string]string {
	t.Helper()
	types := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(exposition(t, full()), -1) {
		types[m[1]] = m[2]
	}
	return types
}

// TestDocument: docs/metrics.md has a line for each metric, and no other.
func TestDocument(t *testing.T) {
	t.Parallel()
	got := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(edgeclm_[a-z_]+)(?:\\{[a-z, ]+\\})?` \\| (\\w+) \\|").FindAllStringSubmatch(readFile(t, document), -1) {
		got[m[1]] = m[2]
	}
	if want := exported(t); !maps.Equal(got, want) {
		for name, kind := range want {
			if got[name] != kind {
				t.Errorf("%s, a %s, is described as %q", name, kind, got[name])
			}
		}
		for name := range got {
			if want[name] == "" {
				t.Errorf("%s is described and not exported", name)
			}
		}
	}
}

// TestMetricsExist: whatever rules and dashboard ask for is exported, or
// recorded by a rule.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	series := map[string]bool{}
	for name, kind := range exported(t) {
		if kind != "histogram" {
			series[name] = true
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			series[name+suffix] = true
		}
	}
	exprs := readDashboard(t).exprs()
	for _, r := range rules(t) {
		exprs = append(exprs, r.Expr)
		if r.Record != "" {
			series[r.Record] = true
		}
	}
	n := 0
	for _, e := range exprs {
		for _, name := range regexp.MustCompile(`\bedgeclm[_:][a-z0-9_:]+`).FindAllString(e, -1) {
			n++
			if !series[name] {
				t.Errorf("nobody exports %s of %s", name, e)
			}
		}
	}
	if n < len(exprs) {
		t.Errorf("%d metrics in %d expressions", n, len(exprs))
	}
}

// dashboard is what matters here of Grafana's.
type dashboard struct {
	UID         string
	Annotations struct {
		List []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		RefID      string
		Expr       string
		Datasource struct{ UID string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	// The query of one variable is an object.
	text := regexp.MustCompile(`"query": \{[^}]*\}`).ReplaceAllString(readFile(t, dashboardFile), `"query": ""`)
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// exprs returns every expression, as Prometheus gets it.
func (d dashboard) exprs() (list []string) {
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			list = append(list, a.Expr)
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list = append(list, target.Expr)
		}
	}
	for i := range list {
		list[i] = strings.NewReplacer("$__rate_interval", "5m", "$instance", "edge-1:9845").Replace(list[i])
	}
	return list
}

// TestDashboardExpressions: Prometheus' own parser reads them.
func TestDashboardExpressions(t *testing.T) {
	t.Parallel()
	g := group{Name: "dashboard"}
	for i, e := range readDashboard(t).exprs() {
		if strings.Contains(e, "$") {
			t.Errorf("a variable that is not known: %s", e)
		}
		g.Rules = append(g.Rules, rule{Record: fmt.Sprintf("dashboard:%d", i), Expr: e})
	}
	if len(g.Rules) < 20 {
		t.Fatalf("%d expressions cannot be all", len(g.Rules))
	}
	data, err := yaml.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := testpeer.Promtool(t, nil, "check", "rules", path); !ok {
		t.Errorf("promtool: %s\n%s", out, data)
	}
}

// TestDashboardPanels: each has a place, an identity and words of its own, and
// asks the data source that the operator has chosen.
func TestDashboardPanels(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.UID != "edgeclm" || len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" || d.Templating.List[0].Query != "prometheus" {
		t.Errorf("no variable for the data source: %+v", d.Templating)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" {
			t.Errorf("%q has number %d, which another has", p.Title, p.ID)
		}
		ids[p.ID] = true
		if g := p.GridPos; g.X < 0 || g.Y < 0 || g.W <= 0 || g.H <= 0 || g.X+g.W > 24 {
			t.Errorf("%s lies outside: %+v", p.Title, g)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" {
					t.Fatalf("%s lies on %s", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: no words, data source or expression", p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.Expr == "" || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
}
