# usysv: `make help` says what there is.

CARGO ?= cargo
CC ?= cc
CFLAGS ?= -O2 -g
# Where rustup puts cargo, in case the shell has not been told.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
LIBRARY := $(TARGET)/release/libusysv.so
VERSION := $(shell sed -n 's/^version *= *"\(.*\)".*/\1/p' Cargo.toml | head -n 1)
MAJOR := $(firstword $(subst ., ,$(VERSION)))
BUILD := c-tests/build
DEMO := $(addprefix $(BUILD)/demo/,client server sender receiver client-linked)
SCRIPTS := .ci/run $(wildcard scripts/*.sh fuzz/*.sh c-tests/*.sh c-tests/*/*.sh packaging/*.sh)
WARN := -std=c11 -Wall -Wextra -Wpedantic -Werror

.DEFAULT_GOAL := help
.PHONY: help demo test every-instruction mutants fuzz-differential fuzz-memory vandal bench build library header lint doc clean

help:
	@echo 'make demo    set up, build, and show unmodified programs at work without the kernel'\''s queues'
	@echo 'make test    set up, build, and run every test'
	@echo 'make every-instruction'
	@echo '             each fault after each instruction of each call (hours; STRIDE=7 is quicker)'
	@echo 'make mutants break the library on purpose, and see that the tests notice'
	@echo 'make fuzz-differential [SEED=n] [SECONDS=n]   random calls on the kernel and on us, without end; how to replay is printed'
	@echo 'make fuzz-memory [SECONDS=n]   coverage-guided fuzzing of what reads shared memory (600 seconds)'
	@echo 'make vandal [SECONDS=n]   live victims of a peer that scribbles into their queue (600 seconds)'
	@echo 'make bench   set up, measure against the kernel and others, write docs/PERFORMANCE.md'
	@echo 'make build   the library ($(LIBRARY)) and the C programs of the demo'
	@echo 'make install PREFIX=/usr/local DESTDIR=   library, header, tool, man pages; uninstall takes them away'
	@echo 'make deb     a Debian package, in $(TARGET)/package'
	@echo 'make header  refresh include/usysv.h from src/abi/exports.rs'
	@echo 'make lint    formatting, clippy, shellcheck'
	@echo 'make doc     the documentation of the Rust side, without warnings'
	@echo 'make clean   remove what was built'

# Set-up comes before anything is built, so these two are sequences and not prerequisites.
demo:
	@scripts/setup.sh demo
	@$(MAKE) --no-print-directory build
	@c-tests/demo/demo.sh

test:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@scripts/test.sh

every-instruction: library
	@c-tests/every-instruction.sh

mutants:
	@c-tests/mutants.sh

# SEED chooses the lists, SECONDS ends it; a list that differs is shrunk and saved, with the line that runs it again.
fuzz-differential: library
	@c-tests/differential/build.sh
	$(BUILD)/differential/differential --lib $(abspath $(LIBRARY)) --save $(BUILD)/differential \
	    $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

fuzz-memory:
	@fuzz/run.sh $(or $(SECONDS),600)

vandal: library
	@HOSTILE_FUZZ_SECONDS=0 HOSTILE_VANDAL_SECONDS=$(or $(SECONDS),600) c-tests/hostile.sh

bench:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory library
	@benches/run.py

build: library $(BUILD)/tools/nosysv $(DEMO)

# What is linked looks for the library under its soname (build.rs).
library:
	$(CARGO) build --release
	@ln -sf libusysv.so $(LIBRARY).$(MAJOR)

$(LIBRARY): library ;

$(BUILD)/tools/nosysv: c-tests/tools/nosysv.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARN) $< -o $@

# The demo's programs are compiled as their authors would: no flags. They do not check what scanf returns.
$(BUILD)/demo/%: c-tests/demo/%.c
	@mkdir -p $(@D)
	$(CC) $< -o $@

$(BUILD)/demo/%-linked: c-tests/demo/%.c include/usysv.h | $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $< -include usysv.h -Iinclude -L$(TARGET)/release -lusysv -o $@

include packaging/install.mk

header:
	USYSV_HEADER=write $(CARGO) test --quiet --test header the_committed_header

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); else echo 'skipped: no shellcheck'; fi

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

clean:
	$(CARGO) clean
	rm -rf $(BUILD)
