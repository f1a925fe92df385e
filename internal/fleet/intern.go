package fleet

// maxInterned bounds how many different sets of labels are remembered.
const maxInterned = 4096

// Interned returns for equal labels the same map, so that many devices with the
// same labels take the memory of one. What it returns is not to be changed. The
// zero value is ready.
type Interned struct{ known map[string]map[string]string }

// Labels returns labels, or an equal map that was seen before.
func (i *Interned) Labels(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return labels
	}
	text := FormatLabels(labels)
	if known, ok := i.known[text]; ok {
		return known
	}
	if i.known == nil {
		i.known = map[string]map[string]string{}
	}
	if len(i.known) < maxInterned {
		i.known[text] = labels
	}
	return labels
}
