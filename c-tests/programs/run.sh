#!/usr/bin/env bash
#
# run.sh [PROGRAM...]: real programs on the kernel's queues and on ours, and what they print compared.
#
# A test is a script *.test: it drives a program as its users would, and prints what comes of it. It is run twice, each time in a directory
# and an IPC namespace of its own: on the kernel's queues, and preloaded where the kernel denies the calls of message queues (tools/nosysv.c;
# semaphores and shared memory stay). Both namespaces begin empty, so identifiers are the same; process ids, times and random keys are made the
# same by the script. A difference fails, so does a script that fails on the kernel (then the test is wrong), or one whose second run left no
# trace in the directory of our queues (then the library was not there).
#
# A script that cannot run prints `skipped: why` and ends with 77. pending.txt lists those that are known to differ; one that does not
# differ any more is a failure, as in differences.txt.
#
# prepare.sh fetches and builds what does not come as a package. Ends with `programs: N passed, N failed, N skipped`.
#
# USYSV_LIB   the library (target/release/libusysv.so)
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PROGRAMS=$here
build=$(realpath -m "$here/../build")
export PROGRAMS_BUILD=$build/programs
lib=$(realpath -m "${USYSV_LIB:-$here/../../target/release/libusysv.so}")
limit=90
passed=0
failed=0
skipped=0

finish() {
	echo "programs: $passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] && [ $((passed + skipped)) -gt 0 ]
	exit
}
skip() {
	echo "skipped $1: $2"
	skipped=$((skipped + 1))
}
fail() {
	echo "FAIL $1: $2"
	failed=$((failed + 1))
}

[ -f "$lib" ] || {
	fail library "there is none at $lib"
	finish
}
mkdir -p "$build/tools" "$PROGRAMS_BUILD"
"${CC:-cc}" -std=c11 -O1 "$here/../tools/nosysv.c" -o "$build/tools/nosysv" || {
	fail nosysv 'does not build'
	finish
}
if [ ! -e /proc/sys/kernel/msgmax ] || ! unshare --ipc true 2>/dev/null; then
	skip 'all programs' 'no System V IPC, or no IPC namespace of our own here: nothing to compare with'
	finish
fi
"$build/tools/nosysv" --messages true || {
	skip 'all programs' 'no seccomp filter here, so the kernel could answer in our place'
	finish
}

work=$(mktemp -d /dev/shm/usysv-programs.XXXXXX 2>/dev/null) || work=$(mktemp -d) || exit 1
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# on SIDE NAME COMMAND...: runs a test in a fresh directory; its output stands in $work/NAME.SIDE
on() {
	local side=$1 name=$2
	shift 2
	mkdir -p "$work/$name.$side.d"
	(cd "$work/$name.$side.d" && timeout -k 5 "$limit" "$@" bash "$here/$name.test") >"$work/$name.$side" 2>&1 </dev/null
}

tests=("$@")
if [ ${#tests[@]} = 0 ]; then
	for file in "$here"/*.test; do
		tests+=("$(basename "$file" .test)")
	done
fi
for name in "${tests[@]}"; do
	pending=$(sed -n "s/^$name  *//p" "$here/pending.txt")
	status=0
	on kernel "$name" unshare --ipc || status=$?
	if [ "$status" = 77 ]; then
		skip "$name" "$(sed -n 's/^skipped: //p' "$work/$name.kernel" | tail -n 1)"
		continue
	fi
	if [ "$status" != 0 ]; then
		fail "$name" "status $status on the kernel: the test is wrong"
		sed 's/^/  /' "$work/$name.kernel" | tail -n 20
		continue
	fi
	mkdir "$work/$name.ns" && chmod 1777 "$work/$name.ns"
	status=0
	on ours "$name" unshare --ipc "$build/tools/nosysv" --messages env USYSV_DIR="$work/$name.ns" LD_PRELOAD="$lib" || status=$?
	why=
	if [ ! -e "$work/$name.ns/usysv.ns" ]; then
		why='no queue of ours was ever made'
	elif [ "$status" != 0 ]; then
		why="status $status on our queues"
	elif ! diff -u --label kernel --label ours "$work/$name.kernel" "$work/$name.ours" >"$work/$name.diff"; then
		why='differs from the kernel'
	fi
	if [ -n "$why" ] && [ -n "$pending" ]; then
		skip "$name" "$why; known: $pending"
	elif [ -n "$why" ]; then
		diff -u --label kernel --label ours "$work/$name.kernel" "$work/$name.ours" | sed 's/^/  /' | head -n 60
		fail "$name" "$why"
	elif [ -n "$pending" ]; then
		fail "$name" 'listed in pending.txt, but passes'
	else
		echo "ok $name ($(wc -l <"$work/$name.kernel") lines agree)"
		passed=$((passed + 1))
	fi
done
finish
