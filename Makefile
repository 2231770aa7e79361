# Polder: `make run` tries it, `make test` proves it, `make help` lists the rest.

CC       ?= gcc
BUILD    ?= build
PREFIX   ?= /usr/local
SANITIZE ?=
WERROR   ?=
VERSION  := 0.1.0

ifeq ($(origin CC),default)
CC := gcc
endif
ifneq ($(SANITIZE),)
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT := -O1
else
OPT := -O2
endif
ARCH     := $(shell uname -m)
# A sanitizer checks more, and _FORTIFY_SOURCE would hide calls from it.
ifeq ($(SANITIZE),)
HARDEN   := -fstack-protector-strong -fstack-clash-protection $(if $(filter x86_64,$(ARCH)),-fcf-protection) -fPIE \
            -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack
endif
CX16     := $(if $(filter x86_64,$(ARCH)),-mcx16)
CPPFLAGS += -D_GNU_SOURCE -DPOLDER_VERSION='"$(VERSION)"' -DLLHTTP_STRICT_MODE=1 -Iinclude -I. -I/usr/share/include/llhttp -I/usr/include/llhttp
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla $(if $(WERROR),-Werror)
CFLAGS   += -std=c17 $(OPT) -g $(CX16) $(WARN) $(SAN) $(HARDEN) -fno-strict-aliasing
LDFLAGS  += $(SAN) $(LDHARDEN)
LDLIBS   := -lev -lhiredis -llmdb -lmsgpackc -lconfuse -ljansson -lnettle -lxxhash -lsystemd -lseccomp -lcares -lz -lbrotlienc -lzstd -lm

DEBS_BUILD := gcc make pkg-config libc6-dev libev-dev libhiredis-dev liblmdb-dev libmsgpack-dev libcmocka-dev node-llhttp \
              libconfuse-dev libjansson-dev nettle-dev libxxhash-dev libsystemd-dev libseccomp-dev libc-ares-dev zlib1g-dev libbrotli-dev libzstd-dev
DEBS_RUN   := curl python3 python3-fastapi uvicorn python3-uvloop python3-httptools python3-websockets
DEBS_TEST  := curl redis-tools iproute2 stunnel4 libwslay-dev python3-msgpack chromium
TOOLS      := $(CURDIR)/build/tools
export PATH := $(PATH):$(TOOLS)/usr/bin

# ---- what is built from what -------------------------------------------------
lib_src        := $(wildcard libshared/*/*.c)
http_src       := $(wildcard daemons/http/*.c)
net_src        := $(wildcard daemons/net/*.c)
rpc_src        := $(wildcard daemons/rpc/*.c)
polderd_src    := $(wildcard daemons/master/*.c daemons/worker/*.c daemons/worker/*/*.c daemons/keeper/*.c daemons/keeper/*/*.c daemons/notifier/*.c daemons/resolver/*.c daemons/control/*.c \
                             daemons/control/*/*.c)
