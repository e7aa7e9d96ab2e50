# Installing: what goes where, how it is built, and how it is taken away again. Included by the Makefile.
#
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
BASHDIR ?= $(DATADIR)/bash-completion/completions
ZSHDIR ?= $(DATADIR)/zsh/site-functions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d

PACKAGE := $(TARGET)/package
SONAME := libusysv.so.$(MAJOR)
STATIC := $(PACKAGE)/libusysv.a
TOOL := $(TARGET)/release/usysv
SOURCES := Cargo.toml Cargo.lock build.rs cbindgen.toml $(shell find src -name '*.rs')
INSTALLED := $(PACKAGE)/built

.PHONY: installable install uninstall deb

# Built when a source is newer than what was built last, so that `make installable && sudo make install` needs no cargo as root.
installable: $(INSTALLED)

$(INSTALLED): $(SOURCES)
	@$(MAKE) --no-print-directory library $(STATIC)
	@touch $@

# The static library: without the functions that stand before the C library's (setuid and its like), which a program
# must not get from two libraries at once. rustc's archive is Rust's whole standard library, with thousands of global
# names, some of which every other Rust archive defines too. So: link once, drop what nothing calls, hide all names but
# ours. packaging/exports-static.txt is the list of those.
$(STATIC): $(SOURCES) packaging/exports-static.txt
	@mkdir -p $(@D)
	$(CARGO) rustc --release --lib --no-default-features --crate-type staticlib --target-dir $(TARGET)/static
	$(LD) -r --gc-sections --force-group-allocation $(addprefix -u ,$(shell cat packaging/exports-static.txt)) \
		-o $(PACKAGE)/usysv.o $(TARGET)/static/release/libusysv.a
	$(OBJCOPY) --strip-debug --keep-global-symbols=packaging/exports-static.txt $(PACKAGE)/usysv.o
	rm -f $@
	$(AR) rcs $@ $(PACKAGE)/usysv.o

LD ?= ld
OBJCOPY ?= objcopy
AR ?= ar
INSTALL ?= install

# From the directory that has the CMake files to the other directories, so that the tree may be moved as a whole.
relative = $(shell realpath -m --relative-to='$(1)' '$(2)')
filled = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
	-e 's|@VERSION@|$(VERSION)|g' -e 's|@SONAME@|$(SONAME)|g' -e 's|@MAJOR@|$(MAJOR)|g' \
	-e 's|@LIBDIR_FROM_CMAKE@|$(call relative,$(LIBDIR)/cmake/usysv,$(LIBDIR))|g' \
	-e 's|@INCLUDEDIR_FROM_CMAKE@|$(call relative,$(LIBDIR)/cmake/usysv,$(INCLUDEDIR))|g'

to = $(DESTDIR)$(1)
install: installable
	$(INSTALL) -d $(call to,$(LIBDIR)/pkgconfig) $(call to,$(LIBDIR)/cmake/usysv) $(call to,$(INCLUDEDIR)) \
		$(call to,$(MANDIR)/man3) $(call to,$(MANDIR)/man7)
	$(INSTALL) -m 644 $(LIBRARY) $(call to,$(LIBDIR)/libusysv.so.$(VERSION))
	ln -sf libusysv.so.$(VERSION) $(call to,$(LIBDIR)/$(SONAME))
	ln -sf $(SONAME) $(call to,$(LIBDIR)/libusysv.so)
	$(INSTALL) -m 644 $(STATIC) $(call to,$(LIBDIR)/libusysv.a)
	$(INSTALL) -m 644 include/usysv.h $(call to,$(INCLUDEDIR)/usysv.h)
	$(filled) packaging/usysv.pc.in >$(call to,$(LIBDIR)/pkgconfig/usysv.pc)
	$(filled) packaging/usysvConfig.cmake.in >$(call to,$(LIBDIR)/cmake/usysv/usysvConfig.cmake)
	$(filled) packaging/usysvConfigVersion.cmake.in >$(call to,$(LIBDIR)/cmake/usysv/usysvConfigVersion.cmake)
	chmod 644 $(call to,$(LIBDIR)/pkgconfig/usysv.pc) $(call to,$(LIBDIR)/cmake/usysv)/*.cmake
	$(INSTALL) -d $(call to,$(BINDIR)) $(call to,$(MANDIR)/man1) $(call to,$(BASHDIR)) $(call to,$(ZSHDIR)) $(call to,$(FISHDIR))
	$(INSTALL) -m 755 $(TOOL) $(call to,$(BINDIR)/usysv)
	$(TOOL) completions bash >$(call to,$(BASHDIR)/usysv)
	$(TOOL) completions zsh >$(call to,$(ZSHDIR)/_usysv)
	$(TOOL) completions fish >$(call to,$(FISHDIR)/usysv.fish)
	chmod 644 $(call to,$(BASHDIR)/usysv) $(call to,$(ZSHDIR)/_usysv) $(call to,$(FISHDIR)/usysv.fish)
	$(INSTALL) -m 644 man/usysv.1 $(call to,$(MANDIR)/man1/usysv.1)
	$(INSTALL) -m 644 man/libusysv.3 $(call to,$(MANDIR)/man3/libusysv.3)
	$(INSTALL) -m 644 man/usysv.7 $(call to,$(MANDIR)/man7/usysv.7)

uninstall:
	rm -f $(foreach file,libusysv.so.$(VERSION) $(SONAME) libusysv.so libusysv.a pkgconfig/usysv.pc, \
		$(call to,$(LIBDIR)/$(file)))
	rm -f $(call to,$(LIBDIR)/cmake/usysv)/usysvConfig.cmake $(call to,$(LIBDIR)/cmake/usysv)/usysvConfigVersion.cmake
	-rmdir $(call to,$(LIBDIR)/cmake/usysv) 2>/dev/null
	rm -f $(call to,$(BINDIR)/usysv) $(call to,$(BASHDIR)/usysv) $(call to,$(ZSHDIR)/_usysv) $(call to,$(FISHDIR)/usysv.fish)
	rm -f $(call to,$(MANDIR)/man1/usysv.1)
	rm -f $(call to,$(INCLUDEDIR)/usysv.h) $(call to,$(MANDIR)/man3/libusysv.3) $(call to,$(MANDIR)/man7/usysv.7)

deb: installable
	packaging/deb.sh $(PACKAGE)
