package coaplink

import (
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/udp/client"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

// keptReplies is how many responses a device keeps for the duplicates of
// confirmable requests (RFC 7252 section 4.5). The library keeps all for 247 s.
// A count suffices: DTLS drops repeated records and those that are more than 64
// behind, and a client has one request outstanding.
const keptReplies = 64

// replies implements client.MessageCache.
type replies struct {
	mu    sync.Mutex
	order []string
	byMID map[string][]byte
}

var _ client.MessageCache = (*replies)(nil)

func newReplies() *replies { return &replies{byMID: map[string][]byte{}} }

// Load implements client.MessageCache.
func (r *replies) Load(key string, m *pool.Message) (bool, error) {
	r.mu.Lock()
	raw, ok := r.byMID[key]
	r.mu.Unlock()
	if !ok {
		return false, nil
	}
	if _, err := m.UnmarshalWithDecoder(coder.DefaultCoder, raw); err != nil {
		return false, err
	}
	return true, nil
}

// Store implements client.MessageCache.
func (r *replies) Store(key string, m *pool.Message) error {
	raw, err := m.MarshalWithEncoder(coder.DefaultCoder)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.byMID[key]; !ok {
		r.order = append(r.order, key)
	}
	r.byMID[key] = append([]byte(nil), raw...)
	if len(r.order) > keptReplies {
		clear(r.byMID[r.order[0]])
		delete(r.byMID, r.order[0])
		r.order = r.order[1:]
	}
	return nil
}

// CheckExpirations implements client.MessageCache.
func (r *replies) CheckExpirations(time.Time) {}