supervisor_src := $(wildcard daemons/supervisor/*.c daemons/supervisor/*/*.c)
ctl_src        := $(wildcard admin/*.c admin/*/*.c)
llhttp_src     := $(wildcard /usr/share/llhttp/*.c)
unit_src       := $(wildcard tests/unit/test_*.c)
system_src     := $(wildcard tests/system/test_*.c)
test_lib_src   := $(wildcard tests/lib/*.c)
chaos_src      := $(wildcard tests/chaos/test_*.c)
chaos_rig_src  := $(filter-out $(chaos_src),$(wildcard tests/chaos/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
mains := daemons/master/main.c daemons/supervisor/main.c admin/main.c

# The dashboard: its sources, uPlot and the runbook, joined into one page that is part of polderd.
dashboard     := daemons/control/dashboard
dashboard_c   := $(BUILD)/gen/dashboard_assets.c
dashboard_src := $(wildcard $(dashboard)/*.html $(dashboard)/*.css $(dashboard)/*.js $(dashboard)/*.mjs $(dashboard)/*.svg) admin/man/polder-runbook.7
LIB   := $(BUILD)/libshared.a
HTTP  := $(BUILD)/libhttp.a
NET   := $(BUILD)/libnet.a
RPC   := $(BUILD)/librpc.a
PARTS := $(BUILD)/libdaemons.a
TESTS := $(BUILD)/libtests.a
bins  := $(BUILD)/polderd $(if $(supervisor_src),$(BUILD)/polder-supervisor) $(if $(ctl_src),$(BUILD)/polderctl)
unit_bins   := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(unit_src))
system_bins := $(patsubst tests/system/%.c,$(BUILD)/system/%,$(system_src))
chaos_bins  := $(patsubst tests/chaos/%.c,$(BUILD)/chaos/%,$(chaos_src))

.PHONY: all run loadtest test check test-programs unit system systemd layering lint bench fuzz chaos deps deps-test install install-strip built uninstall deb clean help
all: deps
	@$(MAKE) --no-print-directory bins
.PHONY: bins
bins: $(bins)

$(LIB): $(call obj,$(lib_src))
$(HTTP): $(call obj,$(http_src)) $(patsubst /usr/share/llhttp/%.c,$(BUILD)/obj/llhttp/%.o,$(llhttp_src))
$(NET): $(call obj,$(net_src))
$(RPC): $(call obj,$(rpc_src))
$(PARTS): $(BUILD)/obj/gen/dashboard_assets.o $(call obj,$(filter-out $(mains),$(polderd_src) $(supervisor_src)))
$(TESTS): $(call obj,$(test_lib_src))
$(LIB) $(HTTP) $(NET) $(RPC) $(PARTS) $(TESTS):
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/polderd: $(BUILD)/obj/gen/dashboard_assets.o $(call obj,$(polderd_src)) $(RPC) $(NET) $(HTTP) $(LIB)
$(BUILD)/polder-supervisor: $(call obj,$(supervisor_src)) $(RPC) $(NET) $(HTTP) $(LIB)
$(BUILD)/polderctl: $(call obj,$(ctl_src)) $(HTTP) $(LIB)
$(bins):
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
# The supervisor with places at which it kills itself, for one test.
dying := $(BUILD)/polder-supervisor-dying
$(BUILD)/dying/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -DPOLDER_DIE $(CFLAGS) -MMD -MP -c -o $@ $<
$(dying): $(patsubst %.c,$(BUILD)/dying/%.o,$(supervisor_src)) $(RPC) $(NET) $(HTTP) $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(dashboard_c): $(dashboard)/package-lock.json $(dashboard_src)
	@mkdir -p $(@D)
	@$(dashboard)/prepare
	node $(dashboard)/build.mjs $@
$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/obj/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -O3 -g $(SAN) $(HARDEN) -w -c -o $@ $<

# Daemons that lay out their shared memory in another way, for upgrades.
other := $(BUILD)/test/polderd-other $(BUILD)/test/polder-supervisor-other
$(BUILD)/obj/other/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -DSHARED_ABI=2 -DSEGMENT_LAYOUT=1004 $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/test/polderd-other: $(BUILD)/obj/gen/dashboard_assets.o $(call obj,$(polderd_src)) $(BUILD)/obj/other/libshared/shm/shared.o $(RPC) $(NET) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Daemons of another version of the fleet: of the log's entries and the shared objects, and of all keys.
fleet_versions := $(patsubst %,daemons/control/model/fleet%.c,_entry _object _record _watch _lease) daemons/control/model/fleet.c
fleet_next := $(BUILD)/test/polderd-entries $(BUILD)/test/polderd-format
$(BUILD)/obj/entries/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -UPOLDER_VERSION -DPOLDER_VERSION='"$(VERSION)+entries"' -DFLEET_ENTRY_VERSION=4 -DFLEET_OBJECT_VERSION=3 $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/obj/format/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -UPOLDER_VERSION -DPOLDER_VERSION='"$(VERSION)+format"' -DFLEET_FORMAT=3 $(CFLAGS) -MMD -MP -c -o $@ $<
$(fleet_next): $(BUILD)/test/polderd-%: $(BUILD)/obj/gen/dashboard_assets.o $(call obj,$(filter-out $(fleet_versions),$(polderd_src))) \
  $(addprefix $(BUILD)/obj/%/,$(fleet_versions:.c=.o)) $(RPC) $(NET) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/test/polder-supervisor-other: $(call obj,$(filter-out daemons/supervisor/survive/%,$(supervisor_src))) \
  $(patsubst %.c,$(BUILD)/obj/other/%.o,$(filter daemons/supervisor/survive/%,$(supervisor_src))) $(RPC) $(NET) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/obj/tests/%.o: CPPFLAGS += -Itests/lib
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(TESTS) $(PARTS) $(RPC) $(NET) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(TESTS) $(PARTS) $(RPC) $(NET) $(HTTP) $(LIB) -Wl,--end-group $(LDLIBS) -lcmocka
$(BUILD)/unit/test_frames_peer: LDLIBS += -lwslay
# what happens before each turn of a loop that is in a function of its own
$(BUILD)/unit/test_control_leaving: LDFLAGS += -Wl,--wrap=ev_run
$(BUILD)/unit/test_coding $(BUILD)/system/test_compress $(BUILD)/system/test_compress_stream: LDLIBS += -lbrotlidec
# kill() of a process that a story has not found would end all of them (tests/lib/signals.c)
GUARDED := -Wl,--wrap=kill
$(BUILD)/system/%: $(BUILD)/obj/tests/system/%.o $(TESTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(GUARDED) -o $@ $^ $(LDLIBS) -lcmocka
$(BUILD)/chaos/%: $(BUILD)/obj/tests/chaos/%.o $(call obj,$(chaos_rig_src)) $(TESTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(GUARDED) -o $@ $^ $(LDLIBS) -lcmocka

# The fuzz targets as plain programs, for their corpora; what they are linked with is below.
replay_bins := $(patsubst tests/fuzz/%.c,$(BUILD)/replay/%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/obj/tests/fuzz/fuzz_%.o: WARN := -w
$(BUILD)/replay/fuzz_%: $(BUILD)/obj/tests/fuzz/fuzz_%.o $(BUILD)/obj/tests/fuzz/replay.o $(BUILD)/libfuzzed.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(FUZZ_LIBS)

-include $(shell find $(BUILD)/obj $(BUILD)/dying $(BUILD)/fuzz/obj -name '*.d' 2>/dev/null)

# ---- what a newcomer types ---------------------------------------------------
building = [ -x $(BUILD)/polderd ] || echo "building Polder, which takes some minutes the first time (make -j does it on all cores)"
run: deps-run ## builds, then runs Polder on $PORT (8000) in front of the FastAPI demo, until Ctrl-C; FLEET=3: three as a fleet
	@$(building)
	@$(MAKE) --no-print-directory -s bins
	@tests/demo/run $(BUILD)

loadtest: deps-run ## 100 users of the demo, directly and through Polder; beside `make run` or alone; LOADTEST_SECONDS (60)
	@$(building)
	@$(MAKE) --no-print-directory -s bins $(BUILD)/bench/loadtest
	@tests/demo/loadtest $(BUILD)

test: deps-test ## builds and runs every test
	@$(MAKE) --no-print-directory check

check: test-programs ## every test, without installing packages
	@$(MAKE) --no-print-directory -j1 layering unit system

ws_bins := $(BUILD)/bench/ws_load $(BUILD)/bench/ws_echo $(BUILD)/bench/loadtest
test-programs: bins $(other) $(fleet_next) $(dying) $(unit_bins) $(system_bins) $(chaos_bins) $(ws_bins) $(replay_bins) ## builds the tests

layering: ## who may include whom
	@sh tests/layering.sh

# Those that take longest begin first, so that what runs side by side ends together.
long := test_ws_scale test_fleet_split test_fleet_election test_alerts test_survivor test_fleet_versions test_ws_relay test_conditions test_bodies test_servers \
        test_websocket test_fleet_limits test_cache test_guard test_limits_runtime test_ejection test_poison test_verify \
        test_browser test_resolver test_conformance test_life test_upgrade test_ws_upgrade test_restarts test_deaths \
        test_keeper_crash test_keeper test_master test_limit
longest_first = $(foreach t,$(long),$(filter %/$t,$1)) $(filter-out $(addprefix %/,$(long)),$1)

unit: $(unit_bins) ## the unit tests
	@tests/run-all $(call longest_first,$(unit_bins))

# Not the chaos programs under a sanitizer: they fork beside a thread that may hold its allocator's lock.
# Nor those that are about other programs, or about scale: their paths are those of other stories.
once := test_fleet_valkey test_browser test_conformance test_demo test_monitoring test_loadtest test_ws_clients test_ws_steady test_ws_scale test_hardening
system: bins $(other) $(dying) $(system_bins) $(chaos_bins) $(ws_bins) $(replay_bins) ## the tests that start the real daemon
	@POLDER_BUILD=$(BUILD) $(if $(SANITIZE),POLDER_SANITIZED=1) tests/run-all \
	  $(call longest_first,$(if $(SANITIZE),$(filter-out $(addprefix $(BUILD)/system/,$(once)),$(system_bins)),$(system_bins) $(chaos_bins)))

# CHAOS_SECONDS (60) of CHAOS_UPDATES (1000) a second, CHAOS_KILLS (1000), CHAOS_ROUNDS (30) of one death, CHAOS_CLIENTS
# (1000), CHAOS_RESTARTS (20), CHAOS_DAMAGES (5 kinds), CHAOS_DISK (1); a few seconds' worth of each in `make test`.
chaos: bins $(dying) $(chaos_bins) $(BUILD)/unit/test_fleet_races $(BUILD)/system/test_fleet_limits $(BUILD)/system/test_ws_steady ## deaths, races and restarts at full length, with figures; CHAOS_KILLS, CHAOS_SECONDS, ...
	@for t in $(chaos_bins) $(BUILD)/unit/test_fleet_races $(BUILD)/system/test_fleet_limits $(BUILD)/system/test_ws_steady; do POLDER_LONG=1 POLDER_BUILD=$(BUILD) $(if $(SANITIZE),POLDER_SANITIZED=1) $$t || exit 1; done

systemd: life-bins ## the units under a real systemd in a throw-away container; needs root and systemd-container
	@tests/systemd/run $(BUILD)
	@tests/systemd/life $(BUILD) short polder
life: life-bins deps-bench ## reloads, upgrades, restarts and kills under load, under a real systemd, beside nginx and HAProxy
	@tests/systemd/life $(BUILD) long
# the other version is what upgrades alternate with
life-bins: bins $(BUILD)/bench/life_load $(BUILD)/bench/ws_echo
	@$(MAKE) --no-print-directory -s BUILD=$(BUILD)/next VERSION=$(VERSION)+next $(BUILD)/next/polderd $(BUILD)/next/polder-supervisor
.PHONY: life life-bins
package-test: deb ## installs, upgrades and removes the package in a new Debian 12; needs root and systemd-container
	@tests/deps debootstrap systemd-container
	@tests/systemd/package $(BUILD)
.PHONY: package-test

fuzz_bins := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_src  := $(lib_src) $(http_src) $(filter-out %/server.c %/client.c,$(rpc_src)) daemons/net/listener.c daemons/net/unix_socket.c \
             daemons/supervisor/ws/frames.c $(addprefix daemons/control/model/fleet,.c _base.c _entry.c _hosts.c _lease.c _log.c _marks.c _notes.c _object.c \
             _pending.c _record.c _servers.c _waiters.c) daemons/control/model/store_link.c
FUZZ_LIB  := $(BUILD)/fuzz/libfuzzed.a
$(BUILD)/libfuzzed.a: $(call obj,$(fuzz_src)) $(patsubst /usr/share/llhttp/%.c,$(BUILD)/obj/llhttp/%.o,$(llhttp_src))
	@rm -f $@
	$(AR) rcs $@ $^
FUZZ_CC   ?= clang
FUZZ_SECONDS ?= 20
FUZZ_CFLAGS := -std=c17 -O1 -g $(CX16) -w -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
fuzz: deps-fuzz $(fuzz_bins) ## runs each fuzz target for FUZZ_SECONDS (20)
	@for f in $(fuzz_bins); do n=$${f##*/fuzz_}; mkdir -p $(BUILD)/corpus/$$n; echo "fuzz: $$n"; \
	  $$f -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=0 \
	    $(BUILD)/corpus/$$n $$(ls -d tests/fuzz/corpus/$$n 2>/dev/null) || exit 1; done
