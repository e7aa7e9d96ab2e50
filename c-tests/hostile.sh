#!/bin/sh
# hostile.sh: what others can do to a queue and to its directory, and what happens when something runs out.
#
#     hostile/directory.c   anything in the place of every file          hostile/users.c   other users
#     hostile/exhaustion.c  full, limited, used up, not there            vandal/vandal.c   live victims of a peer that scribbles
#     ../fuzz               coverage-guided, on the code that reads shared memory
#
# Everything runs preloaded, each suite in a namespace directory of its own. Ends with `hostile: N passed, N failed, N skipped`; a suite
# that ran nothing fails.
#
# USYSV_LIB               the library (default target/release/libusysv.so)
# HOSTILE_VANDAL_SECONDS  length of the vandal's run (default 10)
# HOSTILE_FUZZ_SECONDS    length of the fuzzer's run, after it is built (default 15; 0: none)
# HOSTILE_SYSCTL=1        allows users.c to change fs.protected_* of the whole machine for a second
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
build=$here/build/hostile
lib=$(realpath -m "${USYSV_LIB:-${CARGO_TARGET_DIR:-$here/../target}/release/libusysv.so}")
cc=${CC:-gcc}
passed=0
failed=0
skipped=0

mkdir -p "$build" || exit 1
if [ ! -e "$lib" ]; then
	echo "FAIL there is no library at $lib"
	echo 'hostile: 0 passed, 1 failed, 0 skipped'
	exit 1
fi
work=$(mktemp -d /dev/shm/usysv-hostile.XXXXXX 2>/dev/null) || work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-hostile.XXXXXX") || exit 1
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Adds the last line of a log to the totals.
count() { # name log status
	last=$(sed -n 's/^[a-z_]*: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$2" | tail -n 1)
	if [ -z "$last" ]; then
		echo "FAIL $1: no totals, status $3"
		failed=$((failed + 1))
		return
	fi
	name=$1
	status=$3
	# shellcheck disable=SC2086 # three words
	set -- $last
	passed=$((passed + $1))
	failed=$((failed + $2))
	skipped=$((skipped + $3))
	if [ $(($1 + $2 + $3)) -eq 0 ]; then
		echo "FAIL $name: nothing ran"
		failed=$((failed + 1))
	elif [ "$status" -ne 0 ] && [ "$2" -eq 0 ]; then
		echo "FAIL $name: status $status"
		failed=$((failed + 1))
	fi
}

# suite SOURCE SECONDS [VARIABLE=VALUE...] [-- ARGUMENT...]
suite() {
	source=$1
	limit=$2
	shift 2
	name=$(basename "$source" .c)
	echo "== $name"
	if ! "$cc" -std=gnu11 -O1 -g -Wall -Wextra -Wpedantic -Werror -pthread "$here/$source" -o "$build/$name"; then
		echo "FAIL build of $source"
		failed=$((failed + 1))
		return
	fi
	variables=
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		variables="$variables $1"
		shift
	done
	[ $# -eq 0 ] || shift
	dir=$(mktemp -d "$work/ns.XXXXXX") || exit 1
	chmod 1777 "$dir"
	# shellcheck disable=SC2086 # words
	env CHECK_LANE=preload USYSV_DIR="$dir" LD_PRELOAD="$lib" $variables timeout -k 5 "$limit" "$build/$name" "$@" >"$work/log" 2>&1
	status=$?
	sed 's/^/  /' "$work/log"
	count "$name" "$work/log" "$status"
	rm -rf "$dir"
}

suite hostile/directory.c 120
suite hostile/users.c 120 HOSTILE_SYSCTL="${HOSTILE_SYSCTL:-0}"
suite hostile/exhaustion.c 120 USYSV_MSGMNB=67108864 USYSV_MSGMNI=32768
seconds=${HOSTILE_VANDAL_SECONDS:-10}
suite vandal/vandal.c $((seconds + 100)) -- --seconds "$seconds"

seconds=${HOSTILE_FUZZ_SECONDS:-15}
echo "== fuzz"
if [ "$seconds" -eq 0 ]; then
	echo '  skipped fuzz: HOSTILE_FUZZ_SECONDS is 0'
	skipped=$((skipped + 1))
elif ! command -v c++ >/dev/null 2>&1 || ! command -v cargo >/dev/null 2>&1; then
	echo '  skipped fuzz: libFuzzer is built by a C++ compiler, and there is none'
	skipped=$((skipped + 1))
else
	"$here/../fuzz/run.sh" "$seconds" >"$work/log" 2>&1
	status=$?
	sed 's/^/  /' "$work/log"
	count fuzz "$work/log" "$status"
fi

echo "hostile: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
