# libpfkey_rs: build, try, test, install.
#
#   make demo            adds an SA to an embedded key engine with one C program, and lists it with another
#   make check           runs every test; KERNEL=yes: in real kernels too, which it downloads; needs root and Debian
#   make build           builds the libraries and programs, optimised
#   make install         installs them. Variables for the places: PREFIX, LIBDIR, INCLUDEDIR, BINDIR, SBINDIR, MANDIR, DOCDIR,
#                        UNITDIR, BASHDIR, ZSHDIR, FISHDIR, DESTDIR. LIBIPSEC_COMPAT=DIR also installs a libipsec.so.0,
#                        SETKEY=yes pfkey's second name
#   make uninstall       removes them; takes the same variables
#   make bench           measures each piece of work, and the least that could do it; BASE=REV: compares with that commit
#   make check-kernel    scenarios, packets and programs in kernels that run as processes; needs root
#   make check-sanitize  tests under sanitizers, valgrind and Miri; PARTS="asan valgrind tsan miri"
#   make check-deny      checks licences, sources and known holes of the crates (cargo deny)
#   make fuzz            runs every fuzz target for SECONDS seconds (docs/testing.md)
#   make headers         makes include/pfkey_rs.h again, from src/
#   make dist            the source of HEAD with all crates, which builds without a network: a tar archive in target/dist
#   make notices         makes THIRD-PARTY.md again, from the crates that are linked
#   make clean           removes what was built
#
# For another processor: make build TARGET=aarch64-unknown-linux-gnu CC=aarch64-linux-gnu-gcc STRIP=aarch64-linux-gnu-strip
# (and CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER for cargo). CARGO_TARGET_DIR is where cargo puts it.
SHELL = /bin/sh
PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/libpfkey_rs
# Where systemd looks for units: /usr/local/lib/systemd/system, too.
UNITDIR = $(PREFIX)/lib/systemd/system
# Where shells look for completions.
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d
DESTDIR =
LIBIPSEC_COMPAT =
SETKEY =
KERNEL =
SECONDS = 60
CC = cc
STRIP = strip
CARGO = cargo
TARGET = $(CARGO_BUILD_TARGET)
CARGO_TARGET_DIR ?= target
CBINDGEN_VERSION = 0.29.4
HEADER = include/pfkey_rs.h

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TRIPLE = $(if $(TARGET),/$(TARGET))
T = $(CARGO_TARGET_DIR)$(TRIPLE)/release
D = $(CARGO_TARGET_DIR)$(TRIPLE)/debug
DEMO = $(CARGO_TARGET_DIR)/demo
FOR_TARGET = $(if $(TARGET),--target $(TARGET))
# Where something was built is nobody's business, and two builds shall be the same. (Flags of the user's own come instead.)
CARGO_HOME ?= $(HOME)/.cargo
REMAP = --config 'build.rustflags=["--remap-path-prefix=$(CARGO_HOME)=/cargo", "--remap-path-prefix=$(CURDIR)=."]'
FOR_RELEASE = --release $(FOR_TARGET) $(REMAP)
RELEASE = PFKEYD_PATH=$(SBINDIR)/pfkeyd
MAN_PAGES = pfkey.1 pfkey.conf.5 pfkey-run.1 pfkeyd.8 libpfkey_rs.3 pfkey_open.3 pfkey_send_add.3 pfkey_recv.3 pfkey_xfrm_set.3 \
  ipsec_set_policy.3 ipsec_strerror.3 pfkey_engine_new.3 pfkey_resolve.3 $(if $(SETKEY),setkey.8)
# Another processor's program cannot be asked for its completions.
COMPLETION = $(if $(TARGET),$(CARGO) run --locked --quiet --package pfkey-cli --,$(T)/pfkey) completion
NOTICES = LICENSE-MIT LICENSE-APACHE THIRD-PARTY.md
# What pfkey --json prints.
SCHEMA = pfkey.schema.json
HEADERS = libpfkey.h pfkey_rs.h
COMPAT_HEADERS = libpfkey_rs/pfkeyv2_compat.h libpfkey_rs/net/pfkeyv2.h libpfkey_rs/netinet/ipsec.h
PLACES = -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
  -e 's|@SBINDIR@|$(SBINDIR)|' -e 's|@BINDIR@|$(BINDIR)|' -e 's|@VERSION@|$(VERSION)|'

.PHONY: help all build demo check check-deny check-kernel bench headers notices install uninstall clean