$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/obj/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_CFLAGS) -c -o $@ $<
$(FUZZ_LIB): $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(fuzz_src)) $(patsubst /usr/share/llhttp/%.c,$(BUILD)/fuzz/obj/llhttp/%.o,$(llhttp_src))
	@rm -f $@
	$(AR) rcs $@ $^
$(BUILD)/fuzz/fuzz_%: $(BUILD)/fuzz/obj/tests/fuzz/fuzz_%.o $(FUZZ_LIB)
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LDLIBS) $(FUZZ_LIBS)
FUZZ_LIBS ?= -lwslay

bench_bins := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
bench: deps-bench bins $(bench_bins) ## cost of hits, passed requests, 429, new connections and WebSockets against the floor, nginx and HAProxy
	@tests/bench/run $(BUILD)
	@tests/bench/ws $(BUILD)
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(PARTS) $(RPC) $(NET) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(PARTS) $(RPC) $(NET) $(HTTP) $(LIB) -Wl,--end-group $(LDLIBS) -lpthread

sources := $(shell git ls-files '*.c' '*.h' 2>/dev/null)
lint: ## clang-format on all, clang-tidy on what is shipped
	@clang-format --dry-run -Werror $(sources)
	@printf '%s\n' $(filter-out tests/%,$(filter %.c,$(sources))) | \
	  xargs -P $$(nproc) -I FILE clang-tidy --quiet FILE -- $(CPPFLAGS) -std=c17 $(CX16) 2>/dev/null

