#!/bin/sh
# sanitizers.sh: checkers that really run. Each first has to find an error that was made on purpose.
#
#     memcheck  programs of c-tests under Valgrind, with the library preloaded: no error but the known questions (tools/valgrind.supp)
#     asan      programs of c-tests built with AddressSanitizer and UndefinedBehaviorSanitizer, by gcc (the library preloaded behind the
#               run-time library) and by clang (linked with the library)
#     tsan      the library built with ThreadSanitizer, four threads on one queue (fuzz/src/threads.rs)
#     miri      what Miri can run of the unit tests, where it is installed
#
# The library under AddressSanitizer is the fuzzer's (fuzz/run.sh, in hostile.sh); loom's models are in cargo's tests.
#
# Ends with `sanitizers: N passed, N failed, N skipped`.
#
# USYSV_LIB          the library (default target/release/libusysv.so)
# SANITIZERS_FULL=1  all suites that can run there, instead of two of each
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
root=$(dirname -- "$here")
build=$here/build/sanitizers
lib=$(realpath -m "${USYSV_LIB:-${CARGO_TARGET_DIR:-$root/target}/release/libusysv.so}")
passed=0
failed=0
skipped=0
flags="-std=gnu11 -O1 -g -pthread -DROW_SECONDS=120"
suites="receive msgctl"
[ "${SANITIZERS_FULL:-0}" = 0 ] || suites="receive msgctl ids_keys errors blocking capacity"

mkdir -p "$build" || exit 1
if [ ! -e "$lib" ]; then
	echo "FAIL there is no library at $lib"
	echo 'sanitizers: 0 passed, 1 failed, 0 skipped'
	exit 1
fi
work=$(mktemp -d /dev/shm/usysv-sanitizers.XXXXXX 2>/dev/null) || work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-sanitizers.XXXXXX") || exit 1
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

ok() {
	echo "  ok $1"
	passed=$((passed + 1))
}
bad() {
	echo "  FAIL $1"
	failed=$((failed + 1))
}
skip() {
	echo "  SKIPPED $1"
	skipped=$((skipped + 1))
}

# Runs a program in a namespace directory of its own; what it says is in $work/log.
in_directory() { # [VARIABLE=VALUE...] command...
	dir=$(mktemp -d "$work/ns.XXXXXX") || exit 1
	chmod 1777 "$dir"
	env USYSV_DIR="$dir" timeout -k 5 300 env "$@" >"$work/log" 2>&1
	status=$?
	rm -rf "$dir"
	return $status
}

# The error made on purpose must be found, and the program without it must not be objected to.
proves() { # name pattern error command...
	name=$1
	pattern=$2
	error=$3
	shift 3
	if ! in_directory "$@" none || ! grep -q 'to the end' "$work/log"; then
		bad "$name: objects to a program without errors"
		sed 's/^/    /' "$work/log"
	elif in_directory "$@" "$error"; then
		bad "$name: does not notice $error"
	elif grep -q "$pattern" "$work/log"; then
		ok "$name notices $error: $(grep -m 1 "$pattern" "$work/log" | cut -c 1-90)"
	else
		bad "$name: ended, but not because of $error"
		sed 's/^/    /' "$work/log"
	fi
}

# A suite of c-tests, all of whose rows must pass; those that cannot, for a reason of the checker's, are named.
run_suite() { # name excepted command...
	name=$1
	excepted=$2
	shift 2
	in_directory CHECK_LANE=preload CHECK_NOSYSV=1 "$build/nosysv" env "$@"
	status=$?
	rows=$(grep -c '^ok ' "$work/log")
	fails=$(grep '^FAIL ' "$work/log" | while IFS=' :' read -r _ row _; do
		case " $excepted " in
		*" $row "*) ;;
		*) echo "$row" ;;
		esac
	done)
	for row in $excepted; do
		if grep -q "^FAIL $row:" "$work/log"; then
			skip "$name: $row"
		fi
	done
	if [ -n "$fails" ] || [ "$rows" -eq 0 ] || grep -qE '^==[0-9]+== (Invalid|Conditional|Use of|Syscall param)|runtime error' "$work/log"; then
		bad "$name (status $status):" "$fails"
		grep -vE '^ok |sigprocmask' "$work/log" | head -n 60 | sed 's/^/    /'
	else
		ok "$name: $rows rows"
	fi
}

# So that no row can be served by the kernel, whatever the checkers put in between.
# shellcheck disable=SC2086 # words
gcc $flags "$here/tools/nosysv.c" -o "$build/nosysv" || exit 1

# ---- memcheck ----
echo "== memcheck"
if ! command -v valgrind >/dev/null 2>&1; then
	skip "memcheck: no valgrind"
else
	# shellcheck disable=SC2086 # words
	{
		gcc $flags "$here/sanitizers/spoilt.c" -o "$build/spoilt" || bad "build of spoilt.c"
		for s in $suites; do
			gcc $flags "$here/$s.c" -o "$build/$s" || bad "build of $s.c"
		done
	}
	memcheck="valgrind -q --error-exitcode=9 --suppressions=$here/tools/valgrind.supp"
	# shellcheck disable=SC2086 # words
	{
		proves memcheck 'Invalid write' heap LD_PRELOAD="$lib" $memcheck "$build/spoilt"
		proves memcheck 'depends on uninitialised' uninitialised LD_PRELOAD="$lib" $memcheck "$build/spoilt"
		for s in $suites; do
			# Valgrind has no mremap with an old size of 0, by which queues grow beyond 4 MiB, and does not let what a page
			# beyond the end of a file answers through.
			run_suite "memcheck $s" 'megabytes_of_long_messages megabytes_of_short_messages send_from_beyond_file copy_into_beyond_file control_with_beyond_file' \
				LD_PRELOAD="$lib" $memcheck "$build/$s"
		done
	}
