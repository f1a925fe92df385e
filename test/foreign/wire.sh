# What docs/protocol.md asks of a peer, with stock tools: bash, od, openssl, and
# libcoap's coap-client-openssl. Byte strings are hex digits here.
#
# Set by who sources this file: device (host:port), credential (PEM file with
# the binding certificate of a CLM and its key), work (an empty folder).

fail() {
	printf 'FAIL %s\n' "$*"
	exit 1
}

pass() { printf 'ok   %s\n' "$*"; }

# --- bytes -------------------------------------------------------------------

unhex() { # HEX: the bytes, on standard output
	local escaped
	escaped=$(sed 's/../\\x&/g' <<<"$1")
	printf '%b' "$escaped"
}

hex() { # FILE: its bytes
	od -An -v -tx1 "$1" | tr -d ' \n'
}

ascii() { # TEXT: its bytes
	printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'
}

sha256() { # HEX: the digest of the bytes
	unhex "$1" | openssl dgst -sha256 -r | cut -d' ' -f1
}

lp() { # HEX...: LP of section 2.2
	local x
	for x; do printf '%04x%s' $((${#x} / 2)) "$x"; done
}

# --- CBOR (RFC 8949), as far as section 4.4 needs it --------------------------

head_of() { # MAJOR VALUE: major type and argument, in the shortest form
	local major=$(($1 << 5)) value=$2
	if ((value < 24)); then
		printf '%02x' $((major | value))
	elif ((value < 256)); then
		printf '%02x%02x' $((major | 24)) "$value"
	elif ((value < 65536)); then
		printf '%02x%04x' $((major | 25)) "$value"
	else
		printf '%02x%08x' $((major | 26)) "$value"
	fi
}

uint() { head_of 0 "$1"; }
bytes() { printf '%s%s' "$(head_of 2 $((${#1} / 2)))" "$1"; }
text() {
	local h
	h=$(ascii "$1")
	printf '%s%s' "$(head_of 3 $((${#h} / 2)))" "$h"
}

array() { # ITEM...
	printf '%s' "$(head_of 4 $#)" "$@"
}

map() { # KEY ITEM...: unsigned keys in ascending order
	head_of 5 $(($# / 2))
	while (($#)); do
		printf '%s%s' "$(uint "$1")" "$2"
		shift 2
	done
}

# item reads the item at digit $2 of $1. It sets major and value to what its
# head says, and start and next to the digits behind the head and the item.
item() {
	local at=$2 kind number size i begin
	kind=$((16#${1:at:2} >> 5)) number=$((16#${1:at:2} & 31)) at=$((at + 2))
	if ((number >= 24)); then
		size=$((2 << (number - 24)))
		number=$((16#${1:at:size})) at=$((at + size))
	fi
	begin=$at
	case $kind in
	2 | 3) at=$((at + 2 * number)) ;;
	4 | 5)
		for ((i = 0; i < number * (kind - 3); i++)); do
			item "$1" "$at"
			at=$next
		done
		;;
	esac
	major=$kind value=$number start=$begin next=$at
}

field() { # HEX KEY: the item behind that key of a map: digits of a string, else the number
	local data=$1 key=$2 pairs i major value start next at found
	item "$data" 0
	pairs=$((16#${data:0:2} & 31)) at=2
	[[ ${data:0:1} == [ab] ]] || fail "not a map: $data"
	for ((i = 0; i < pairs; i++)); do
		item "$data" "$at"
		found=$value at=$next
		item "$data" "$at"
		if ((found == key)); then
			case $major in
			0) echo "$value" ;;
			2 | 3) echo "${data:start:2*value}" ;;
			*) echo "${data:at:next-at}" ;;
			esac
			return
		fi
		at=$next
	done
}

# --- CoAP over DTLS ----------------------------------------------------------

# A device admits ten handshakes from one source at once, then one a second
# (section 3.5); here each request is a handshake. On loopback there are sources
# enough.
requests=0
source_of_request() {
	requests=$((requests + 1))
	[[ $device == 127.* ]] || return 0
	printf -v from '127.0.0.%d' $((2 + requests / 8))
}

# ask METHOD PATH [OPTION OF coap-client...]: one request on a connection of its
# own. It sets code (as 2.04) and format of the response, and answer to its
# body.
ask() {
	local method=$1 path=$2 from= attempt
	shift 2
	for attempt in {1..20}; do
		rm -f "$work/answer"
		source_of_request
		coap-client-openssl ${from:+-a "$from"} -B 60 -v 7 -n -c "$credential" -m "$method" "$@" \
			-o "$work/answer" "coaps://$device/$path" >"$work/coap.log" 2>&1 || fail "coap-client: $(<"$work/coap.log")"
		grep -aq 'alert read:fatal:handshake failure' "$work/coap.log" || break
		sleep 1
	done
	local line
	# The last one: responses to earlier blocks stand before it.
	line=$(grep -a '^v:1 t:\(ACK\|CON\) c:[245]\.' "$work/coap.log" | tail -n 1) || fail "$method $path: no response: $(<"$work/coap.log")"
	code=${line#*c:} code=${code%% *}
	format=none
	[[ $line == *Content-Format:* ]] && format=${line#*Content-Format:} format=${format%%[],\ ]*}
	answer=
	[[ -f $work/answer ]] && answer=$(hex "$work/answer")
	return 0
}

post() { # PATH HEX [OPTION...]: a body in CBOR
	unhex "$2" >"$work/body"
	local path=$1
	shift 2
	ask post "$path" -t 60 -f "$work/body" "$@"
}

expect() { # CODE FORMAT WHAT
	[[ $code == "$1" && $format == "$2" ]] || fail "$3: $code in format $format instead of $1 in $2: $(grep -a '^v:1' "$work/coap.log")"
	pass "$3: $1"
}

refused() { # CODE TITLE WHAT: problem details (RFC 9290), whose title has the key -1
	[[ $code == "$1" && $format == 257 ]] || fail "$3: $code in format $format instead of $1 in 257: $(grep -a '^v:1' "$work/coap.log")"
	local body
	body=$(sed -n 's/^<<\([0-9a-f]*\)>>$/\1/p' "$work/coap.log" | tail -n 1)
	[[ $body == a[1-9]20$(text "$2")* ]] || fail "$3: the title is not $2: $body"
	pass "$3: $1 $2"
}
