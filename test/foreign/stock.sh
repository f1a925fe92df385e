#!/usr/bin/env bash
# Plays the CLM against a device with stock tools only, as docs/protocol.md has
# it: two enrolments through all resources, a new trust anchor, a new identity,
# and what a device has to refuse.
#
#   stock.sh HOST:PORT CREDENTIAL WORK [BUNDLE]
#
# CREDENTIAL is the credential.pem of a CLM's data directory: its handshake key
# and the binding certificate, which is the same in each handshake; no stock
# tool could sign another. WORK is an empty folder, which keeps what was
# exchanged: the statements, which need a pairing to check, are left to others.
# BUNDLE is a sealed bundle of a later generation of the device.
#
# The device must be fresh, since the CA made here becomes its trust anchor, and
# allowed to be called plc-1.
set -euo pipefail
device=$1 credential=$2 work=$3 bundle=${4:-}
# shellcheck source=wire.sh
. "$(dirname "$0")/wire.sh"

# --- section 3: the handshake, seen by openssl --------------------------------

handshake() { # FILE: the device's binding certificate, and the client random in $random
	openssl s_client -dtls1_2 -connect "$device" -cert "$credential" -key "$credential" -msg </dev/null >"$work/s_client" 2>&1 ||
		fail "openssl s_client: $(<"$work/s_client")"
	grep -q 'Cipher is ECDHE-ECDSA-AES256-GCM-SHA384' "$work/s_client" || fail "cipher suite: $(grep 'Cipher is' "$work/s_client")"
	grep -q 'Extended master secret: yes' "$work/s_client" || fail 'no extended master secret'
	# Handshake messages begin with their type: 3 is HelloVerifyRequest, 1 is
	# ClientHello, of which the first 12 bytes are a header, then come version and
	# random.
	grep -q '^    03 00 00' "$work/s_client" || fail 'no cookie exchange'
	openssl x509 -in "$work/s_client" -outform DER -out "$1"
	random=$(grep -A2 '^    01 00 00' "$work/s_client" | head -n 3 | tr -d ' \n')
	random=${random:28:64}
}

binding() { # FILE: the hex of the binding inside
	local at
	at=$(openssl asn1parse -inform DER -in "$1" | grep -A1 ':1\.3\.6\.1\.4\.1\.32473\.7250\.1$' | tail -n 1)
	[[ $at == *'OCTET STRING'* ]] || fail "no binding: $(openssl asn1parse -inform DER -in "$1")"
	openssl asn1parse -inform DER -in "$1" -strparse "$((${at%%:*}))" -out "$work/binding" -noout
	hex "$work/binding"
}

check_handshake() {
	local at one two
	for at in 1 2; do
		handshake "$work/device$at.der"
		(($(stat -c %s "$work/device$at.der") <= 1024)) || fail 'the binding certificate is longer than 1024 bytes'
		# context: OCTET STRING of the last 28 bytes of the client random
		[[ $(binding "$work/device$at.der") == *"041c${random:8}0460"* ]] || fail "the binding is not for the client random $random"
	done
	one=$(binding "$work/device1.der") two=$(binding "$work/device2.der")
	[[ $one != "$two" ]] || fail 'one binding in two handshakes'
	pass "the handshake, with a fresh binding in each"
	openssl asn1parse -inform DER -in "$work/binding"
	if openssl s_client -dtls1_2 -connect "$device" </dev/null >"$work/s_client" 2>&1; then
		fail 'a client without certificate is accepted'
	fi
	pass 'a client without certificate is refused'
}

# --- the CA -------------------------------------------------------------------

make_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/ca.key" -out "$work/ca.pem" \
		-subj '/CN=Stock CA' -days 30 -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' 2>/dev/null
	openssl x509 -in "$work/ca.pem" -outform DER -out "$work/ca.der"
	ca=$(hex "$work/ca.der")
	ca_hash=$(sha256 "$ca")
}

issue() { # NAME: makes NAME.p7, with the chain, of NAME.csr
	openssl req -inform DER -in "$work/$1.csr" -verify -noout 2>/dev/null || fail "$1: openssl does not verify the CSR"
	openssl x509 -req -inform DER -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -copy_extensions copy -days 7 \
		-out "$work/$1.pem" 2>/dev/null
	openssl x509 -in "$work/$1.pem" -outform DER -out "$work/$1.der"
	openssl crl2pkcs7 -nocrl -certfile "$work/ca.pem" -certfile "$work/$1.pem" -outform DER -out "$work/$1.p7"
}

# --- section 5: the resources --------------------------------------------------

status() {
	ask get status -A 60
	[[ $code == 2.05 && $format == application/cbor ]] || fail "status: $code in $format"
	[[ $(field "$answer" 0) == 1 ]] || fail 'version of the status'
	identity=$(field "$answer" 2)
}

