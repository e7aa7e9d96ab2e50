#!/usr/bin/env bash
#
# containers.sh: "containers" made by unshare(1), with user, pid, mount and IPC namespaces of their own, share queues by a
# directory that is mounted into each; docs/CONTAINERS.md says how, and this is the proof. Everything runs where the kernel
# answers System V IPC with ENOSYS (tools/nosysv.c).
#
# As root the containers belong to two ordinary users, as rootless containers do; as anybody else to the caller, and what
# needs two users is skipped. Ends with "containers: N passed, N failed, N skipped".
#
# USYSV_LIB                  the library (target/release/libusysv.so)
# USYSV_TOOL                 the tool, which tells who is in a call and who died in one (target/release/usysv)
# USYSV_CONTAINERS_SECONDS   length of the torture with a pid namespace per worker (5)

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
library=$(cd "$root" && realpath -m "${USYSV_LIB:-${CARGO_TARGET_DIR:-target}/release/libusysv.so}")
tool=$(cd "$root" && realpath -m "${USYSV_TOOL:-${CARGO_TARGET_DIR:-target}/release/usysv}")
seconds=${USYSV_CONTAINERS_SECONDS:-5}
work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-containers.XXXXXX")
shared=$(mktemp -d /dev/shm/usysv-containers.XXXXXX)
running=()
# Only what was started here; unshare takes its container with it.
# shellcheck disable=SC2317 # it is a trap
clean_up() {
    [ ${#running[@]} = 0 ] || kill -KILL "${running[@]}" 2>/dev/null || true
    rm -rf "$work" "$shared"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
passed=0
failed=0
skipped=0

# same WHAT EXPECTED GOT
same() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: expected '${2//$'\n'/ | }', came '${3//$'\n'/ | }'"
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1"
}
end() {
    echo "containers: $passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
    exit
}

# What the containers' users must be able to read and run, wherever this tree is.
bin=$work/bin
mkdir "$bin"
chmod 755 "$work" "$bin"
chmod 1777 "$shared"
cc -std=c11 -O1 -Wall -Wextra -Wpedantic -Werror "$here/party.c" -o "$bin/party"
cc -O1 "$root/c-tests/tools/nosysv.c" -o "$bin/nosysv"
cp "$library" "$bin/libusysv.so"

# --- containers ------------------------------------------------------------------------------------------------------

# inside WHERE COMMAND...: what runs in a new container as its process 1: gives it a /dev/shm of its own (1 MiB), and the shared
# directory at a place of its own, /mnt/WHERE.
cat >"$bin/inside" <<END
#!/bin/sh
set -e
mount -t tmpfs -o size=1m,mode=1777 none /dev/shm
mount -t tmpfs none /mnt
mkdir "/mnt/\$1"
mount --bind "\$USYSV_TEST_SHARED" "/mnt/\$1"
[ "\$1" = none ] || export USYSV_DIR="/mnt/\$1"
shift
LD_PRELOAD=$bin/libusysv.so
export LD_PRELOAD
exec "$bin/nosysv" "\$@"
END
chmod 755 "$bin/inside"

# Whose containers they are.
if [ "$(id -u)" = 0 ]; then
    owner_a=(setpriv --reuid 61001 --regid 61001 --clear-groups)
    owner_b=(setpriv --reuid 61002 --regid 61002 --clear-groups)
    two_users=1
else
    # shellcheck disable=SC2034 # used by reference
    owner_a=(env) owner_b=(env)
    two_users=0
fi
namespaces=(unshare --user --map-root-user --pid --fork --kill-child=SIGKILL --mount --mount-proc --ipc)

# The shared directory must stay reachable when /dev/shm is covered: it is bound first, from where it really is. Bind mounts
# follow what is seen at that moment, so "inside" needs a second name for it.
export USYSV_TEST_SHARED=$work/shared
a() { (enter owner_a one "$@"); }
b() { (enter owner_b two "$@"); }
b_as_a() { (enter owner_a two "$@"); }
enter() { # OWNER WHERE COMMAND...
    local -n who=$1
    local place=$2
    shift 2
    exec timeout -k 2 30 "${who[@]}" "${namespaces[@]}" "$bin/inside" "$place" "$@"
}
# start NAME FUNCTION COMMAND...: in the background; its output goes to NAME.out, its process, as seen from here, to $inner.
start() {
    local name=$1 outer
    shift
    "$@" >"$work/$name.out" 2>&1 &
    running+=($!)
    outer=$!
    inner=
    for _ in $(seq 200); do
        inner=$(first_inside "$outer")
        [ -z "$inner" ] || return 0
        sleep 0.02
    done
    echo "  $name does not start: $(cat "$work/$name.out")"
}
# first_inside PROCESS: the descendant that is process 1 of its pid namespace (below bash, timeout and unshare).
first_inside() {
    local process=$1
    while [ -n "$process" ]; do
        if grep -qE '^NSpid:.*[[:space:]][0-9]+[[:space:]]1$' "/proc/$process/status" 2>/dev/null; then
            echo "$process"
            return
        fi
        process=$(cut -d ' ' -f 1 "/proc/$process/task/$process/children" 2>/dev/null || true)
    done
}
# asleep PROCESS: waits until it runs party and sleeps in its call.
asleep() {
    local _
    for _ in $(seq 250); do
        if [ "$(cat "/proc/$1/comm" 2>/dev/null)" = party ] && [ "$(awk '{ print $3 }' "/proc/$1/stat" 2>/dev/null)" = S ]; then
            sleep 0.05
            return
        fi
        sleep 0.02
    done
    echo "  process $1 does not fall asleep"
}
# finish NAME: waits for what was started last; $answer is what it said.
finish() {
    wait "${running[-1]}" 2>/dev/null || true
    unset 'running[-1]'
    answer=$(cat "$work/$1.out")
}

mkdir "$work/shared"
if ! mount --bind "$shared" "$work/shared" 2>/dev/null; then
    # Not root: no second name by a mount. The directory itself then lies outside of /dev/shm.
    rm -rf "$shared"
    shared=$work/shared
    chmod 1777 "$shared"
    echo "note: the shared directory is on $(df --output=fstype "$shared" | tail -n 1)"
else
    trap 'umount "$work/shared" 2>/dev/null; clean_up' EXIT
fi
if ! a true 2>"$work/log"; then
    skip "no user, pid, mount and IPC namespaces here: $(tail -n 1 "$work/log")"
    failed=1 # a lane that ran nothing shows nothing
    [ "${USYSV_CONTAINERS_OPTIONAL:-0}" = 0 ] || failed=0
    end
fi

# --- they are containers ---------------------------------------------------------------------------------------------

here_now=$("$bin/party" where)
# Both at once: the number of a namespace that is gone is given again.
start from_a a "$bin/party" where 20
until grep -q process "$work/from_a.out"; do sleep 0.01; done
from_b=$(b "$bin/party" where)
kill -KILL "$inner"
finish from_a
from_a=$answer
same 'user, pid, mount and IPC namespaces: all four differ between this shell, one container and the other' 12 \
    "$(printf '%s\n' "$here_now" "$from_a" "$from_b" | grep '\[' | sort -u | wc -l)"
same 'both parties are process 1: their thread ids are equal' $'process 1\nprocess 1' \
    "$(printf '%s\n' "$from_a" "$from_b" | grep process)"
same 'the kernel has no queues for them' ENOSYS \
    "$( (enter owner_a one env -u LD_PRELOAD "$bin/party" create 1) | sed 's/.*: //' || true)"

# --- sharing ---------------------------------------------------------------------------------------------------------

key=0x5150
same 'one container makes a queue that everybody may use' '' "$(a "$bin/party" create $key 0666)"
same 'and sends' '' "$(a "$bin/party" send $key 'from one')"
same 'the other receives, by another path' 'from one' "$(b "$bin/party" take $key)"
same 'and the other way round' 'from two' "$(b "$bin/party" send $key 'from two' && a "$bin/party" take $key)"
start sleeper b "$bin/party" recv $key
asleep "$inner"
a "$bin/party" send $key 'wake up'
finish sleeper
same 'a sleeper in one is woken by the other' 'wake up' "$answer"
same 'a directory that is not shared is another namespace' 'msgget: ENOENT' \
    "$( (enter owner_a none "$bin/party" look $key) || true)"

# --- kill ------------------------------------------------------------------------------------------------------------

# participants: who is in a call on the queue, and who died in one, as seen from outside of both containers.
participants() { "$tool" --dir "$shared" show $key | sed -n 's/^participants *//p'; }
if [ ! -x "$tool" ]; then
    skip "no $tool: whether the kernel marks the dead was not looked at"
    participants() { :; }
fi
lost=0
noticed=''
for round in $(seq 8); do
    start victim b "$bin/party" recv $key
    asleep "$inner"
    noticed+="$(participants) / "
    kill -KILL "$inner"
    finish victim
    noticed+="$(participants)"$'\n'
    a "$bin/party" send $key "round $round"
    [ "$(a "$bin/party" look $key)" = '1 messages, mode 666' ] || lost=$((lost + 1))
    [ "$(b "$bin/party" take $key)" = "round $round" ] || lost=$((lost + 1))
done
same 'a receiver that was killed in its sleep gets no message, though the sender has the same thread id' 0 "$lost"
if [ -x "$tool" ]; then
    same 'its death is marked at once, each time, and the next call puts it in order' \
        '1 in a call, room for 3 / 0 in a call, room for 3, 1 died and will be put in order by the next call' \
        "$(sort -u <<<"${noticed%$'\n'}")"
fi

slow=0
for round in $(seq 8); do
    start busy b "$bin/party" busy $key
    until grep -q busy "$work/busy.out"; do sleep 0.01; done
    kill -KILL "$inner"
    finish busy
    [ "$(a "$bin/party" rounds $key 200)" = 'all within a second' ] || slow=$((slow + 1))
done
same 'one that was killed in the middle of a call holds up nobody' 0 "$slow"
if [ -x "$tool" ]; then
    same 'and what it held is found' '0 in a call' "$(participants | cut -d , -f 1)"
fi
# At most one message of each victim may be in the queue: it was killed between sending and receiving.
left=$(a "$bin/party" look $key)
same 'and leaves at most what it had sent' yes "$([ "${left%% *}" -le 8 ] && echo yes || echo "$left")"
while a "$bin/party" take $key >"$work/log"; do :; done
same 'until that is taken' 'msgrcv: ENOMSG' "$(cat "$work/log")"

# --- stop ------------------------------------------------------------------------------------------------------------

start busy b "$bin/party" busy $key
until grep -q busy "$work/busy.out"; do sleep 0.01; done
slow=0
for round in $(seq 10); do
    kill -STOP "$inner"
    [ "$(a "$bin/party" rounds $key 500)" = 'all within a second' ] || slow=$((slow + 1))
    kill -CONT "$inner"
    sleep "0.0$((round % 5))"
done
same 'a container that is paused in the middle of a call holds up nobody' 0 "$slow"
kill -KILL "$inner"
finish busy
while a "$bin/party" take $key >"$work/log"; do :; done

start paused b "$bin/party" recv $key
asleep "$inner"
kill -STOP "$inner"
same 'a receiver in a paused container is not given messages' '1 messages, mode 666' \
    "$(a "$bin/party" send $key first && a "$bin/party" look $key)"
same 'somebody else gets them' first "$(a "$bin/party" take $key)"
kill -CONT "$inner"
a "$bin/party" send $key second
finish paused
same 'it gets the next when it goes on' second "$answer"

start sleeper b "$bin/party" recv $key
asleep "$inner"
a "$bin/party" remove $key
finish sleeper
same 'removed by one, the sleeper in the other hears of it' 'msgrcv: EIDRM' "$answer"

# --- permissions -----------------------------------------------------------------------------------------------------

a "$bin/party" create $key 0600
a "$bin/party" send $key private
if [ $two_users = 1 ]; then
    no() { (enter owner_b two "$bin/party" "$@") || true; }
    same "0600: the other user's container may not receive, root in it or not" 'msgrcv: EACCES' "$(no take $key)"
    same 'nor send' 'msgsnd: EACCES' "$(no send $key intruder)"
    same 'nor look' 'IPC_STAT: EACCES' "$(no look $key)"
    removal=$(no remove $key)
    same 'nor remove it' yes "$([[ $removal =~ ^IPC_RMID:\ E(PERM|ACCES)$ ]] && echo yes || echo "$removal")"
    # shellcheck disable=SC2016 # the container's own variable
    same 'nor open its files' '' "$( (enter owner_b two sh -c 'cat "$USYSV_DIR"/usysv.b.* 2>/dev/null') || true)"
    # shellcheck disable=SC2016
    same 'nor delete them' 1 "$( (enter owner_b two sh -c 'rm -f "$USYSV_DIR"/usysv.b.* 2>/dev/null; ls "$USYSV_DIR" | grep -c usysv.b') || true)"
else
    skip 'not root: no containers of two users'
fi
same "0600: another container of the same user may" private "$(b_as_a "$bin/party" take $key)"
a "$bin/party" remove $key

# Both are root inside, which is to say user 0: the numbers are equal, the users are not.
if [ $two_users = 1 ]; then
    a "$bin/party" create $key 0622
    a "$bin/party" send $key 'for one only'
    same '0622: the other user may send, root in its container and numbered like the owner or not' '' "$(no send $key 'from outside')"
    same 'but not receive' 'msgrcv: EACCES' "$(no take $key)"
    same 'nor look' 'IPC_STAT: EACCES' "$(no look $key)"
    same 'nor remove it' 'IPC_RMID: EPERM' "$(no remove $key)"
    same 'the owner may, also after that' 'for one only' "$(a "$bin/party" take $key)"
    a "$bin/party" remove $key
else
    skip 'not root: no two users with the same number'
fi

# --- a small /dev/shm ------------------------------------------------------------------------------------------------

same '1 MiB of /dev/shm, the default directory: full is ENOMEM, and no signal' 'full: ENOMEM, three times the same' \
    "$( (enter owner_a none "$bin/party" fill) 2>&1 || echo "status $?")"

# --- faults with equal thread ids, at random moments -------------------------------------------------------------------

if [ "$(id -u)" = 0 ]; then
    cc -std=gnu11 -O2 -Wall -Wextra -Wpedantic -Werror -pthread "$root"/c-tests/torture/*.c -o "$bin/torture" -ldl -lm
    status=0
    USYSV_DIR=$shared USYSV_EXPECT=preload LD_PRELOAD=$bin/libusysv.so \
        timeout -k 5 $((seconds + 60)) "$bin/torture" --containers --seconds "$seconds" >"$work/torture.out" 2>&1 || status=$?
    sed 's/^/  /' "$work/torture.out"
    same 'torture, each worker alone in its pid namespace: 12 of 12' '0 torture: 12 passed, 0 failed, 0 skipped' \
        "$status $(tail -n 1 "$work/torture.out")"
else
    skip 'not root: no torture with pid namespaces'
fi
end
