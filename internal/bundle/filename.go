package bundle

import (
	"fmt"
	"strings"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

const fileSuffix = ".bundle.age"

// FileName returns the name of an identity's bundle,
// "<role>-<name>.e<epoch>.g<generation>.bundle.age"; ':' is written '=', since
// FAT forbids it. Different identities have different file names.
func FileName(id ibc.Identity) string { return Stem(id) + fileSuffix }

// Stem is FileName without its suffix, for other files about an identity.
func Stem(id ibc.Identity) string {
	return fmt.Sprintf("%s-%s.e%d.g%d", id.Role, strings.ReplaceAll(id.Name, ":", "="), id.Epoch, id.Generation)
}

// ParseFileName is the inverse of FileName. Errors wrap ErrFormat.
func ParseFileName(name string) (ibc.Identity, error) {
	refused := fmt.Errorf("%w: %.200q is not the file name of a bundle", ErrFormat, name)
	rest, ok := strings.CutSuffix(name, fileSuffix)
	if !ok {
		return ibc.Identity{}, refused
	}
	role, rest, ok := strings.Cut(rest, "-")
	if !ok || strings.Contains(rest, ":") {
		return ibc.Identity{}, refused
	}
	at := strings.LastIndex(rest, ".e")
	if g := strings.LastIndex(rest, ".g"); g < 0 || at < 0 || at > g {
		return ibc.Identity{}, refused
	}
	id, err := ibc.ParseIdentity("edgeclm/v1/" + role + "/" + strings.ReplaceAll(rest[:at], "=", ":") + "/" + rest[at+1:])
	if err != nil {
		return ibc.Identity{}, fmt.Errorf("%w: %w", refused, err)
	}
	return id, nil
}