fi

# ---- AddressSanitizer and UndefinedBehaviorSanitizer in the host program ----
# Without object-size, which would notice first what AddressSanitizer is to notice.
sanitize="-fsanitize=address,undefined -fno-sanitize=object-size -fno-sanitize-recover=all"
for cc in gcc clang; do
	echo "== asan, $cc"
	# shellcheck disable=SC2086 # words
	if ! command -v $cc >/dev/null 2>&1 || ! echo 'int main(void) { return 0; }' | $cc $sanitize -x c - -o "$work/try" 2>/dev/null; then
		skip "asan: no $cc with the sanitizers"
		continue
	fi
	mkdir -p "$build/$cc"
	link=
	preload="$lib"
	if [ $cc = gcc ]; then
		# The run-time library wants to come first, and ours is preloaded too.
		preload="$(gcc -print-file-name=libasan.so):$lib"
	else
		# Under the name that what is linked will look for.
		ln -sf "$lib" "$build/libusysv.so"
		soname=$(readelf -d "$lib" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
		ln -sf "$lib" "$build/${soname:-libusysv.so}"
		link="-DCHECK_LINKED -I$root/include -L$build -lusysv -Wl,-rpath,$build"
		preload=
	fi
	for s in sanitizers/spoilt $suites; do
		# shellcheck disable=SC2086 # words
		$cc $flags $sanitize "$here/$s.c" -o "$build/$cc/$(basename "$s")" $link || bad "build of $s.c by $cc"
	done
	proves "asan, $cc," 'heap-buffer-overflow' heap LD_PRELOAD="$preload" "$build/$cc/spoilt"
	proves "ubsan, $cc," 'shift exponent' shift LD_PRELOAD="$preload" "$build/$cc/spoilt"
	for s in $suites; do
		# AddressSanitizer checks the arguments of msgsnd itself, and this row gives it bad ones.
		run_suite "asan, $cc, $s" failed_calls_change_nothing LD_PRELOAD="$preload" "$build/$cc/$s"
	done
done

# ---- ThreadSanitizer in the library ----
echo "== tsan"
if ! command -v cargo >/dev/null 2>&1; then
	skip "tsan: no cargo"
else
	target=$(rustc -vV | sed -n 's/^host: //p')
	export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
	# The standard library is not instrumented: threads.rs does without what would be missed of it.
	if RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer' nice -n 5 cargo build --quiet --release --locked \
		--manifest-path "$root/fuzz/Cargo.toml" --target "$target" --bin threads >"$work/log" 2>&1; then
		threads=$CARGO_TARGET_DIR/$target/release/threads
		if in_directory "$threads" race; then
			bad "tsan does not notice a race"
		else
			ok "tsan notices a race: $(grep -m 1 SUMMARY "$work/log" | cut -c 1-90)"
		fi
		if in_directory TSAN_OPTIONS="suppressions=$here/tools/tsan.supp" "$threads" 50000 && grep -q 'messages passed' "$work/log"; then
			ok "tsan: $(grep 'messages passed' "$work/log")"
		else
			bad "tsan, threads"
			head -n 60 "$work/log" | sed 's/^/    /'
		fi
	elif grep -qE 'unsafe-allow-abi-mismatch|sanitizer' "$work/log"; then
		skip "tsan: this compiler cannot: $(grep -m 1 error "$work/log")"
	else
		bad "tsan: build"
		sed 's/^/    /' "$work/log"
	fi
fi

# ---- Miri ----
echo "== miri"
# What needs no system call that Miri does not have, nor assembly: the transaction with threads, layout, names, selectors,
# permissions, numbers. Without `interpose`: it defines `syscall`, which is Miri's own.
miri=
for toolchain in '' +nightly; do
	# shellcheck disable=SC2086 # nothing, or one word
	if [ -z "$miri" ] && cargo $toolchain miri --version >/dev/null 2>&1; then
		miri="cargo $toolchain miri"
	fi
done
if [ -n "$miri" ]; then
	# Several orders of the threads, and values that the memory model lets a load return.
	if MIRIFLAGS=-Zmiri-many-seeds=0..8 $miri test --manifest-path "$root/Cargo.toml" --no-default-features --lib -- \
		txn:: shm::layout semantics namespace::directory::tests::numbers namespace::hints os::sysctl::tests::numbers keys_look exports >"$work/log" 2>&1; then
		ok "miri: $(grep -m 1 '^test result' "$work/log")"
	else
		bad "miri"
		grep -v '^ *at \|^ *[0-9]*: ' "$work/log" | tail -n 40 | sed 's/^/    /'
	fi
else
	skip "miri: the component is not installed (rustup component add miri, on a nightly toolchain)"
fi

echo "sanitizers: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
