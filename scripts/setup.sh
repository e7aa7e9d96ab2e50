#!/usr/bin/env bash
#
# setup.sh demo|test|bench|ci: looks for the tools that `make demo`, `make test`, `make bench` or .ci/run need.
#
# Says nothing where all is there. As root on Debian or Ubuntu it installs what is missing; elsewhere it prints the one
# line to type and fails. Tools that only some tests use are asked for but not insisted on: those tests say "skipped".

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:${HOME:-/root}/.cargo/bin

purpose=${1:-}
case $purpose in
demo) wanted=() ;;
test) wanted=(clang valgrind strace python3 cmake pkg-config) ;;
bench) wanted=(clang python3) ;;
ci) wanted=(clang valgrind strace cmake pkg-config mandoc lintian rsvg-convert shellcheck) ;;
*)
    echo 'usage: setup.sh demo|test|bench|ci' >&2
    exit 2
    ;;
esac

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'setup: %s\n' "$*" >&2; }

# type_this LINE: what the user can do about it, and the end.
type_this() {
    say 'type this line, then try again:'
    printf '\n    %s\n\n' "$1" >&2
    exit 1
}

# at_least WANTED FOUND: versions.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

is_root() { [ "$(id -u)" = 0 ]; }

updated=0
apt_update() {
    if [ "$updated" = 0 ]; then
        apt-get update -qq || say 'apt-get update failed; trying with the package lists that are there'
        updated=1
    fi
}
apt_install() {
    apt_update
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
# The version that apt would install, or nothing.
apt_candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9][^ ]*\).*/\1/p'; }

# --- C compiler and make ---------------------------------------------------------------------------------------------

# A compiler without the C library's headers is as good as none.
compiles() { have cc && echo '#include <sys/msg.h>' | cc -fsyntax-only -x c - 2>/dev/null; }
compiles_cpp() { have c++ && echo '#include <sys/msg.h>' | c++ -fsyntax-only -x c++ - 2>/dev/null; }

tools_missing() {
    if ! compiles; then
        echo 'a C compiler with its headers'
    elif [ "$purpose" != demo ] && ! compiles_cpp; then
        echo 'a C++ compiler'
    elif ! have make; then
        echo 'make'
    fi
}

missing=$(tools_missing)
if [ -n "$missing" ]; then
    say "missing: $missing"
    if have apt-get; then
        is_root || type_this 'sudo apt-get update && sudo apt-get install -y build-essential'
        apt_install build-essential
    elif have dnf; then
        type_this 'sudo dnf install -y gcc gcc-c++ make'
    elif have pacman; then
        type_this 'sudo pacman -S --needed base-devel'
    elif have zypper; then
        type_this 'sudo zypper install -y gcc gcc-c++ make'
    else
        say "install $missing with your system's package manager, then try again"
        exit 1
    fi
    missing=$(tools_missing)
    if [ -n "$missing" ]; then
        say "still missing after installing build-essential: $missing"
        exit 1
    fi
fi

# --- Rust ------------------------------------------------------------------------------------------------------------

rust_wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' Cargo.toml)
rustup_line="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

rust_found() { have cargo && cargo --version 2>/dev/null | awk '{ print $2 }'; }

if ! found=$(rust_found) || [ -z "$found" ]; then
    say "missing: cargo (Rust $rust_wanted or newer)"
    if is_root && have apt-get && ! have rustup; then
        apt_update
        candidate=$(apt_candidate cargo)
        if [ -n "$candidate" ] && at_least "$rust_wanted" "${candidate#*:}"; then
            apt_install cargo
        elif [ -n "$(apt_candidate rustup)" ]; then
            apt_install rustup ca-certificates
        else
            say "this system's cargo package is too old: ${candidate:-none}, and $rust_wanted is needed"
        fi
    fi
    if have rustup; then
        # There, but without a compiler of its choice.
        if ! is_root || ! rustup default stable >&2; then
            type_this 'rustup default stable'
        fi
    fi
    if ! found=$(rust_found) || [ -z "$found" ]; then
        if ! have curl && have apt-get; then
            sudo=''
            is_root || sudo='sudo '
            rustup_line="${sudo}apt-get install -y curl && $rustup_line"
        fi
        type_this "$rustup_line"
    fi
fi
if ! at_least "$rust_wanted" "${found%%-*}"; then
    say "cargo $found is too old: Rust $rust_wanted or newer is needed"
    if have rustup; then
        type_this 'rustup update stable && rustup default stable'
    fi
    type_this "$rustup_line"
fi
if [ "$purpose" = ci ]; then
    for component in fmt clippy; do
        if ! cargo "$component" --version >/dev/null 2>&1; then
            say "missing: cargo $component"
            have rustup || type_this "$rustup_line"
            rustup component add "${component/#fmt/rustfmt}" >&2
        fi
    done
    # For one test, which says so if it is not there.
    if have rustup && rustup toolchain list | grep -q '^nightly' && ! cargo +nightly miri --version >/dev/null 2>&1; then
        rustup component add --toolchain nightly miri rust-src >&2 || say 'skipped: no Miri'
    fi
fi

# --- tools of single tests -------------------------------------------------------------------------------------------

absent=()
for tool in "${wanted[@]}"; do
    have "$tool" || absent+=("$tool")
done
if [ ${#absent[@]} -gt 0 ]; then
    if is_root && have apt-get; then
        say "installing ${absent[*]}"
        packages=("${absent[@]/#rsvg-convert/librsvg2-bin}")
        # valgrind cannot start without the symbols of the dynamic loader.
        case " ${absent[*]} " in *' valgrind '*) packages+=(libc6-dbg) ;; esac
        # Its sanitizers' libraries come apart.
        case " ${absent[*]} " in *' clang '*) packages+=(libclang-rt-dev) ;; esac
        apt_install "${packages[@]}" || true
    fi
    for tool in "${absent[@]}"; do
        have "$tool" || say "skipped: no $tool, so the tests that need it will not run"
    done
fi

# --- real programs (c-tests/programs) --------------------------------------------------------------------------------

# Only for CI: they are many. Each is a command and the packages that bring it; a test whose program is not there skips.
if [ "$purpose" = ci ]; then
    packages=()
    while read -r command names; do
        # shellcheck disable=SC2206 # the names are words
        have "$command" || packages+=($names)
    done <<'END'
stress-ng stress-ng
php php-cli
lua5.3 lua5.3 lua-posix
fakeroot-sysv fakeroot
perl perl
python3 python3 python3-dev python3-pip python3-setuptools
END
    if [ ${#packages[@]} -gt 0 ] && is_root && have apt-get; then
        say "installing ${packages[*]}"
        apt_install "${packages[@]}" || say 'not all could be installed: the tests of those that are not there skip'
    fi
    c-tests/programs/prepare.sh
fi

# --- what the benchmark compares with --------------------------------------------------------------------------------

if [ "$purpose" = bench ]; then
    compiles_boost() { echo '#include <boost/interprocess/ipc/message_queue.hpp>' | c++ -fsyntax-only -x c++ - 2>/dev/null; }
    if ! compiles_boost; then
        if is_root && have apt-get; then
            say 'installing libboost-dev'
            apt_install libboost-dev || true
        fi
        compiles_boost || say 'skipped: no Boost.Interprocess headers (libboost-dev), so it will not be compared with'
    fi
fi
