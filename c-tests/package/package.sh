#!/usr/bin/env bash
#
# package.sh: what a packager and a C or C++ programmer do: make install into a temporary root, build programs against
# what was installed through pkg-config and through CMake, shared and static, and run them where the kernel has no
# System V IPC; make uninstall; the Debian package: lintian, then installed, used and removed on a copy of this system
# that an overlay makes and nobody else sees. Ends with "package: N passed, N failed, N skipped".

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
here=c-tests/package
target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-package.XXXXXX")
queues=$(mktemp -d /dev/shm/usysv-package.XXXXXX 2>/dev/null || mktemp -d "${TMPDIR:-/tmp}/usysv-package.XXXXXX")
trap 'rm -rf "$work" "$queues"' EXIT
trap 'exit 130' INT TERM
export USYSV_DIR=$queues
# shellcheck source=c-tests/count.sh
. c-tests/count.sh

# try WHAT COMMAND...: counts, and shows what the command said if it failed.
try() {
    local what=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        ok "$what"
    else
        bad "$what ($*)"
        sed 's/^/    /' "$work/log"
    fi
}
# same WHAT EXPECTED GOT
same() {
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        bad "$1"
        diff <(echo "$2") <(echo "$3") | sed 's/^/    /' || true
    fi
}
have() { command -v "$1" >/dev/null 2>&1; }

# Where no System V call can reach the kernel, so that what works works through the library.
cc -O1 c-tests/tools/nosysv.c -o "$work/nosysv"
bare() { timeout -k 2 20 "$work/nosysv" "$@"; }

# names FILE [NM-OPTION...]: the global names it defines.
names() {
    local file=$1
    shift
    nm "$@" --defined-only -g "$file" | awk 'NF == 3 { print $3 }' | sort -u
}
export LC_ALL=C

# --- what is exported ------------------------------------------------------------------------------------------------

make --no-print-directory installable >"$work/build" 2>&1 || {
    cat "$work/build"
    bad 'make installable'
}
same 'the shared library exports what packaging/exports.txt lists and nothing else' \
    "$(sort packaging/exports.txt)" "$(names "$target/release/libusysv.so" -D)"
same 'the static library defines what packaging/exports-static.txt lists and nothing else' \
    "$(sort packaging/exports-static.txt)" "$(names "$target/package/libusysv.a")"
major=$(sed -n 's/^version *= *"\([0-9]*\).*/\1/p' Cargo.toml | head -n 1)
same 'the soname has the major version' "libusysv.so.$major" \
    "$(readelf -d "$target/release/libusysv.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')"
same 'it asks for no library but libc, libgcc_s and the dynamic linker' '' \
    "$(readelf -d "$target/release/libusysv.so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' |
        grep -vE '^(libc\.so\.6|libgcc_s\.so\.1|ld-linux.*)$' || true)"

# --- installing, staged and not --------------------------------------------------------------------------------------

staged=$work/staged
prefix=$work/prefix
try 'make install DESTDIR=... PREFIX=/usr' \
    make --no-print-directory install DESTDIR="$staged" PREFIX=/usr LIBDIR=/usr/lib/somewhere
try 'make install PREFIX=...' make --no-print-directory install PREFIX="$prefix"
same 'no installed text names the staging directory or this tree' '' \
    "$(grep -rlIF -e "$staged" -e "$root" "$staged" || true)"
same 'every file can be read by everybody' '' "$(find "$prefix" -type f ! -perm -444)"
files() { (cd "$1" && find . ! -type d | sort); }
same 'both installed the same files' "$(files "$prefix" | sed 's|^\./lib/|&somewhere/|')" \
    "$(files "$staged" | sed 's|^\./usr/|./|')"
for file in lib/libusysv.so lib/libusysv.so."$major" lib/libusysv.a lib/pkgconfig/usysv.pc include/usysv.h \
    lib/cmake/usysv/usysvConfig.cmake share/man/man3/libusysv.3 share/man/man7/usysv.7 \
    bin/usysv share/man/man1/usysv.1 share/bash-completion/completions/usysv share/zsh/site-functions/_usysv \
    share/fish/vendor_completions.d/usysv.fish; do
    try "there is $file" test -s "$prefix/$file"
done

