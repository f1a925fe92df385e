package consumer

import (
	"fmt"
	"os/user"
	"strconv"
)

// ids returns owner and group of a consumer's files; -1 leaves the agent's.
func (c Consumer) ids() (uid, gid int, err error) {
	if uid, err = id(c.Owner, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	}); err != nil {
		return 0, 0, fmt.Errorf("owner: %w", err)
	}
	if gid, err = id(c.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	}); err != nil {
		return 0, 0, fmt.Errorf("group: %w", err)
	}
	return uid, gid, nil
}

func id(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	text, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}
