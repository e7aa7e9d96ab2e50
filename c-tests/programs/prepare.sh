#!/usr/bin/env bash
#
# prepare.sh: fetches and builds what the tests of programs need and no package brings: Python's sysv_ipc with its own tests, and
# Node's svmq. Into c-tests/build/programs; quick when they are there. What cannot be had is said, and its test skips.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(realpath -m "$here/../build/programs")
mkdir -p "$build"
say() { printf 'programs: %s\n' "$*" >&2; }

# Versions by name: what is compared is the same run twice, but a failure should be the same tomorrow.
sysv_ipc=1.2.0
svmq=1.0.7

python_module() {
	[ -e "$build/python/done" ] && return
	rm -rf "$build/python" && mkdir -p "$build/python"
	(
		cd "$build/python" &&
			python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: "sysv_ipc==$sysv_ipc" &&
			tar xzf sysv_ipc-*.tar.gz && mv "sysv_ipc-$sysv_ipc" source &&
			python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --no-deps --target site ./source && touch 'done'
	) >"$build/python.log" 2>&1 || say "no Python module sysv_ipc: $(tail -n 1 "$build/python.log")"
}

# npm runs no build scripts; the headers are those that came with node, so that nothing else is fetched.
node_module() {
	local prefix gyp
	[ -e "$build/node/done" ] && return
	prefix=$(dirname "$(dirname "$(realpath "$(command -v node)")")")
	gyp=$(npm root -g)/npm/node_modules/node-gyp/bin/node-gyp.js
	if [ ! -e "$prefix/include/node/node.h" ] || [ ! -e "$gyp" ]; then
		say "no Node module svmq: node came without its headers or node-gyp" | tee "$build/node.log"
		return
	fi
	rm -rf "$build/node" && mkdir -p "$build/node"
	(
		cd "$build/node" && npm install --no-audit --no-fund --ignore-scripts "svmq@$svmq" && cd node_modules/svmq &&
			node "$gyp" rebuild --nodedir="$prefix" && touch "$build/node/done"
	) >"$build/node.log" 2>&1 || say "no Node module svmq: $(tail -n 1 "$build/node.log")"
}

# Both at once: most of it is waiting for the network.
if command -v python3 >/dev/null; then python_module & fi
if command -v node >/dev/null && command -v npm >/dev/null; then node_module & fi
wait
