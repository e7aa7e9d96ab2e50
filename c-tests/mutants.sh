#!/bin/sh
# mutants.sh: breaks the library on purpose, one promise at a time, and sees that the fault tests notice. A test that
# passes on a broken library shows nothing when it passes on a whole one.
#
# Each mutant is a copy of the sources with one place changed, built beside the real one, and one program that must fail
# on it. Ends with `mutants: N passed, N failed, N skipped`; passed is noticed.
#
#     c-tests/mutants.sh [NAME...]    all mutants, or those named
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
root=$(dirname "$here")
build=$here/build
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
chosen=" $* "
passed=0
failed=0

mkdir -p "$build" "$work/tree"
flags="-std=gnu11 -O2 -g -Wall -Wextra -pthread"
# shellcheck disable=SC2086 # the flags are words
${CC:-cc} $flags -o "$build/everystep" "$here"/everystep/*.c -ldl &&
	${CC:-cc} $flags -o "$build/torture" "$here"/torture/*.c -ldl -lm &&
	${CC:-cc} $flags -o "$build/namesakes" "$here/namesakes/namesakes.c" -ldl || exit 1

# mutant NAME FILE FROM TO PROGRAM ARGUMENT...: FROM is the start of a line's text, which becomes TO.
mutant() {
	name=$1 file=$2 from=$3 to=$4
	shift 4
	case $chosen in
	"  " | *" $name "*) ;;
	*) return ;;
	esac
	rm -rf "$work/tree" "$work/ns"
	mkdir "$work/tree" "$work/ns"
	cp -r "$root/Cargo.toml" "$root/Cargo.lock" "$root/build.rs" "$root/cbindgen.toml" "$root/src" "$root/include" "$work/tree" || exit 1
	for more in benches tests examples README.md; do
		[ ! -e "$root/$more" ] || cp -r "$root/$more" "$work/tree"
	done
	if ! FROM=$from TO=$to perl -0pi -e '$n = s/\Q$ENV{FROM}\E/$ENV{TO}/; END { exit !$n }' "$work/tree/$file"; then
		echo "FAIL $name: there is no \"$from\" in $file"
		failed=$((failed + 1))
		return
	fi
	if ! (cd "$work/tree" && CARGO_TARGET_DIR=$build/mutants cargo build --quiet --release --lib 2>"$work/log"); then
		echo "FAIL $name: does not build"
		sed 's/^/  /' "$work/log"
		failed=$((failed + 1))
		return
	fi
	program=$1
	shift
	USYSV_DIR=$work/ns USYSV_EXPECT=preload LD_PRELOAD=$build/mutants/release/libusysv.so \
		timeout -k 5 120 "$build/$program" "$@" >"$work/log" 2>&1
	status=$?
	if [ "$status" -ne 0 ] && [ "$status" -ne 124 ] && grep -q '^FAIL' "$work/log"; then
		echo "ok $name is noticed: $(grep -m 1 '^FAIL' "$work/log" | cut -c 1-140)"
		passed=$((passed + 1))
	else
		echo "FAIL $name goes unnoticed (status $status)"
		tail -n 3 "$work/log" | sed 's/^/  /'
		failed=$((failed + 1))
	fi
}

# The kernel is told of nothing: who dies in an operation keeps its participant.
mutant pending src/os/thread.rs \
	'head.pending.store(value, Ordering::Relaxed);' 'let _ = value;' \
	everystep --seconds 40 --seed 3 --only create --fault kill
# A helper does not finish what another has committed.
mutant help src/txn/mod.rs \
	'if applied {' 'if applied || self.cur != 0 {' \
	everystep --seconds 40 --seed 3 --only receive-type --fault kill
# What a jump left is not healed.
mutant jump src/os/frames.rs \
	'thread::is_gone(frame.stack.get(), here).then_some((number as u8, frame))' 'None' \
	torture --seconds 15 --seed 3 --no-kill --no-stop
# The child of a fork in the middle goes on with its parent's participant.
mutant fork src/os/thread.rs \
	'disown(object);' '' \
	everystep --seconds 60 --seed 3 --only receive-blocked --fault fork
# The call that was forked in its middle is not made again.
mutant again src/os/thread.rs \
	'.get()) >= core::hint::black_box(&self.0).get()' '.get()) > u64::MAX - 1' \
	everystep --seconds 60 --seed 3 --only receive-head --fault fork
# Nor is it kept from a success before that.
mutant anew src/namespace/attachments.rs \
	'caller().is_disowned()' 'false' \
	everystep --all --stride 1 --only send-short --fault fork
# Handlers run in the middle of a creation.
mutant held src/os/signals.rs \
	'HeldBack(set_mask(!FAULTS))' 'HeldBack(set_mask(0))' \
	everystep --seconds 60 --seed 3 --only create --fault jump
# Nobody sees that a creator is gone whose death was not marked, nor one that was.
mutant bury src/queue/mod.rs \
	'bury(settings);
                true' 'true' \
	everystep --seconds 60 --seed 3 --only create --fault kill
# A receiver that is not asleep keeps the message that it was handed.
mutant takeback src/queue/send.rs \
	'waiters::take_back(tx, handover, seat.index())?' 'waiters::take_back(tx, handover, seat.index())? && false' \
	everystep --seconds 60 --seed 3 --only receive-blocked --fault stop
# A thread points at a participant before it claims it, though several pid namespaces use the queue.
mutant namesake src/txn/seat.rs \
	'mine == 0 || (known != mine && !is_first(memory, mine))' 'known == 1 && is_first(memory, mine)' \
	namesakes --seconds 20 --seed 3

echo "mutants: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
