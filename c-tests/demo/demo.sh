#!/usr/bin/env bash
#
# demo.sh: four ordinary message queue programs talk to each other on a kernel that has no message queues.
#
#     make demo                         builds what is needed and runs this
#     USYSV_DEMO_NATIVE=1 make demo     the same programs on the kernel's own queues (no preload, no sandbox): what
#                                       the answers should look like, and whether this script is right
#
# Everything happens in a namespace of its own, which is gone at the end. Every program has 20 seconds. Exit status
# 0 only if every answer was right.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$root/c-tests/build
library=$(cd "$root" && realpath -m "${USYSV_LIB:-${CARGO_TARGET_DIR:-target}/release/libusysv.so}")
limit=20

native=${USYSV_DEMO_NATIVE:-0}
if [ "$native" = 1 ] && [ -z "${USYSV_DEMO_UNSHARED:-}" ]; then
    # The kernel's namespace for the time of the demo, so as to meet nobody else's queues and to leave none.
    export USYSV_DEMO_UNSHARED=1
    if unshare --ipc true 2>/dev/null; then
        exec unshare --ipc "$0"
    fi
    exec unshare --user --map-root-user --ipc "$0"
fi

# ---------------------------------------------------------------------------------------------- what we talk with

good='' bad='' off=''
if [ -t 1 ]; then
    good=$'\e[32m' bad=$'\e[31m' off=$'\e[0m'
fi
passed=0
failed=0
skipped=0

title() { printf '\n%s\n' "$1"; }
say() { printf '   %s\n' "$1"; }

# typed COMMAND [REMARK]: shows what is run.
typed() { printf '   $ %s%s\n' "$1" "${2:+        # $2}"; }

# check WHAT EXPECTED GOT: counts, and shows both sides if they differ.
check() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        say "${good}✓${off} $1"
    else
        failed=$((failed + 1))
        say "${bad}✗ $1${off}"
        say "    expected: ${2//$'\n'/ | }"
        say "    got:      ${3//$'\n'/ | }"
    fi
}

skip() {
    skipped=$((skipped + 1))
    say "skipped: $1"
}

# ------------------------------------------------------------------------------------------------ where and how

for need in tools/nosysv demo/client demo/server demo/sender demo/receiver demo/client-linked; do
    if [ ! -x "$bin/$need" ]; then
        echo "demo.sh: $bin/$need is not built; \`make demo\` does it" >&2
        exit 2
    fi
done
if [ "$native" != 1 ] && [ ! -f "$library" ]; then
    echo "demo.sh: $library is not built; \`make demo\` does it" >&2
    exit 2
fi

memory=/dev/shm
if [ ! -d "$memory" ] || [ ! -w "$memory" ]; then
    memory=${TMPDIR:-/tmp}
fi
namespace=$(mktemp -d "$memory/usysv-demo.XXXXXX")
work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-demo-work.XXXXXX")
running=()

