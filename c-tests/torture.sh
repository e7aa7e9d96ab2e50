#!/bin/sh
# torture.sh: faults and manners. Builds the programs of torture/, everystep/, orphan/, namesakes/, hygiene/ and tools/ into build/ and runs them
#   - on the kernel's queues, as far as it has any (that tests the programs: they must pass there),
#   - preloaded with the library, each in a namespace directory of its own.
# Per-lane totals, then `faults: N passed, N failed, N skipped`. A lane that ran nothing fails. Exit status 0 when nothing failed.
#
# USYSV_LIB              the library (default target/release/libusysv.so)
# USYSV_TORTURE_SECONDS  length of the preloaded torture, and of everystep after it (default 20)
# USYSV_TORTURE_SEED     its seed (default: the torture's own choice; it is printed)
# USYSV_TORTURE_FAULTS   faults of tools/spoil.c that the torture must notice (default: a few; "all" for all; "none")
# USYSV_LANES            which lanes to run (default: "native preload")
# CC                     the compiler (default cc)
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
build=$here/build
lib=${USYSV_LIB:-$here/../target/release/libusysv.so}
seconds=${USYSV_TORTURE_SECONDS:-20}
lanes=${USYSV_LANES:-native preload}
cc=${CC:-cc}
flags="-std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Werror -pthread"
hygiene="state alloc mappings many races"
all_passed=0
all_failed=0
all_skipped=0

mkdir -p "$build" || exit 1
work=$(mktemp -d /dev/shm/usysv-torture.XXXXXX 2>/dev/null) || work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-torture.XXXXXX") || exit 1
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

