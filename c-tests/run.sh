#!/bin/sh
# Run the conformance suites: natively on the kernel, under LD_PRELOAD, and linked against the library.
#
#   run.sh [--lane native|preload|linked]... [suite...]
#
# The native lane is the oracle: what a suite demands, the kernel does. The other two run inside a seccomp filter that answers every
# SysV IPC call with ENOSYS (tools/nosysv.c), so that nothing they do can come from the kernel. Every suite of every lane has a fresh
# namespace. A lane in which fewer rows report than the suite has fails.
#
# differences.txt lists the rows that are known to differ from the kernel. On our queues such a row, when it fails, is printed with its
# reason and counts as skipped; when it passes, it counts as failed: then its entry is to be removed.
#
# Environment: USYSV_LIB (target/release/libusysv.so), USYSV_INCLUDE (include), CC (gcc), CHECK_CFLAGS (more of them),
# CHECK_TIMEOUT (120 seconds a suite).
set -u

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
lib=$(realpath -m "${USYSV_LIB:-${CARGO_TARGET_DIR:-$root/target}/release/libusysv.so}")
include=${USYSV_INCLUDE:-$root/include}
cc=${CC:-gcc}
limit=${CHECK_TIMEOUT:-120}
build=$here/build
all_suites="ids_keys permissions errors receive capacity blocking msgctl processes semantics ways"

lanes=
suites=
while [ $# -gt 0 ]; do
	case $1 in
	--lane)
		case ${2:-} in
		native | preload | linked) lanes="$lanes $2" ;;
		*)
			echo "run.sh: --lane takes native, preload or linked" >&2
			exit 2
			;;
		esac
		shift 2
		;;
	-*)
		sed -n '2,4p' "$0" >&2
		exit 2
		;;
	*)
		if [ ! -f "$here/${1%.c}.c" ]; then
			echo "run.sh: no suite $1; there are: $all_suites" >&2
			exit 2
		fi
		suites="$suites ${1%.c}"
		shift
		;;
	esac
done
lanes=${lanes:-native preload linked}
suites=${suites:-$all_suites}

if [ -d /dev/shm ] && [ -w /dev/shm ]; then
	base=/dev/shm
else
	base=${TMPDIR:-/tmp}
fi
namespace=
clean_up() {
	[ -z "$namespace" ] || rm -rf "$namespace"
	namespace=
}
trap clean_up EXIT
trap 'exit 130' INT TERM

total_passed=0
total_failed=0
total_skipped=0

# ---- building ----

# compile LANE SOURCE [ARGUMENT...]: into build/native, or build/linked when the lane is that
compile() {
	out=$build/$1
	source=$2
	shift 2
	# shellcheck disable=SC2086 # CHECK_CFLAGS is a list
	"$cc" -std=gnu11 -O1 -g -Wall -Wextra -Wpedantic -Werror -pthread ${CHECK_CFLAGS:-} "$here/$source.c" -o "$out/$source" "$@"
}

build_suite() { # LANE SUITE
	mkdir -p "$build/$1"
	set -- "$1" "$2" -L"$build/$1" # the rest are arguments of the compiler
	if [ "$2" = processes ]; then
		"$cc" -std=gnu11 -O1 -Wall -Wextra -Wpedantic -Werror -fPIC -shared "$here/early.c" -o "$build/$1/libearly.so" || return 1
		# shellcheck disable=SC2016 # $ORIGIN is for the dynamic linker
		set -- "$@" -Wl,--no-as-needed '-Wl,-rpath,$ORIGIN'
		if [ "$1" = linked ]; then
			set -- "$@" -DCHECK_LINKED -I"$include" -L"$(dirname "$lib")" -lusysv -Wl,-rpath,"$(dirname "$lib")"
		fi
		compile "$@" -learly
	elif [ "$2" = ways ]; then
		mkdir -p "$build/$1/sub" || return 1
		for module in libways.so sub/libdeep.so sub/libdeeper.so; do
			# shellcheck disable=SC2016 # $ORIGIN is for the dynamic linker
			"$cc" -std=gnu11 -O1 -Wall -Wextra -Wpedantic -Werror -fPIC -shared "$here/module.c" -o "$build/$1/$module" \
				'-Wl,-rpath,$ORIGIN' -Wl,--enable-new-dtags || return 1
		done
		# The functions of the C library with FORTIFY names are only called with optimisation; exceptions are for forced unwinding.
		# shellcheck disable=SC2016
		set -- "$@" -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fexceptions -Wl,--no-as-needed '-Wl,-rpath,$ORIGIN'
		if [ "$1" = linked ]; then
			set -- "$@" -DCHECK_LINKED -I"$include" -L"$(dirname "$lib")" -lusysv -Wl,-rpath,"$(dirname "$lib")"
		fi
		compile "$@" -lways
	elif [ "$1" = linked ]; then
		compile "$@" -DCHECK_LINKED -I"$include" -L"$(dirname "$lib")" -Wl,--no-as-needed -lusysv -Wl,-rpath,"$(dirname "$lib")"
	else
		compile "$@"
	fi
}

mkdir -p "$build/native" "$build/tools" || exit 1
# What is linked looks for the library under its soname; `make library` has made this link, cargo alone has not.
[ -e "$lib.0" ] || ln -s libusysv.so "$lib.0" 2>/dev/null
probe=$build/tools/has_sysv
"$cc" -x c - -o "$probe" <<'END' || exit 1
#include <sys/ipc.h>
#include <sys/msg.h>
int main(void)
{
	int id = msgget(IPC_PRIVATE, 0600);
	return id == -1 || msgctl(id, IPC_RMID, 0) == -1;
}
END

