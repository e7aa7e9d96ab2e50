#!/bin/sh
# every-instruction.sh: the whole matrix of everystep: each fault after each instruction of each call, the call being a
# first one in its process or not. Two calls at a time. Ends with `every-instruction: N passed, N failed, N skipped`, where one
# is a call, warm or cold.
#
# USYSV_LIB  the library (default target/release/libusysv.so)
# STRIDE     try every STRIDE-th instruction only (default 1, for cold calls 5 times that: they are long)
# CALLS      calls to try (default: all)
# FAULT      the only fault to try (default: all)
# JOBS       how many calls at a time (default 2)
# What is done, and how fast, goes to stderr: a line for each call and fault. CALLS and FAULT split the matrix.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
build=$here/build
lib=$(realpath "${USYSV_LIB:-$here/../target/release/libusysv.so}") || exit 1
stride=${STRIDE:-1}
work=$(mktemp -d /dev/shm/usysv-every.XXXXXX 2>/dev/null) || work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

mkdir -p "$build"
${CC:-cc} -std=gnu11 -O2 -g -Wall -Wextra -o "$build/everystep" "$here"/everystep/*.c -ldl || exit 1
calls=${CALLS:-$(sed -n 's/^\t{ "\([a-z-]*\)",.*/\1/p' "$here/everystep/everystep.c")}

# One call, warm or cold, in a namespace of its own.
cat >"$work/one" <<'ONE'
#!/bin/sh
set -u
temper=${1%:*} call=${1#*:}
set -- --all --progress --only "$call"
[ -z "$FAULT" ] || set -- "$@" --fault "$FAULT"
case $temper in
cold) set -- "$@" --cold --stride $((STRIDE * 5)) ;;
*) set -- "$@" --stride "$STRIDE" ;;
esac
mkdir "$WORK/$temper-$call"
USYSV_DIR=$WORK/$temper-$call USYSV_EXPECT=preload LD_PRELOAD=$LIBRARY "$BUILD/everystep" "$@" >"$WORK/$temper-$call.out"
status=$?
line=$(grep -E "^(ok|FAIL|skipped) " "$WORK/$temper-$call.out" | head -n 1)
echo "$temper ${line:-FAIL $call: status $status}"
[ "$status" -eq 0 ]
ONE
chmod +x "$work/one"

for temper in warm cold; do
	for call in $calls; do
		echo "$temper:$call"
	done
done >"$work/list"
STRIDE=$stride FAULT=${FAULT:-} WORK=$work BUILD=$build LIBRARY=$lib \
	xargs -P "${JOBS:-2}" -n 1 "$work/one" <"$work/list" | tee "$work/results"

passed=$(grep -c '^[a-z]* ok ' "$work/results")
skipped=$(grep -c '^[a-z]* skipped ' "$work/results")
failed=$(($(wc -l <"$work/list") - passed - skipped))
echo "every-instruction: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
