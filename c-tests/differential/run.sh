#!/usr/bin/env bash
#
# run.sh: the differential fuzzer, bounded, as CI runs it (without end: `make fuzz-differential`).
#
# In this order: the kernel against itself must show no difference; each deliberate fault (faults.c) must be found, and shrunk to a few calls;
# an order that the kernel is free to choose (choices/) must be taken for one, and a fault in the same list still for a fault; lists that once differed (regressions/) must agree; what is known to differ (known/) must still differ; then random lists for a while.
# Ends with `differential: N passed, N failed, N skipped`.
#
# USYSV_LIB                    the library (target/release/libusysv.so)
# USYSV_DIFFERENTIAL_SECONDS   how long random lists are tried (22)
# USYSV_DIFFERENTIAL_SEED      their seed (another one each time; it is printed)
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$here/../build/differential
lib=$(realpath -m "${USYSV_LIB:-$here/../../target/release/libusysv.so}")
seconds=${USYSV_DIFFERENTIAL_SECONDS:-22}
passed=0
failed=0
skipped=0

finish() {
	echo "differential: $passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] && [ $((passed + skipped)) -gt 0 ]
	exit
}

"$here/build.sh" || {
	echo 'FAIL the fuzzer does not build'
	failed=1
	finish
}
if [ ! -f "$lib" ]; then
	echo "FAIL there is no library at $lib"
	failed=1
	finish
fi
work=$(mktemp -d /dev/shm/usysv-differential.XXXXXX 2>/dev/null) || work=$(mktemp -d) || exit 1
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export USYSV_DIR=$work

# step NAME ARGUMENT...: the fuzzer with these arguments must be content
step() {
	local name=$1 status=0
	shift
	timeout -k 5 300 "$build/differential" "$@" --save "$build" >"$build/log" 2>&1 || status=$?
	if [ "$status" = 77 ]; then
		grep '^skipped' "$build/log"
		skipped=$((skipped + 1))
		finish
	fi
	if [ "$status" = 0 ]; then
		echo "ok $name: $(tail -n 1 "$build/log")"
		passed=$((passed + 1))
	else
		sed 's/^/  /' "$build/log"
		echo "FAIL $name (status $status)"
		failed=$((failed + 1))
	fi
}

step 'the kernel agrees with itself' --itself --seconds 4
while read -r fault; do
	[ "$fault" != late ] || continue
	step "fault $fault is found" --fault-lib "$build/faults.so" --fault "$fault" --differs --at-most 8 --seed 5 --seconds 20
done < <(sed -n 's/^\t{ "\([a-z-]*\)",.*/\1/p' "$here/faults.c")
for list in "$here"/choices/*.ops; do
	name=$(basename "$list" .ops)
	step "the kernel's choice: $name" --fault-lib "$build/faults.so" --fault late --replay "$list"
	if ! grep -q ' 1 choices of the kernel' "$build/log"; then
		echo "FAIL the kernel's choice: $name: it came out alike, and nothing was asked"
		failed=$((failed + 1))
	fi
	step "no choice of the kernel's: $name" --fault-lib "$build/faults.so" --fault lost --differs --replay "$list"
done
for list in "$here"/regressions/*.ops; do
	step "once differed: $(basename "$list" .ops)" --lib "$lib" --walk-in --replay "$list"
done
for list in "$here"/known/*.ops; do
	name=$(basename "$list" .ops)
	before=$passed
	step "known difference $name is still one (else remove its entry)" --lib "$lib" --walk-in --differs --replay "$list"
	if [ "$passed" -gt "$before" ]; then
		passed=$before
		skipped=$((skipped + 1))
		echo "skipped known difference $name: $(sed -n 's/^# //p' "$list" | tr '\n' ' ')"
	fi
done
if [ -n "${USYSV_DIFFERENTIAL_SEED:-}" ]; then
	step 'random lists' --lib "$lib" --seconds "$seconds" --seed "$USYSV_DIFFERENTIAL_SEED"
else
	step 'random lists' --lib "$lib" --seconds "$seconds"
fi
finish