help:
	@sed -n '/^#   make demo/,/^SHELL/s/^# \{0,3\}//p' Makefile

all: build

# The libraries as C sees them only: cargo optimises across crates only where nothing of it is a library for Rust.
build:
	$(RELEASE) $(CARGO) rustc --locked $(FOR_RELEASE) --package libpfkey_rs --lib --crate-type cdylib,staticlib
	$(RELEASE) $(CARGO) rustc --locked $(FOR_RELEASE) --package pfkey_preload --lib --crate-type cdylib
	$(RELEASE) $(CARGO) build --locked $(FOR_RELEASE) --package pfkeyd --package pfkey-cli

headers:
	cbindgen --version | grep -qx 'cbindgen $(CBINDGEN_VERSION)' || \
	  { echo "make headers: needs cbindgen $(CBINDGEN_VERSION): cargo install cbindgen --version $(CBINDGEN_VERSION) --locked" >&2; exit 1; }
	cbindgen --quiet --config cbindgen.toml . | sed -e 's|// __cplusplus|/* __cplusplus */|' -e 's|// extern "C"|/* extern "C" */|' > $(HEADER).new
	mv $(HEADER).new $(HEADER)

demo:
	@echo "building the library, pfkeyd and two C programs"
	@$(CARGO) build --locked $(FOR_TARGET)
	@mkdir -p $(DEMO)
	@rm -f $(DEMO)/libpfkey_rs.so.0; cp $(D)/libpfkey_rs.so $(DEMO)/libpfkey_rs.so.0
	@for p in sadb_add sadb_dump; do \
	  $(CC) -std=gnu11 -Wall -Wextra -Iinclude -o $(DEMO)/$$p c-tests/$$p.c c-tests/common.c \
	    $(DEMO)/libpfkey_rs.so.0 -Wl,-rpath,'$$ORIGIN' || exit 1; done
	@echo "pfkeyd with an embedded key engine around them: sadb_add adds an SA, sadb_dump lists what there is"
	@$(D)/pfkeyd -- sh -c '$(DEMO)/sadb_add && $(DEMO)/sadb_dump'

check:
	@CARGO='$(CARGO)' KERNEL='$(KERNEL)' sh tests/check.sh

check-deny:
	CARGO=$(CARGO) sh tests/deny.sh

notices:
	PFKEY_WRITE_NOTICES=1 $(CARGO) test --locked --quiet --test supply_chain the_notices_are_the_crates_own

check-kernel:
	tests/kernel/check
	tests/kernel/service
	tests/kernel/verdicts
	tests/kernel/traffic
	tests/kernel/overrun
	tests/kernel/programs
	tests/kernel/preload
	tests/kernel/any
	tests/kernel/openiked
	tests/kernel/pfkey
	tests/kernel/setkey
	tests/kernel/attributes

.PHONY: check-sanitize fuzz
check-sanitize:
	@CARGO=$(CARGO) tests/sanitize.sh

fuzz:
	@CARGO=$(CARGO) fuzz/run $(SECONDS)

bench:
	@CARGO='$(CARGO)' BASE='$(BASE)' benches/run

install: build
	$(MAKE) install-files
	$(if $(LIBIPSEC_COMPAT),$(MAKE) install-libipsec)
	@# A program finds a new library after ldconfig only. A package's own scripts do that for what is in DESTDIR.
	@if [ -z '$(DESTDIR)' ]; then ldconfig 2>/dev/null || \
	  echo "now run ldconfig as root, or set LD_LIBRARY_PATH=$(LIBDIR): until then programs do not find libpfkey_rs.so.0"; fi

