# shellcheck shell=bash
#
# count.sh: how a lane's script counts; sourced by it.

passed=0
failed=0
skipped=0

ok() {
    passed=$((passed + 1))
    echo "ok $1"
}
bad() {
    failed=$((failed + 1))
    echo "FAIL $1"
}
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1"
}

# totals LANE: the last line of the script.
totals() {
    echo "$1: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