# The tool finds the library that was installed with it.
mkdir "$work/tool"
same 'the installed tool runs a program on the installed library' 1 \
    "$(bare "$prefix/bin/usysv" --dir "$work/tool" run ipcmk -Q 2>&1 | grep -c 'Message queue id: ')"
same 'bash takes the completions' 0 "$(bash -n "$prefix/share/bash-completion/completions/usysv" 2>&1; echo $?)"

# --- programs built against it ---------------------------------------------------------------------------------------

warn=(-Wall -Wextra -Wpedantic -Werror)
c_says='through C, preload 1'
c_static_says='through C, preload 0'
cpp_says='through C++, after the end: send'
# pc LIBDIR-ROOT ARGUMENT...
pc() { PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig pkg-config "$@"; }

if have pkg-config; then
    version=$(sed -n 's/^version *= *"\(.*\)".*/\1/p' Cargo.toml | head -n 1)
    same 'pkg-config --modversion' "$version" "$(pc --modversion usysv)"
    same 'pkg-config in a staged tree' "-I$staged/usr/include -L$staged/usr/lib/somewhere -lusysv" \
        "$(PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_SYSROOT_DIR=$staged PKG_CONFIG_LIBDIR=$staged/usr/lib/somewhere/pkgconfig \
            pkg-config --cflags --libs usysv | xargs)"
    read -ra flags <<<"$(pc --cflags --libs usysv)"
    read -ra static_flags <<<"$(pc --cflags --libs --static usysv)"
    consumer=$here/consumer
    for compiler in gcc clang; do
        have "$compiler" || {
            skip "no $compiler"
            continue
        }
        out=$work/$compiler
        cxx=${compiler/gcc/g}++
        cxx=${cxx/clang++/clang++}
        try "$compiler: C, shared" "$compiler" -std=c11 -D_DEFAULT_SOURCE "${warn[@]}" $consumer/app.c "${flags[@]}" -o "$out-c"
        try "$compiler: C, static" "$compiler" -static -std=c11 -D_DEFAULT_SOURCE "${warn[@]}" $consumer/app.c "${static_flags[@]}" -o "$out-cs"
        try "$compiler: C++, shared" "$cxx" -std=c++17 "${warn[@]}" $consumer/app.cpp "${flags[@]}" -o "$out-p"
        try "$compiler: C++, static" "$cxx" -static -std=c++17 "${warn[@]}" $consumer/app.cpp "${static_flags[@]}" -o "$out-ps"
        try "$compiler: C++, this library static, the rest shared" \
            "$cxx" -std=c++17 "${warn[@]}" $consumer/app.cpp "-I$prefix/include" "$prefix/lib/libusysv.a" -o "$out-pm"
        same "$compiler: C, shared: it runs" "$c_says" "$(LD_LIBRARY_PATH=$prefix/lib bare "$out-c" 2>&1)"
        same "$compiler: C, static: it runs" "$c_static_says" "$(bare "$out-cs" 2>&1)"
        same "$compiler: C++, shared: it runs" "$cpp_says" "$(LD_LIBRARY_PATH=$prefix/lib bare "$out-p" 2>&1)"
        same "$compiler: C++, static: it runs" "$cpp_says" "$(bare "$out-ps" 2>&1)"
        same "$compiler: C++, mixed: it runs" "$cpp_says" "$(bare "$out-pm" 2>&1)"
        same "$compiler: a static program asks for no library" '' "$(readelf -d "$out-cs" 2>/dev/null | grep NEEDED || true)"
    done
    # Two archives that each bring a Rust standard library into one program.
    try 'beside another Rust archive' cc -I"$prefix/include" $consumer/app.c "$prefix/lib/libusysv.a" \
        "$target/static/release/libusysv.a" -o "$work/twice"
    # Fully linked with both libraries there: the soname, and not the path, is what the program remembers.
    same 'a program remembers the soname' "libusysv.so.$major" \
        "$(readelf -d "$work/gcc-c" | sed -n 's/.*NEEDED.*\[\(libusysv.*\)\]/\1/p')"
else
    skip 'no pkg-config'
fi