is_active() { # NAME
	status
	[[ $(field "$answer" 3) == *"5820$(sha256 "$(hex "$work/$1.der")")"* ]] || fail "$1 is not the active certificate: $answer"
	pass "status: $1 is active"
}

reference() { # ID NAME [SECONDS]
	map 0 "$(uint 1)" 1 "$(bytes "$1")" 2 "$(bytes "$(sha256 "$(hex "$work/$2.der")")")" ${3:+3 "$(uint "$3")"}
}

csr() { # NAME REQUEST
	post csr-generation-request "$2" -A 286
	expect 2.04 286 "$1: CSR"
	cp "$work/answer" "$work/$1.csr"
}

verify() { # NAME ID [OPTION...]: the certificate in NAME.p7, and its possession
	local name=$1 id=$2 nonce message
	shift 2
	nonce=$(openssl rand -hex 32)
	post verify-certificate "$(map 0 "$(uint 1)" 1 "$(bytes "$id")" 2 "$(bytes "$nonce")" 3 "$(bytes "$(hex "$work/$name.p7")")")" "$@"
	expect 2.04 application/cbor "$name: verification"
	[[ $(field "$answer" 1) == "$(sha256 "$(hex "$work/$name.der")")" ]] || fail "$name: another certificate was verified"
	# Section 6.
	message=$(lp "$(ascii edgeclm/v1/possession)" "$identity" "$id" "$nonce" "$(field "$answer" 1)")
	unhex "$message" >"$work/$name.message"
	unhex "$(field "$answer" 2)" >"$work/$name.possession"
	openssl x509 -in "$work/$name.pem" -pubkey -noout >"$work/$name.pub"
	openssl dgst -sha256 -verify "$work/$name.pub" -signature "$work/$name.possession" "$work/$name.message" >/dev/null ||
		fail "$name: the possession signature does not verify"
	pass "$name: openssl verifies the possession"
	field "$answer" 3 >"$work/$name.statement"
	printf '%s\n' "$id" >"$work/$name.id"
}

links() {
	ask get .well-known/core
	expect 2.05 application/link-format 'links'
	local path
	for path in csr-generation-request verify-certificate activate confirm rollback bundle anchors status; do
		grep -q "</$path>;rt=\"edgeclm" "$work/answer" || fail "/$path is not among the links"
	done
	local whole=$answer
	ask get .well-known/core -b 64
	[[ $answer == "$whole" ]] || fail 'the links in blocks are others'
	pass 'links in blocks of 64 bytes'
}

first() {
	local id request
	id=$(openssl rand -hex 16)
	request=$(map 0 "$(uint 1)" 1 "$(bytes "$id")" 2 "$(bytes "$ca")" 3 "$(bytes "$ca_hash")" 4 "$(uint 1)")
	csr first "$request"
	cp "$work/first.csr" "$work/again"
	csr first "$request"
	cmp -s "$work/first.csr" "$work/again" || fail 'the same request gave another CSR'
	pass 'first: the same CSR for the same request'
	post csr-generation-request "$(map 0 "$(uint 1)" 1 "$(bytes "$id")" 2 "$(bytes "$ca")" 3 "$(bytes "$ca_hash")" 4 "$(uint 2)")"
	refused 4.09 conflict 'first: other parameters'
	issue first
	verify first "$id"
	post activate "$(reference "$id" first)"
	expect 2.04 none 'first: activation, final at once'
	is_active first
	post activate "$(reference "$id" first)"
	expect 2.04 none 'first: activation again'
	post confirm "$(reference "$id" first)"
	expect 2.04 none 'first: confirmation'
}

second() {
	local id names
	id=$(openssl rand -hex 16)
	# subject and alternative names enclosed, key usage digitalSignature, serverAuth and clientAuth, a challenge, the time
	names=(5 "$(array "$(array "$(uint 3)" "$(text plc-1)")")" 6 "$(array "$(array "$(uint 2)" "$(text plc-1)")")")
	csr second "$(map 0 "$(uint 1)" 1 "$(bytes "$id")" 3 "$(bytes "$ca_hash")" 4 "$(uint 3)" "${names[@]}" \
		7 "$(uint 1)" 8 "$(array "$(uint 1)" "$(uint 2)")" 9 "$(bytes "$(ascii sesame)")" 10 "$(uint "$(date +%s)")")"
	openssl req -inform DER -in "$work/second.csr" -noout -text >"$work/second.txt"
	local want
	for want in 'CN = plc-1' 'DNS:plc-1' 'Digital Signature' 'TLS Web Server Authentication, TLS Web Client Authentication' 'sesame' '2048 bit'; do
		grep -q "$want" "$work/second.txt" || fail "the second CSR lacks $want: $(<"$work/second.txt")"
	done
	pass 'second: openssl finds in the CSR what was asked for'
	# A certificate of somebody else.
	post verify-certificate "$(map 0 "$(uint 1)" 1 "$(bytes "$id")" 2 "$(bytes "$(openssl rand -hex 32)")" 3 "$(bytes "$(hex "$work/first.p7")")")"
	refused 4.22 unverified 'second: the certificate of another key'
	issue second
	verify second "$id" -b 256
	post activate "$(reference "$id" second 300)"
	expect 2.04 none 'second: activation for 300 s'
	is_active second
	[[ $answer == *06f5* ]] || fail 'it does not await its confirmation'
	post activate "$(reference "$id" first)"
	refused 4.09 conflict 'second: activation of the previous certificate'
	post rollback "$(reference "$id" second)"
	expect 2.04 none 'second: rollback'
	is_active first
	post confirm "$(reference "$id" second)"
	refused 4.09 conflict 'second: confirmation of what is not active'
	verify second "$id"
	post activate "$(reference "$id" second 300)"
	expect 2.04 none 'second: activation again'
	post confirm "$(reference "$id" second)"
	expect 2.04 none 'second: confirmation'
	is_active second
}