# What was built in T is put in its places.
.PHONY: install-files
install-files:
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(BINDIR) $(DESTDIR)$(SBINDIR) \
	  $(DESTDIR)$(INCLUDEDIR)/libpfkey_rs/net $(DESTDIR)$(INCLUDEDIR)/libpfkey_rs/netinet
	install -m 755 $(T)/libpfkey_rs.so $(DESTDIR)$(LIBDIR)/libpfkey_rs.so.$(VERSION)
	ln -sf libpfkey_rs.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libpfkey_rs.so.0
	ln -sf libpfkey_rs.so.0 $(DESTDIR)$(LIBDIR)/libpfkey_rs.so
	$(STRIP) --strip-debug --enable-deterministic-archives -o $(T)/libpfkey_rs.stripped.a $(T)/libpfkey_rs.a
	install -m 644 $(T)/libpfkey_rs.stripped.a $(DESTDIR)$(LIBDIR)/libpfkey_rs.a
	install -m 755 $(T)/libpfkey_preload.so $(DESTDIR)$(LIBDIR)/libpfkey_preload.so.$(VERSION)
	ln -sf libpfkey_preload.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libpfkey_preload.so.0
	ln -sf libpfkey_preload.so.0 $(DESTDIR)$(LIBDIR)/libpfkey_preload.so
	for h in $(HEADERS) $(COMPAT_HEADERS); do install -m 644 include/$$h $(DESTDIR)$(INCLUDEDIR)/$$h || exit 1; done
	install -m 755 $(T)/pfkeyd $(DESTDIR)$(SBINDIR)/pfkeyd
	install -m 755 $(T)/pfkey $(DESTDIR)$(BINDIR)/pfkey
	$(if $(SETKEY),ln -sf $(BINDIR)/pfkey $(DESTDIR)$(SBINDIR)/setkey)
	install -d $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	$(COMPLETION) bash > $(DESTDIR)$(BASHDIR)/pfkey
	$(COMPLETION) zsh > $(DESTDIR)$(ZSHDIR)/_pfkey
	$(COMPLETION) fish > $(DESTDIR)$(FISHDIR)/pfkey.fish
	install -D -m 644 systemd/pfkeyd.socket $(DESTDIR)$(UNITDIR)/pfkeyd.socket
	for unit in pfkeyd pfkey-load; do sed $(PLACES) systemd/$$unit.service.in > $(DESTDIR)$(UNITDIR)/$$unit.service || exit 1; done
	for page in $(MAN_PAGES); do \
	  install -D -m 644 man/$$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page || exit 1; done
	install -d $(DESTDIR)$(DOCDIR)
	install -m 644 $(NOTICES) docs/$(SCHEMA) $(DESTDIR)$(DOCDIR)
	notices=$$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html; \
	  if [ -f "$$notices" ]; then install -m 644 "$$notices" $(DESTDIR)$(DOCDIR)/rust-library.html; \
	  else echo "no notices of Rust's standard library: $$notices is not there" >&2; fi
	for p in pfkey_rs pfkey_preload; do \
	  sed $(PLACES) pkgconfig/$$p.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/$$p.pc || exit 1; done
	sed $(PLACES) preload/pfkey-run > $(DESTDIR)$(BINDIR)/pfkey-run
	chmod 755 $(DESTDIR)$(BINDIR)/pfkey-run
	install -d $(DESTDIR)$(LIBDIR)/cmake/pfkey_rs
	for f in pfkey_rs-config pfkey_rs-config-version; do \
	  sed $(PLACES) pkgconfig/$$f.cmake.in > $(DESTDIR)$(LIBDIR)/cmake/pfkey_rs/$$f.cmake || exit 1; done

