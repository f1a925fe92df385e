package metrics

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrTextfileName says that node_exporter would not read a file of this name.
var ErrTextfileName = errors.New("the file for node_exporter must have a name that ends in .prom")

// WriteTextfile writes a snapshot to a file for node_exporter's textfile
// collector, readable by all: to a temporary file beside it that takes its
// place, so that nobody reads half of it. It is not synced to disk: after a
// power failure the next pass writes it anew.
func WriteTextfile(path string, s Snapshot) error {
	if filepath.Ext(path) != ".prom" {
		return fmt.Errorf("write metrics to %s: %w", path, ErrTextfileName)
	}
	r, err := registry(s)
	if err == nil {
		err = prometheus.WriteToTextfile(path, r)
	}
	if err != nil {
		return fmt.Errorf("write metrics to %s: %w", path, err)
	}
	return nil
}
