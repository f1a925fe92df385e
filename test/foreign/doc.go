// Package foreign tests that docs/protocol.md is enough: a device answers a
// peer that was made of stock tools (stock.sh, in bash with openssl and
// libcoap), and libcoap's server is one that the CLM side can speak to.
package foreign
