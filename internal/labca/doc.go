// Package labca is a certification authority for laboratories, demonstrations
// and tests: a root, an issuing CA and a registration authority (RA), as in the
// paper's testbed (section VII), with a SCEP service (RFC 8894). It says NOT FOR
// PRODUCTION in the subject of each, because all keys lie in one file, it
// revokes nothing, and it can be told to misbehave (see Hostile).
package labca