# Where there is no compiler, what was built is installed as it is.
to := $(DESTDIR)$(PREFIX)
doc := share/doc/polder
man_pages := $(foreach n,1 5 7 8,$(patsubst admin/man/%,share/man/man$(n)/%,$(wildcard admin/man/*.$(n))))
units := $(patsubst systemd/%,lib/systemd/system/%,$(wildcard systemd/*.service systemd/*.socket))
installed := sbin/polderd sbin/polder-supervisor bin/polderctl $(man_pages) $(units) lib/sysusers.d/polder.conf lib/tmpfiles.d/polder.conf \
  share/bash-completion/completions/polderctl share/zsh/site-functions/_polderctl \
  $(addprefix $(doc)/,README.md LICENSE polder.conf polder.logrotate) \
  $(patsubst admin/%,$(doc)/%,$(wildcard admin/examples/* admin/monitoring/*)) $(patsubst systemd/%,$(doc)/%,$(wildcard systemd/drop-ins/*))
place = sed 's|/usr/sbin/|$(PREFIX)/sbin/|g;s|/usr/bin/|$(PREFIX)/bin/|g'
install: $(if $(shell command -v $(firstword $(CC)) 2>/dev/null),bins,built) ## honours DESTDIR and PREFIX
	install -d $(sort $(dir $(addprefix $(to)/,$(installed))))
	install $(INSTALL_STRIP) -m 755 $(BUILD)/polderd $(BUILD)/polder-supervisor $(to)/sbin
	install $(INSTALL_STRIP) -m 755 $(BUILD)/polderctl $(to)/bin
	$(BUILD)/polderctl --completion bash > $(to)/share/bash-completion/completions/polderctl
	$(BUILD)/polderctl --completion zsh > $(to)/share/zsh/site-functions/_polderctl
	install -m 644 README.md LICENSE systemd/polder.conf $(to)/$(doc)
	$(place) systemd/polder.logrotate > $(to)/$(doc)/polder.logrotate
	install -m 644 admin/monitoring/* $(to)/$(doc)/monitoring
	install -m 644 systemd/drop-ins/* $(to)/$(doc)/drop-ins
	install -m 755 admin/examples/* $(to)/$(doc)/examples
	chmod 644 $(to)/$(doc)/examples/*.conf
	for f in $(man_pages); do install -m 644 admin/man/$${f##*/} $(to)/$$f || exit 1; done
	for f in $(units); do $(place) systemd/$${f##*/} > $(to)/$$f || exit 1; done
	install -m 644 systemd/polder.sysusers $(to)/lib/sysusers.d/polder.conf
	install -m 644 systemd/polder.tmpfiles $(to)/lib/tmpfiles.d/polder.conf
	chmod 644 $(addprefix $(to)/,$(units) $(doc)/polder.logrotate share/bash-completion/completions/polderctl share/zsh/site-functions/_polderctl)

install-strip: ## the same, without what a debugger needs
	@$(MAKE) --no-print-directory install INSTALL_STRIP=-s

built:
	@for f in $(bins); do [ -x $$f ] || { echo "$$f is not built, and there is no $(CC) to build it" >&2; exit 1; }; done

uninstall: ## removes what install has put there, and nothing of /etc, /var and /run
	rm -f $(addprefix $(to)/,$(installed))
	for d in $(doc)/examples $(doc)/monitoring $(doc)/drop-ins $(doc); do [ ! -d $(to)/$$d ] || rmdir --ignore-fail-on-non-empty $(to)/$$d; done

# What is in git, uPlot, and the packaging where dpkg-buildpackage looks for it: that is built without a network.
deb: deps-deb ## the Debian package, in $(BUILD)/deb
	@$(dashboard)/prepare
	rm -rf $(BUILD)/deb
	mkdir -p $(BUILD)/deb/polder-$(VERSION)
	{ git ls-files -z 2>/dev/null || find . -name build -prune -o -type f -printf '%P\0'; find $(dashboard)/node_modules -type f -print0; } | \
	  tar -c --null -T - | tar -x -C $(BUILD)/deb/polder-$(VERSION)
	cp -R admin/packaging/debian $(BUILD)/deb/polder-$(VERSION)
	cd $(BUILD)/deb/polder-$(VERSION) && dpkg-buildpackage -b -us -uc
	lintian --fail-on error,warning $(BUILD)/deb/*.changes

clean: ## removes what was built
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

# ---- packages ----------------------------------------------------------------
deps:
	@tests/deps $(DEBS_BUILD)
deps-run:
	@tests/deps $(DEBS_BUILD) $(DEBS_RUN) $(if $(filter-out 1,$(FLEET)),redis-tools)
deps-test:
	@tests/deps $(DEBS_BUILD) $(DEBS_RUN) $(DEBS_TEST)
	@tests/deps --unpack $(TOOLS) prometheus
	@tests/deps --try $(TOOLS) valkey-check-rdb valkey-tools
	@tests/clients/prepare
deps-fuzz:
	@tests/deps $(DEBS_BUILD) clang libclang-rt-14-dev libwslay-dev
deps-deb:
	@tests/deps $(DEBS_BUILD) build-essential debhelper lintian
deps-bench:
	@tests/deps $(DEBS_BUILD) $(DEBS_RUN) nginx-light haproxy wrk curl
.PHONY: deps-run deps-fuzz deps-deb deps-bench