nosysv=
if [ -f "$here/tools/nosysv.c" ]; then
	if "$cc" -O1 "$here/tools/nosysv.c" -o "$build/tools/nosysv" && ! "$build/tools/nosysv" "$probe"; then
		nosysv=$build/tools/nosysv
	else
		echo "FAIL nosysv: expected it to build and to deny the kernel's calls"
		total_failed=1
	fi
else
	echo "skipped seccomp filter: c-tests/tools/nosysv.c is not there; the kernel's own queues stay within reach"
fi

own_ipc=
if unshare --ipc true 2>/dev/null; then
	own_ipc="unshare --ipc"
fi

# ---- running ----

# run_suite LANE SUITE: its output goes to a log
run_suite() {
	program=$build/native/$2
	[ "$1" != linked ] || program=$build/linked/$2
	namespace=$(mktemp -d "$base/usysv-check.XXXXXX") || return 1
	chmod 1777 "$namespace"
	set -- "$1" "$2" env "USYSV_DIR=$namespace" "CHECK_LANE=$1" "CHECK_LIB=$lib" "CHECK_HOST=$build/native/processes"
	case $1 in
	native)
		if [ -n "$own_ipc" ]; then
			set -- "$@" CHECK_OWN_NAMESPACE=1 unshare --ipc
		fi
		;;
	*)
		set -- "$@" CHECK_OWN_NAMESPACE=1
		if [ -n "$nosysv" ]; then
			set -- "$@" CHECK_NOSYSV=1 "$nosysv"
		fi
		if [ "$1" = preload ]; then
			set -- "$@" env "LD_PRELOAD=$lib"
		fi
		;;
	esac
	log=$build/logs/$1/$2.log
	shift 2
	timeout -k 5 "$limit" "$@" "$program" </dev/null >"$log" 2>&1
	status=$?
	clean_up
	return $status
}

# note_differences SUITE LOG: a row that is known to differ from the kernel counts as skipped, loudly; one that does not
# differ any more as failed
note_differences() {
	known=$build/logs/known
	awk -v suite="$1" '
		NR == FNR {
			if ($1 == suite) { row = $2; $1 = $2 = ""; sub(/^ +/, ""); why[row] = $0 }
			next
		}
		$1 == "FAIL" || $1 == "ok" { row = $2; sub(/:$/, "", row) }
		$1 == "FAIL" && row in why { print "skipped " row ": differs from the kernel: " why[row]; next }
		$1 == "ok" && row in why { print "FAIL " row ": listed in differences.txt, but passes"; next }
		{ print }
	' "$here/differences.txt" "$2" >"$known" && cp "$known" "$2"
	# The suite saw failures; if all were known, it has passed.
	if ! grep -q '^FAIL ' "$2" && grep -q '^skipped .*: differs from the kernel: ' "$2"; then
		status=0
	fi
}

count() { # PATTERN FILE
	grep -c "$1" "$2"
}

for lane in $lanes; do
	passed=0
	failed=0
	skipped=0
	rm -rf "$build/logs/$lane"
	mkdir -p "$build/logs/$lane"
	if [ "$lane" = native ] && ! "$probe"; then
		echo "skipped native lane: this kernel answers no SysV IPC calls; nothing was compared with the oracle"
		continue
	fi
	if [ "$lane" != native ] && [ ! -f "$lib" ]; then
		echo "FAIL $lane lane: expected $lib, it is not there"
		echo "$lane: 0 passed, 1 failed, 0 skipped"
		total_failed=$((total_failed + 1))
		continue
	fi
	for suite in $suites; do
		log=$build/logs/$lane/$suite.log
		kind=$lane
		[ "$lane" != preload ] || kind=native
		if ! build_suite "$kind" "$suite" >"$log" 2>&1 ||
			{ [ "$suite" = processes ] && [ "$lane" = linked ] && ! build_suite native processes >"$log" 2>&1; }; then
			sed 's/^/  /' "$log"
			echo "FAIL $lane/$suite: expected it to build"
			failed=$((failed + 1))
			continue
		fi
		# What the suite has, told by a native build outside the lane.
		expected=$("$build/$kind/$suite" --list | wc -l)
		run_suite "$lane" "$suite"
		status=$?
		if [ "$lane" != native ]; then
			note_differences "$suite" "$log"
		fi
		p=$(count '^ok ' "$log")
		f=$(count '^FAIL ' "$log")
		s=$(count '^skipped ' "$log")
		sed -n "s|^\(FAIL\) |\1 $lane/$suite |p; s|^\(skipped\) |\1 $lane/$suite |p" "$log"
		if [ "$expected" -eq 0 ] || [ $((p + f + s)) -ne "$expected" ]; then
			echo "FAIL $lane/$suite: expected $expected rows to report, came $((p + f + s)) (exit status $status, see $log)"
			f=$((f + 1))
		elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
			echo "FAIL $lane/$suite: expected exit status 0, came $status (see $log)"
			f=$((f + 1))
		fi
		if ! grep -q "^# lane $lane:" "$log"; then
			echo "FAIL $lane/$suite: expected the suite to prove its lane"
			f=$((f + 1))
		fi
		passed=$((passed + p))
		failed=$((failed + f))
		skipped=$((skipped + s))
	done
	# A lane that passed nothing has shown nothing.
	if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
		echo "FAIL $lane lane: expected rows to pass, came none"
		failed=1
	fi
	echo "$lane: $passed passed, $failed failed, $skipped skipped"
	total_passed=$((total_passed + passed))
	total_failed=$((total_failed + failed))
	total_skipped=$((total_skipped + skipped))
done

if [ "$total_passed" -eq 0 ] && [ "$total_failed" -eq 0 ]; then
	echo "FAIL conformance: no lane ran"
	total_failed=1
fi
echo "conformance: $total_passed passed, $total_failed failed, $total_skipped skipped"
[ "$total_failed" -eq 0 ]
