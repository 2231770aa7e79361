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
CX16     := $(if $(filter x86_64,$(ARCH)),-mcx16)
CPPFLAGS += -D_GNU_SOURCE -DPOLDER_VERSION='"$(VERSION)"' -DLLHTTP_STRICT_MODE=1 -Iinclude -I. -I/usr/share/include/llhttp -I/usr/include/llhttp
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla $(if $(WERROR),-Werror)
CFLAGS   += -std=c17 $(OPT) -g $(CX16) $(WARN) $(SAN) -fno-strict-aliasing
LDFLAGS  += $(SAN)
LDLIBS   := -lev -llmdb -lmsgpackc -lconfuse -ljansson -lxxhash -lsystemd -lm

DEBS_BUILD := gcc make pkg-config libc6-dev libev-dev liblmdb-dev libmsgpack-dev libcmocka-dev node-llhttp \
              libconfuse-dev libjansson-dev libxxhash-dev libsystemd-dev
DEBS_RUN   := python3 python3-fastapi uvicorn python3-uvloop python3-httptools python3-websockets
DEBS_TEST  := curl libwslay-dev python3-msgpack

# ---- what is built from what -------------------------------------------------
lib_src        := $(wildcard libshared/*.c)
http_src       := $(wildcard daemons/http/*.c)
rpc_src        := $(wildcard daemons/rpc/*.c)
polderd_src    := $(wildcard daemons/master/*.c daemons/worker/*.c daemons/keeper/*.c daemons/control/*.c)
supervisor_src := $(wildcard daemons/supervisor/*.c)
ctl_src        := $(wildcard admin/*.c)
llhttp_src     := $(wildcard /usr/share/llhttp/*.c)
unit_src       := $(wildcard tests/unit/test_*.c)
system_src     := $(wildcard tests/system/test_*.c)
harness_src    := $(filter-out $(system_src),$(wildcard tests/system/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
mains := daemons/master/main.c daemons/supervisor/main.c admin/main.c

LIB   := $(BUILD)/libshared.a
HTTP  := $(BUILD)/libhttp.a
RPC   := $(BUILD)/librpc.a
PARTS := $(BUILD)/libdaemons.a
bins  := $(BUILD)/polderd $(if $(supervisor_src),$(BUILD)/polder-supervisor) $(if $(ctl_src),$(BUILD)/polderctl)
unit_bins   := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(unit_src))
system_bins := $(patsubst tests/system/%.c,$(BUILD)/system/%,$(system_src))

.PHONY: all run test check unit system layering lint bench fuzz deps deps-test install clean help
all: deps
	@$(MAKE) --no-print-directory bins
.PHONY: bins
bins: $(bins)

$(LIB): $(call obj,$(lib_src))
$(HTTP): $(call obj,$(http_src)) $(patsubst /usr/share/llhttp/%.c,$(BUILD)/obj/llhttp/%.o,$(llhttp_src))
$(RPC): $(call obj,$(rpc_src))
$(PARTS): $(call obj,$(filter-out $(mains),$(polderd_src) $(supervisor_src)))
$(LIB) $(HTTP) $(RPC) $(PARTS):
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/polderd: $(call obj,$(polderd_src)) $(RPC) $(HTTP) $(LIB)
$(BUILD)/polder-supervisor: $(call obj,$(supervisor_src)) $(RPC) $(HTTP) $(LIB)
$(BUILD)/polderctl: $(call obj,$(ctl_src)) $(LIB)
$(bins):
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/obj/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -O3 -g $(SAN) -w -c -o $@ $<

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(PARTS) $(RPC) $(HTTP) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(PARTS) $(RPC) $(HTTP) $(LIB) -Wl,--end-group $(LDLIBS) -lcmocka
$(BUILD)/system/%: $(BUILD)/obj/tests/system/%.o $(call obj,$(harness_src)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

clean: ## removes what was built
	rm -rf $(BUILD)
