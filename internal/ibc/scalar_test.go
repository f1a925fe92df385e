package ibc_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Any threshold of the shares make the scalar, and fewer make another one.
func TestShareScalar(t *testing.T) {
	secret, values, err := ibc.ShareScalar(rand.Reader, 3, 5)
	if err != nil || len(values) != 5 || len(secret) != ibc.ScalarSize {
		t.Fatalf("%d values, %v", len(values), err)
	}
	for _, indices := range [][]int{{1, 2, 3}, {5, 1, 3}, {4, 3, 2, 1}, {1, 2, 3, 4, 5}, {1, 2}, {4}} {
		var some [][]byte
		for _, i := range indices {
			some = append(some, values[i-1])
		}
		got, err := ibc.JoinScalar(indices, some)
		if err != nil || bytes.Equal(got, secret) != (len(indices) >= 3) {
			t.Errorf("%v: %v", indices, err)
		}
	}
	for what, indices := range map[string][]int{"twice": {1, 1, 2}, "none": {0, 1, 2}, "beyond": {1, 2, ibc.MaxShares + 1}, "short": {1, 2}, "empty": {}} {
		if _, err := ibc.JoinScalar(indices, values[:3]); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ibc.JoinScalar([]int{1, 2, 3}, [][]byte{values[0], values[1], bytes.Repeat([]byte{0xff}, 32)}); !errors.Is(err, ibc.ErrEncoding) {
		t.Errorf("above the order: %v", err)
	}
	for _, n := range [][2]int{{0, 3}, {4, 3}, {2, ibc.MaxShares + 1}} {
		if _, _, err := ibc.ShareScalar(rand.Reader, n[0], n[1]); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%v: %v", n, err)
		}
	}
}
