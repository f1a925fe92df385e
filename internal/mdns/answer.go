package mdns

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// reply is an answer to a query.
type reply struct {
	message []byte
	unicast bool // to the asker alone
}

// answer answers a query about a device with these addresses; nil if there is
// nothing to say. A legacy query is one that came from another port than that of
// Multicast DNS (RFC 6762 section 6.7). Errors say that it is no query.
func (a Announcement) answer(query []byte, legacy bool, addresses []netip.Addr) (*reply, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil || header.Response || header.OpCode != 0 {
		return nil, errMessage
	}
	var asked dnsmessage.Question
	wanted, unicast := false, true
	for n := 0; ; n++ {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil || n == maxQuestions {
			return nil, errMessage
		}
		if !a.concerns(q) {
			continue
		}
		if !wanted {
			asked = q
		}
		wanted = true
		unicast = unicast && q.Class&cacheFlush != 0
	}
	if !wanted || !legacy && a.known(&p, asked) {
		return nil, nil
	}
	message, err := a.message(header.ID, asked, legacy, addresses, ttlShared, ttlHost)
	if err != nil {
		return nil, err
	}
	return &reply{message, unicast || legacy}, nil
}

// concerns reports whether a question is about the device.
func (a Announcement) concerns(q dnsmessage.Question) bool {
	if class := q.Class &^ cacheFlush; class != dnsmessage.ClassINET && class != dnsmessage.ClassANY {
		return false
	}
	is := func(name string, types ...dnsmessage.Type) bool {
		if !strings.EqualFold(q.Name.String(), name) {
			return false
		}
		for _, t := range append(types, dnsmessage.TypeALL) {
			if q.Type == t {
				return true
			}
		}
		return false
	}
	return is(Service, dnsmessage.TypePTR) || is(serviceList, dnsmessage.TypePTR) ||
		is(a.instance(), dnsmessage.TypeSRV, dnsmessage.TypeTXT) || is(a.host(), dnsmessage.TypeA, dnsmessage.TypeAAAA)
}

// known reports whether the asker has the answer already (RFC 6762 section
// 7.1).
func (a Announcement) known(p *dnsmessage.Parser, q dnsmessage.Question) bool {
	if q.Type != dnsmessage.TypePTR {
		return false
	}
	for range maxRecords {
		h, err := p.AnswerHeader()
		if err != nil {
			return false
		}
		if h.Type != dnsmessage.TypePTR || h.TTL < ttlShared/2 || !strings.EqualFold(h.Name.String(), Service) {
			if p.SkipAnswer() != nil {
				return false
			}
			continue
		}
		r, err := p.PTRResource()
		if err != nil {
			return false
		}
		if strings.EqualFold(r.PTR.String(), a.instance()) {
			return true
		}
	}
	return false
}

// message builds a response with all that there is to say. Lifetimes of 0 say
// goodbye (RFC 6762 section 10.1).
func (a Announcement) message(id uint16, asked dnsmessage.Question, legacy bool, addresses []netip.Addr, shared, host uint32) ([]byte, error) {
	header := dnsmessage.Header{Response: true, Authoritative: true}
	unique := dnsmessage.ClassINET | cacheFlush
	if legacy {
		header.ID, unique = id, dnsmessage.ClassINET
		shared, host = min(shared, ttlLegacy), min(host, ttlLegacy)
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), header)
	b.EnableCompression()
	if legacy {
		if err := b.StartQuestions(); err != nil {
			return nil, err
		}
		asked.Class &^= cacheFlush
		if err := b.Question(asked); err != nil {
			return nil, err
		}
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	if err := a.records(&b, asked, unique, addresses, shared, host); err != nil {
		return nil, err
	}
	return b.Finish()
}

func (a Announcement) records(b *dnsmessage.Builder, asked dnsmessage.Question, unique dnsmessage.Class, addresses []netip.Addr, shared, host uint32) error {
	service, err := dnsmessage.NewName(Service)
	if err != nil {
		return err
	}
	instance, err := dnsmessage.NewName(a.instance())
	if err != nil {
		return err
	}
	target, err := dnsmessage.NewName(a.host())
	if err != nil {
		return err
	}
	header := func(name dnsmessage.Name, class dnsmessage.Class, ttl uint32) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: class, TTL: ttl}
	}
	if strings.EqualFold(asked.Name.String(), serviceList) {
		return b.PTRResource(header(asked.Name, dnsmessage.ClassINET, shared), dnsmessage.PTRResource{PTR: service})
	}
	if err := b.PTRResource(header(service, dnsmessage.ClassINET, shared), dnsmessage.PTRResource{PTR: instance}); err != nil {
		return err
	}
	if err := b.SRVResource(header(instance, unique, host), dnsmessage.SRVResource{Port: a.Port, Target: target}); err != nil {
		return err
	}
	// An empty string stands for no attributes (RFC 6763 section 6.1).
	if err := b.TXTResource(header(instance, unique, shared), dnsmessage.TXTResource{TXT: []string{""}}); err != nil {
		return err
	}
	for _, ip := range addresses {
		var err error
		if ip.Is4() {
			err = b.AResource(header(target, unique, host), dnsmessage.AResource{A: ip.As4()})
		} else {
			err = b.AAAAResource(header(target, unique, host), dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