clean_up() {
    if [ ${#running[@]} -gt 0 ]; then
        kill "${running[@]}" 2>/dev/null || true
    fi
    rm -rf "$namespace" "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The programs look for "key" in the current directory, and start like ./client.
cd "$work"
ln -s "$bin"/demo/{client,server,sender,receiver,client-linked} .

# One process per program, so the terminal's signals may reach it and the limit still ends it.
within_limit() { timeout --foreground -k 2 "$limit" "$@"; }

# bare PROGRAM...: in the sandbox, without the library. preloaded, linked: with it, in either way.
if [ "$native" = 1 ]; then
    bare() { within_limit "$@"; }
    preloaded() { within_limit "$@"; }
    prefix=''
else
    bare() { within_limit "$bin/tools/nosysv" "$@"; }
    preloaded() {
        within_limit "$bin/tools/nosysv" env USYSV_DIR="$namespace" LD_PRELOAD="$library" "$@"
    }
    linked() {
        within_limit "$bin/tools/nosysv" env USYSV_DIR="$namespace" LD_LIBRARY_PATH="${library%/*}" "$@"
    }
    prefix='LD_PRELOAD=libusysv.so '
fi

# start NAME HOW PROGRAM...: in the background, input from NAME.in if there is one, output to NAME.out.
start() {
    local name=$1 how=$2 input=/dev/null
    shift 2
    [ ! -f "$name.in" ] || input=$name.in
    "$how" "$@" <"$input" >"$name.out" 2>&1 &
    running+=($!)
}

# finish PROCESS: waits for it and returns its exit status, 124 after the time limit.
finish() {
    local status=0
    wait "$1" || status=$?
    [ "$status" != 124 ] || say "(gave up after $limit seconds)"
    return "$status"
}

# finish_all: every one that runs; the worst status.
finish_all() {
    local process worst=0 status
    for process in "${running[@]}"; do
        status=0
        finish "$process" || status=$?
        [ "$status" -le "$worst" ] || worst=$status
    done
    running=()
    return "$worst"
}

# numbers ID STEP: the five numbers client ID sends, each plus STEP.
numbers() {
    local first=$(($1 * 100 + $2))
    echo $((first + 1)) $((first + 2)) $((first + 3)) $((first + 4)) $((first + 5))
}

# answers ID: what client ID printed, in one line.
answers() { xargs <"client$1.out"; }

# three_clients HOW PROGRAM: starts clients 1, 2 and 3, each with its five numbers.
three_clients() {
    local id
    for id in 1 2 3; do
        numbers "$id" 0 | tr ' ' '\n' >"client$id.in"
        start "client$id" "$1" "$2" "$id"
        typed "${3}$2 $id &" "sends $(numbers "$id" 0)"
    done
}

check_three_clients() {
    local id status=0
    finish_all || status=$?
    check 'the server and all three clients ended by themselves' 0 "$status"
    for id in 1 2 3; do
        check "client $id got back $(answers "$id")" "$(numbers "$id" 8)" "$(answers "$id")"
    done
}

# ------------------------------------------------------------------------------------------------------ the demo

if [ "$native" = 1 ]; then
    echo 'The demo on the kernel itself (USYSV_DEMO_NATIVE=1): no library, no sandbox.'
else
    echo 'System V message queues on a kernel that has none.'

    title '1. The sandbox: a seccomp filter answers every System V IPC call with ENOSYS.'
    typed 'nosysv --probe'
    status=0
    "$bin/tools/nosysv" --probe >probe.out 2>&1 || status=$?
    say "$(awk '{ printf "%s%s", sep, $1; sep = " " }' probe.out)"
    check 'the kernel answers each of these twelve: Function not implemented' \
        '0 12' "$status $(grep -c 'Function not implemented$' probe.out || true)"
    typed './receiver'
    status=0
    bare ./receiver >receiver.out 2>&1 || status=$?
    check "without the library it says: $(cat receiver.out)" 'msgget: Function not implemented' "$(cat receiver.out)"
    typed "./client 1" "sends $(numbers 1 0)"
    numbers 1 0 | tr ' ' '\n' >client1.in
    bare ./client 1 <client1.in >client1.out 2>&1 || true
    check 'without the library no answer comes: it prints its own numbers again' "$(numbers 1 0)" "$(answers 1)"
fi

title '2. A server and three clients at once. Each client sends five numbers and wants each back plus 8.'
touch key
typed "$prefix./server &"
start server preloaded ./server
three_clients preloaded ./client "$prefix"
check_three_clients

title '3. The clients first, and no file "key": ftok fails, and its -1 is the key.'
rm key
three_clients preloaded ./client "$prefix"
sleep 0.5
typed "$prefix./server &"
start server preloaded ./server
check_three_clients

title '4. A sender, then a receiver, which removes the queue.'
hello='received: Hello Message Queue!'
end='received the end mark'
absent='msgget: No such file or directory'
typed "$prefix./receiver"
check "before anything was sent: $absent" "$absent" "$(preloaded ./receiver 2>&1 || true)"
typed "$prefix./sender; $prefix./receiver"
preloaded ./sender >sender.out 2>&1 || true
check 'the sender has nothing to complain of' '' "$(cat sender.out)"
check "the receiver prints \"$hello\" and \"$end\"" "$hello"$'\n'"$end" "$(preloaded ./receiver 2>&1 || true)"
typed "$prefix./receiver"
check "and the queue is gone: $absent" "$absent" "$(preloaded ./receiver 2>&1 || true)"

title '5. Three senders at once, then a receiver, which stops at the first end mark.'
for id in 1 2 3; do
    start "sender$id" preloaded ./sender
    typed "$prefix./sender &"
done
status=0
finish_all || status=$?
check 'the senders ended by themselves and had nothing to complain of' '0 ' "$status $(cat sender?.out)"
typed "$prefix./receiver"
preloaded ./receiver >receiver.out 2>&1 || true
greetings=$(grep -cxF "$hello" receiver.out || true)
expected=$end
for ((i = 0; i < greetings; i++)); do
    expected=$hello$'\n'$expected
done
if [ "$greetings" -lt 1 ] || [ "$greetings" -gt 3 ]; then
    expected="1 to 3 times $hello"$'\n'$end
fi
check "the receiver prints \"$hello\" ($greetings of 1 to 3) and \"$end\"" "$expected" "$(cat receiver.out)"

title '6. Linked instead of preloaded, talking to a server that is preloaded.'
if [ "$native" = 1 ]; then
    skip 'the kernel needs no library to link'
else
    typed 'cc client.c -include usysv.h -Iinclude -Ltarget/release -lusysv -o client-linked'
    typed "$prefix./server &"
    start server preloaded ./server
    three_clients linked ./client-linked 'LD_LIBRARY_PATH=target/release '
    check_three_clients
fi

# --------------------------------------------------------------------------------------------------- the verdict

echo
if [ "$failed" -gt 0 ]; then
    echo "${bad}✗ $failed of $((passed + failed)) checks failed.${off}"
elif [ "$native" = 1 ]; then
    echo "${good}✓ All $passed checks right, on the kernel's own queues.${off}"
else
    echo "${good}✓ All $passed checks right. The kernel answered every System V IPC call with ENOSYS, and the programs did not notice.${off}"
fi
echo "usysv: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