# A libipsec.so.0 for programs that were linked with libipsec. strongSwan has another library of that name, so it
# must not be found by anyone who does not ask for it (LD_LIBRARY_PATH, or an rpath). It contains the preload object's
# functions too: racoon opens PF_KEY sockets by itself.
.PHONY: install-libipsec
install-libipsec: build
	@case '$(patsubst %/,%,$(LIBIPSEC_COMPAT))' in \
	  /lib|/lib64|/usr/lib|/usr/lib64|/usr/local/lib|/usr/local/lib64|/lib/*-linux-gnu|/lib/*-linux-musl|\
	  /usr/lib/*-linux-gnu|/usr/lib/*-linux-musl|$(LIBDIR)) \
	    echo "LIBIPSEC_COMPAT=$(LIBIPSEC_COMPAT): a directory of its own, please: strongSwan has a libipsec.so.0 too" >&2; exit 1;; esac
	$(RELEASE) $(CARGO) build --locked $(FOR_RELEASE) --package pfkey_preload --example pfkey_compat
	$(MAKE) install-libipsec-files

# Not everywhere are the names with time64, and some linkers refuse to export what is not there, but no pattern.
.PHONY: install-libipsec-files
install-libipsec-files:
	{ echo '{ global:'; sed 's/$$/;/' exports.txt preload/exports.txt; \
	  sed 's/4$$/[4];/' preload/exports-time64.txt; echo 'local: *; };'; } > $(T)/libipsec.map
	$(CC) -shared -o $(T)/libipsec.so.0 -Wl,-soname,libipsec.so.0 -Wl,--version-script=$(T)/libipsec.map -Wl,-z,relro,-z,now \
	  -Wl,--whole-archive $(T)/examples/libpfkey_compat.a -Wl,--no-whole-archive -Wl,--gc-sections -Wl,--strip-debug \
	  -lutil -lrt -lpthread -lm -ldl -lc
	install -d $(DESTDIR)$(LIBIPSEC_COMPAT)/pkgconfig
	install -m 755 $(T)/libipsec.so.0 $(DESTDIR)$(LIBIPSEC_COMPAT)/libipsec.so.0
	ln -sf libipsec.so.0 $(DESTDIR)$(LIBIPSEC_COMPAT)/libipsec.so
	sed $(PLACES) -e 's|@LIBIPSEC_COMPAT@|$(LIBIPSEC_COMPAT)|' pkgconfig/libipsec.pc.in \
	  > $(DESTDIR)$(LIBIPSEC_COMPAT)/pkgconfig/libipsec.pc

uninstall:
	for l in pfkey_rs pfkey_preload; do rm -f $(DESTDIR)$(LIBDIR)/lib$$l.so.$(VERSION) $(DESTDIR)$(LIBDIR)/lib$$l.so.0 \
	  $(DESTDIR)$(LIBDIR)/lib$$l.so $(DESTDIR)$(LIBDIR)/pkgconfig/$$l.pc || exit 1; done
	rm -f $(DESTDIR)$(LIBDIR)/libpfkey_rs.a $(DESTDIR)$(SBINDIR)/pfkeyd $(DESTDIR)$(BINDIR)/pfkey-run \
	  $(DESTDIR)$(BINDIR)/pfkey $(DESTDIR)$(UNITDIR)/pfkeyd.socket $(DESTDIR)$(UNITDIR)/pfkeyd.service \
	  $(DESTDIR)$(UNITDIR)/pfkey-load.service
	rm -f $(DESTDIR)$(BASHDIR)/pfkey $(DESTDIR)$(ZSHDIR)/_pfkey $(DESTDIR)$(FISHDIR)/pfkey.fish
	$(if $(SETKEY),rm -f $(DESTDIR)$(SBINDIR)/setkey)
	for page in $(MAN_PAGES); do rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$$page; done
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(NOTICES) $(SCHEMA) rust-library.html)
	-rmdir $(DESTDIR)$(DOCDIR)
	rm -f $(DESTDIR)$(LIBDIR)/cmake/pfkey_rs/pfkey_rs-config.cmake $(DESTDIR)$(LIBDIR)/cmake/pfkey_rs/pfkey_rs-config-version.cmake
	-rmdir $(DESTDIR)$(LIBDIR)/cmake/pfkey_rs
	$(if $(LIBIPSEC_COMPAT),rm -f $(addprefix $(DESTDIR)$(LIBIPSEC_COMPAT)/,libipsec.so.0 libipsec.so pkgconfig/libipsec.pc))
	$(if $(LIBIPSEC_COMPAT),-rmdir $(DESTDIR)$(LIBIPSEC_COMPAT)/pkgconfig $(DESTDIR)$(LIBIPSEC_COMPAT))
	rm -f $(addprefix $(DESTDIR)$(INCLUDEDIR)/,$(HEADERS) $(COMPAT_HEADERS))
	-rmdir $(DESTDIR)$(INCLUDEDIR)/libpfkey_rs/net $(DESTDIR)$(INCLUDEDIR)/libpfkey_rs/netinet \
	  $(DESTDIR)$(INCLUDEDIR)/libpfkey_rs

# The same commit gives the same bytes: names in order, nobody's files, the commit's time.
DIST = libpfkey_rs-$(VERSION)
.PHONY: dist
dist:
	rm -rf $(CARGO_TARGET_DIR)/dist
	mkdir -p $(CARGO_TARGET_DIR)/dist
	git archive --prefix=$(DIST)/ HEAD | tar -x -C $(CARGO_TARGET_DIR)/dist
	cd $(CARGO_TARGET_DIR)/dist/$(DIST) && $(CARGO) vendor --locked --quiet vendor && mkdir .cargo && \
	  printf '[source.crates-io]\nreplace-with = "vendored"\n\n[source.vendored]\ndirectory = "vendor"\n' > .cargo/config.toml
	tar -c --sort=name --mtime=@$$(git log -1 --format=%ct) --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX \
	  -C $(CARGO_TARGET_DIR)/dist $(DIST) | xz -T2 > $(CARGO_TARGET_DIR)/dist/$(DIST).tar.xz
	@ls -l $(CARGO_TARGET_DIR)/dist/$(DIST).tar.xz

clean:
	$(CARGO) clean
