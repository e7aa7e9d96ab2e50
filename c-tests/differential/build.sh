#!/usr/bin/env bash
#
# build.sh: builds the differential fuzzer into c-tests/build/differential.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$here/../build/differential
mkdir -p "$build"
flags=(-std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Werror)
"${CC:-cc}" "${flags[@]}" -o "$build/differential" "$here"/{differential,generate,execute,conductor,actor,order,operations,memory}.c
"${CC:-cc}" "${flags[@]}" -shared -fPIC -o "$build/faults.so" "$here/faults.c"
