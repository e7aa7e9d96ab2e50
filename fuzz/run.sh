#!/usr/bin/env bash
#
# run.sh [SECONDS]: coverage-guided fuzzing of the code that reads shared memory (fuzz/src/memory.rs), with libFuzzer and
# AddressSanitizer, beginning from the committed corpus. New inputs go to fuzz/work, crashes to fuzz/artifacts.
#
# Ends with "fuzz: N passed, N failed, N skipped" and says how many inputs ran. The compiler's switches for both are
# "unstable": RUSTC_BOOTSTRAP=1 lets a stable compiler have them. FUZZ_SANITIZER=none does without AddressSanitizer.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds=${1:-60}
sanitizer=${FUZZ_SANITIZER:-address}
target=$(rustc -vV | sed -n 's/^host: //p')
# Shared with the library's own build: what runs on the host (cbindgen) need not be built twice.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../target}
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
[ "$sanitizer" = none ] || flags="$flags -Zsanitizer=$sanitizer"

# shellcheck disable=SC2086,SC2116 # one line, single spaces
if ! RUSTC_BOOTSTRAP=1 RUSTFLAGS=$(echo $flags) nice -n 5 cargo build --quiet --release --locked --target "$target" --features libfuzzer --bin memory; then
    echo 'fuzz: 0 passed, 1 failed, 0 skipped'
    exit 1
fi
program=$CARGO_TARGET_DIR/$target/release/memory

USYSV_DIR=$(mktemp -d /dev/shm/usysv-fuzz.XXXXXX 2>/dev/null || mktemp -d)
export USYSV_DIR
log=$(mktemp)
trap 'rm -rf "$USYSV_DIR" "$log"' EXIT
trap 'exit 130' INT TERM

mkdir -p work artifacts
status=0
# shellcheck disable=SC2086
nice -n 5 "$program" work corpus -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=385 -len_control=0 \
    -artifact_prefix=artifacts/ -print_final_stats=1 -verbosity=1 ${FUZZ_ARGS:-} >"$log" 2>&1 || status=$?
grep -E 'SUMMARY|panicked|artifact|ERROR|deadly|INITED|^stat::|#[0-9]+[[:space:]]+DONE' "$log" || tail -n 20 "$log"
inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
if [ "$status" != 0 ]; then
    tail -n 60 "$log"
    echo 'fuzz: 0 passed, 1 failed, 0 skipped'
    exit 1
fi
if [ "${inputs:-0}" -lt 200 ]; then
    echo "fuzz: only ${inputs:-0} inputs ran"
    echo 'fuzz: 0 passed, 1 failed, 0 skipped'
    exit 1
fi
echo "fuzz: $inputs inputs ran, $(find corpus -type f | wc -l) of them committed ($sanitizer sanitizer)"
echo 'fuzz: 1 passed, 0 failed, 0 skipped'
