#!/usr/bin/env bash
#
# test.sh: runs every lane of tests (`make test` sets up, builds and then runs this).
#
#     scripts/test.sh [LANE...]      all lanes, or those named
#     scripts/test.sh --lanes        says which there are
#
# A lane is a command. The Rust lane's results are cargo's "test result:" lines; the script of any other lane ends with
#
#     NAME: N passed, N failed, N skipped
#
# A lane that passed, failed and skipped nothing has not run, and counts as a failure; so does one whose command fails.
# One that skipped everything, saying why, says so once more; .ci/run does not put up with that. The
# results stand in c-tests/build/lanes afterwards, a line "LANE PASSED FAILED SKIPPED" each.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=(rust c differential programs torture hostile sanitizers demo package containers docs bench)
if [ "${1:-}" = --lanes ]; then
    printf '%s\n' "${all[@]}"
    exit
fi

USYSV_LIB=${USYSV_LIB:-$(realpath -m "${CARGO_TARGET_DIR:-target}/release/libusysv.so")}
export USYSV_LIB # which library the lanes preload and link

results=c-tests/build/lanes
log=c-tests/build/lane.log
mkdir -p c-tests/build
: >"$results"
broken=0
lane_seconds=900

# A watchdog over what has none of its own. At a terminal, Ctrl-C must still arrive.
watchdog=(timeout -k 10 "$lane_seconds")
[ ! -t 0 ] || watchdog=(timeout --foreground -k 10 "$lane_seconds")

# The counts in a log: cargo's lines added up, and a lane script's last line. What a Rust test skips it says in a line
# that begins with "skipped:" (behind the name of the test where tests run one by one).
count() {
    awk '
        /^test result: / { rust = 1; p += $4; f += $6; s += $8 }
        /(^|\.\.\. )skipped: / { said++ }
        /^[a-z_-]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { last = $2 " " $4 " " $6 }
        END { if (rust) print p, f, s + said; else if (last != "") print last; else print 0, 0, 0 }
    ' "$1"
}

# lane NAME COMMAND...
lane() {
    local name=$1 status=0 p f s
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    "${watchdog[@]}" "$@" 2>&1 | tee "$log" || status=$?
    read -r p f s <<<"$(count "$log")"
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        echo "test.sh: lane $name ended with status $status" >&2
        f=1
    fi
    if [ $((p + f + s)) = 0 ]; then
        echo "test.sh: lane $name ran nothing" >&2
        f=1
    elif [ $((p + f)) = 0 ]; then
        echo "test.sh: lane $name SKIPPED EVERYTHING: it has shown nothing" >&2
    fi
    [ "$f" = 0 ] || broken=1
    echo "$name $p $f $s" >>"$results"
}

lanes=("$@")
if [ ${#lanes[@]} = 0 ]; then
    lanes=("${all[@]}")
fi
for name in "${lanes[@]}"; do
    case $name in
    rust) lane rust cargo test --no-fail-fast ;;
    c) lane c c-tests/run.sh ;;
    differential) lane differential c-tests/differential/run.sh ;;
    programs) lane programs c-tests/programs/run.sh ;;
    torture) lane torture c-tests/torture.sh ;;
    hostile) lane hostile c-tests/hostile.sh ;;
    sanitizers) lane sanitizers c-tests/sanitizers.sh ;;
    demo) lane demo c-tests/demo/demo.sh ;;
    package) lane package c-tests/package/package.sh ;;
    containers) lane containers c-tests/containers/containers.sh ;;
    docs) lane docs c-tests/docs/docs.sh ;;
    bench) lane bench benches/run.py --short ;;
    *)
        echo "test.sh: no lane $name" >&2
        exit 2
        ;;
    esac
done
rm -f "$log"

echo
while read -r name p f s; do
    echo "usysv: $p passed, $f failed, $s skipped ($name)"
done <"$results"
exit "$broken"