compile() { # target source...
	target=$1
	shift
	# shellcheck disable=SC2086 # the flags are words
	$cc $flags -o "$build/$target" "$@" -ldl -lm || {
		echo "FAIL build of $target"
		all_failed=$((all_failed + 1))
	}
}
compile torture "$here"/torture/*.c
for p in $hygiene syscalls; do
	compile "$p" "$here/hygiene/$p.c"
done
compile everystep "$here"/everystep/*.c
compile orphan "$here/orphan/orphan.c"
compile namesakes "$here/namesakes/namesakes.c"
compile count_syscalls "$here/tools/count_syscalls.c"
compile spoil.so -shared -fPIC "$here/tools/spoil.c"

# A kernel namespace of our own, where that is permitted: nobody else's queues are then in the way.
alone=
if unshare --ipc true 2>/dev/null; then
	alone="unshare --ipc"
fi

lane_begin() {
	lane=$1
	lane_passed=0
	lane_failed=0
	lane_skipped=0
	echo "== $lane"
}

lane_end() {
	if [ $((lane_passed + lane_failed)) -eq 0 ]; then
		echo "FAIL lane $lane ran nothing"
		lane_failed=1
	fi
	echo "$lane: $lane_passed passed, $lane_failed failed, $lane_skipped skipped"
	all_passed=$((all_passed + lane_passed))
	all_failed=$((all_failed + lane_failed))
	all_skipped=$((all_skipped + lane_skipped))
}

# Runs one program under a time limit and adds its last line to the totals of the lane.
run() { # seconds program [argument...]
	limit=$1
	shift
	timeout -k 5 "$limit" "$@" >"$work/output" 2>&1
	status=$?
	sed 's/^/  /' "$work/output"
	last=$(sed -n 's/^[a-z_]*: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$work/output" | tail -n 1)
	if [ -z "$last" ]; then
		echo "  FAIL $*: no totals, status $status"
		lane_failed=$((lane_failed + 1))
		return
	fi
	# shellcheck disable=SC2086 # three words
	set -- $last "$@"
	lane_passed=$((lane_passed + $1))
	lane_failed=$((lane_failed + $2))
	lane_skipped=$((lane_skipped + $3))
	if [ "$status" -ne 0 ] && [ "$2" -eq 0 ] && [ "$status" -ne 77 ]; then
		echo "  FAIL $4: status $status"
		lane_failed=$((lane_failed + 1))
	fi
}

# The same with the library, in a fresh namespace directory.
run_preloaded() { # seconds program [argument...]
	limit=$1
	shift
	dir=$(mktemp -d "$work/ns.XXXXXX") || exit 1
	run "$limit" env USYSV_DIR="$dir" USYSV_EXPECT=preload LD_PRELOAD="$lib" "$@"
	rm -rf "$dir"
}

skip_lane() { # name why
	echo "== $1"
	echo "SKIPPED lane $1: $2"
	all_skipped=$((all_skipped + 1))
}

case " $lanes " in
*" native "*)
	if [ ! -e /proc/sys/kernel/msgmax ]; then
		skip_lane native "the kernel has no SysV message queues"
	else
		lane_begin hygiene-native
		for p in $hygiene; do
			# shellcheck disable=SC2086
			run 250 $alone "$build/$p"
		done
		# shellcheck disable=SC2086
		run 60 $alone "$build/count_syscalls" "$build/syscalls"
		lane_end

		lane_begin torture-native
		# shellcheck disable=SC2086
		run 60 $alone "$build/torture" --seconds 5 --seed 1
		# shellcheck disable=SC2086
		run 60 $alone "$build/torture" --seconds 3 --seed 1 --threads 2 --workers 5
		# shellcheck disable=SC2086
		run 60 $alone "$build/everystep" --seconds 6
		# shellcheck disable=SC2086
		run 60 $alone "$build/orphan"
		lane_end

		# The torture must notice what is wrong, or its verdict is worth nothing.
		faults=${USYSV_TORTURE_FAULTS:-lose tear reorder sleep}
		case $faults in
		all) faults="lose double tear reorder ghost count bytes full sleep kill errno linger" ;;
		none) faults= ;;
		esac
		if [ -n "$faults" ]; then
			lane_begin faults-noticed
			for fault in $faults; do
				# shellcheck disable=SC2086
				timeout -k 5 60 env SPOIL="$fault" LD_PRELOAD="$build/spoil.so" \
					$alone "$build/torture" --seconds 4 --seed 7 >"$work/output" 2>&1
				status=$?
				if [ "$status" -eq 1 ] && grep -q '^FAIL' "$work/output"; then
					echo "  ok $fault is noticed: $(grep -m 1 '^FAIL' "$work/output" | cut -c 1-100)"
					lane_passed=$((lane_passed + 1))
				else
					echo "  FAIL $fault goes unnoticed (status $status)"
					sed 's/^/    /' "$work/output"
					lane_failed=$((lane_failed + 1))
				fi
			done
			lane_end
		fi
	fi
	;;
esac

case " $lanes " in
*" preload "*)
	if [ ! -e "$lib" ]; then
		echo "FAIL there is no library at $lib"
		all_failed=$((all_failed + 1))
	else
		lib=$(CDPATH='' cd -- "$(dirname -- "$lib")" && pwd)/$(basename -- "$lib")
		lane_begin hygiene-preloaded
		for p in $hygiene; do
			run_preloaded 250 "$build/$p"
		done
		lane_end

		lane_begin syscalls-preloaded
		dir=$(mktemp -d "$work/ns.XXXXXX") || exit 1
		run 60 env USYSV_DIR="$dir" USYSV_EXPECT=preload "$build/count_syscalls" -p "$lib" "$build/syscalls"
		rm -rf "$dir"
		lane_end

		lane_begin torture-preloaded
		if [ -n "${USYSV_TORTURE_SEED:-}" ]; then
			run_preloaded $((seconds + 60)) "$build/torture" --seconds "$seconds" --seed "$USYSV_TORTURE_SEED"
		else
			run_preloaded $((seconds + 60)) "$build/torture" --seconds "$seconds"
		fi
		run_preloaded $((seconds + 60)) "$build/torture" --seconds $((seconds / 2 + 1)) --threads 2 --workers 5
		lane_end

		lane_begin orphan-preloaded
		run_preloaded 120 "$build/orphan"
		lane_end

		"$build/namesakes" --probe >"$work/output" 2>&1
		status=$?
		if [ "$status" -eq 77 ]; then
			skip_lane namesakes-preloaded "$(cat "$work/output")"
		else
			lane_begin namesakes-preloaded
			run_preloaded 90 "$build/namesakes" --seconds 5
			lane_end
		fi

		lane_begin everystep-preloaded
		run_preloaded $((seconds + 120)) "$build/everystep" --seconds $((seconds + 10))
		lane_end

		# A fork is wrong in a window of a few instructions if anywhere, which the sample above seldom hits.
		for call in send-short receive-head; do
			lane_begin "everystep-forked-$call"
			run_preloaded 120 "$build/everystep" --all --stride 1 --only "$call" --fault fork
			lane_end
		done
	fi
	;;
esac

echo "faults: $all_passed passed, $all_failed failed, $all_skipped skipped"
[ "$all_failed" -eq 0 ] && [ "$all_passed" -gt 0 ]