if have cmake; then
    # Moved first: nothing in the CMake files may name the place where it was installed.
    cp -a "$prefix" "$work/moved"
    try 'CMake finds the package' cmake -S "$here/consumer" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/moved"
    try 'CMake builds with it' cmake --build "$work/cmake"
    same 'CMake found it where it is now' "usysv_DIR:PATH=$work/moved/lib/cmake/usysv" \
        "$(grep usysv_DIR "$work/cmake/CMakeCache.txt")"
    same 'CMake: C, shared: it runs' "$c_says" "$(bare "$work/cmake/c-shared" 2>&1)"
    same 'CMake: C, static: it runs' "$c_static_says" "$(bare "$work/cmake/c-static" 2>&1)"
    same 'CMake: C++, shared: it runs' "$cpp_says" "$(bare "$work/cmake/cpp-shared" 2>&1)"
    same 'CMake: C++, static: it runs' "$cpp_says" "$(bare "$work/cmake/cpp-static" 2>&1)"
    printf 'cmake_minimum_required(VERSION 3.16)\nproject(p NONE)\nfind_package(usysv 1.0 REQUIRED)\n' >"$work/CMakeLists.txt"
    if cmake -S "$work" -B "$work/too-new" -DCMAKE_PREFIX_PATH="$work/moved" >"$work/log" 2>&1; then
        bad 'CMake refuses a version that is not there'
    else
        ok 'CMake refuses a version that is not there'
    fi
else
    skip 'no cmake'
fi

# --- manual pages ----------------------------------------------------------------------------------------------------

for page in man/*.[1-8]; do
    if have mandoc; then
        # What other pages this machine has is not the page's fault.
        same "mandoc has nothing to say of $page" '' \
            "$(mandoc -T lint "$page" 2>/dev/null | grep -v 'referenced manual not found' || true)"
    else
        skip "no mandoc for $page"
    fi
    if have man; then
        title=$(basename "$page")
        same "man renders $page" "${title%.*}(${title##*.})" \
            "$(MANWIDTH=80 man -l "$page" 2>/dev/null | head -n 1 | awk '{ print tolower($1) }')"
    else
        skip "no man for $page"
    fi
done

# --- taking it away --------------------------------------------------------------------------------------------------

touch "$prefix/lib/of-somebody-else"
make --no-print-directory uninstall DESTDIR="$staged" PREFIX=/usr LIBDIR=/usr/lib/somewhere >"$work/log" 2>&1
make --no-print-directory uninstall PREFIX="$prefix" >"$work/log" 2>&1
same 'make uninstall takes away every file, and no other' ./lib/of-somebody-else "$(files "$staged" && files "$prefix")"

# --- the Debian package ----------------------------------------------------------------------------------------------

deb() {
    local package contents
    if ! have dpkg-deb || ! have dpkg-shlibdeps; then
        skip 'no dpkg-deb or dpkg-shlibdeps: no Debian package'
        return
    fi
    try 'make deb' make --no-print-directory deb
    package=$(find "$target/package" -maxdepth 1 -name 'usysv_*.deb' -newer "$work/nosysv")
    [ -n "$package" ] || {
        bad 'make deb leaves a package behind'
        return
    }
    contents=$(dpkg-deb -c "$package" | awk '{ print $2 }' | grep -v ' root/root ' | sort -u)
    same 'everything in the package is root'\''s' root/root "$contents"
    if have lintian; then
        same 'lintian finds no errors and no warnings' '' \
            "$(lintian --allow-root --fail-on none --suppress-tags initial-upload-closes-no-bugs "$package" 2>&1 || true)"
    else
        skip 'no lintian'
    fi
    # A copy of this system, in memory, seen by nobody else.
    if ! unshare --mount true 2>/dev/null; then
        skip 'no mount namespace: the package was not installed'
        return
    fi
    cp "$package" "$work/usysv.deb"
    local status=0
    unshare --mount --pid --fork "$here/in_a_copy.sh" "$work" "$root/$here/consumer" >"$work/copy" 2>&1 || status=$?
    sed 's/^/  /' "$work/copy"
    if [ "$status" = 77 ]; then
        skip 'no overlay file system here: the package was not installed'
        return
    fi
    passed=$((passed + $(grep -c '^ok ' "$work/copy" || true)))
    failed=$((failed + $(grep -c '^FAIL ' "$work/copy" || true)))
    [ "$status" = 0 ] || grep -q '^FAIL ' "$work/copy" || bad "in_a_copy.sh ended with status $status"
}
deb

totals package