# A new root of the CA, cross-signed by the present one: the device trusts both.
anchor() {
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/next.key" -out "$work/next.req" -subj '/CN=Next Stock CA' 2>/dev/null
	printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' >"$work/next.ext"
	openssl x509 -req -in "$work/next.req" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 30 -extfile "$work/next.ext" -outform DER -out "$work/next.der" 2>/dev/null
	ask post anchors -t 287 -f "$work/next.der"
	expect 2.04 none 'a cross-signed root'
	status
	local anchors next
	anchors=$(field "$answer" 10) next=$(sha256 "$(hex "$work/next.der")")
	[[ $anchors == 82* && $anchors == *"5820$ca_hash"* && $anchors == *"5820$next"* ]] || fail "the trust anchors are $anchors"
	pass 'status: two trust anchors'
	# Of a root that no anchor knows.
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/alien.key" -outform DER -out "$work/alien.der" -subj '/CN=Alien CA' -days 30 \
		-addext 'basicConstraints=critical,CA:TRUE' 2>/dev/null
	ask post anchors -t 287 -f "$work/alien.der"
	refused 4.03 forbidden 'a root that no anchor signed'
	printf 'not a statement' >"$work/body"
	ask post anchors -t 42 -f "$work/body"
	refused 4.00 bad-request 'an anchor statement that is none'
}

# A later key of the device's identity. libcoap sends it in blocks.
rekey() {
	printf 'not a bundle' >"$work/body"
	ask post bundle -t 42 -f "$work/body"
	refused 4.00 bad-request 'a bundle that is none'
	[[ -n $bundle ]] || return 0
	local before=$identity
	ask post bundle -t 42 -f "$bundle"
	expect 2.04 none "a bundle of $(stat -c %s "$bundle") bytes"
	ask post bundle -t 42 -f "$bundle"
	expect 2.04 none 'the bundle again'
	status
	[[ $identity != "$before" ]] || fail "the identity is still $(unhex "$identity")"
	pass "the device is $(unhex "$identity")"
	handshake "$work/device3.der"
	[[ $(binding "$work/device3.der") == *"$identity"* ]] || fail 'the handshake proves another identity'
	pass 'and proves it in the handshake'
	is_active second
}

refusals() {
	local stranger zero path
	stranger=$(map 0 "$(uint 1)" 1 "$(bytes "$(openssl rand -hex 16)")" 2 "$(bytes "$ca_hash")")
	for path in activate confirm rollback; do
		post $path "$stranger"
		refused 4.04 unknown "/$path: an enrolment that nobody began"
	done
	zero=$(map 0 "$(uint 2)" 1 "$(bytes "$(openssl rand -hex 16)")" 2 "$(bytes "$ca_hash")")
	post activate "$zero"
	refused 4.00 bad-request 'version 2'
	post activate "bf${stranger:2}ff"
	refused 4.00 bad-request 'a map of indefinite length'
	post activate "${stranger}00"
	refused 4.00 bad-request 'a byte behind the map'
	post activate "a4${stranger:2}1863f6"
	refused 4.04 unknown 'a key that is not known is ignored'
	ask get nothing
	expect 4.04 none 'a path that is not there'
	ask get activate
	expect 4.05 none 'a wrong method'
	unhex "$stranger" >"$work/body"
	ask post activate -t 50 -f "$work/body"
	expect 4.15 none 'a body in JSON'
	ask get status -A 50
	expect 4.06 none 'JSON is wanted'
	ask get 'status?x=1'
	[[ $code == 4.02 ]] || fail "Uri-Query: $code"
	ask get status -O 65001,0x00
	[[ $code == 4.02 ]] || fail "an unknown critical option: $code"
	pass 'critical options that are not known: 4.02'
	ask get status -O 65000,0x00
	expect 2.05 application/cbor 'an elective option that is not known'
}

check_handshake
make_ca
links
status
pass "the device is $(unhex "$identity")"
first
second
anchor
refusals
rekey
