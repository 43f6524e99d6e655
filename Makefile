# onebyte.  `make help` lists the targets.  Objects live in build/$(MODE)/; the release binary is build/onebyte.
MODE ?= release
CC ?= gcc
PREFIX ?= /usr/local
B := build/$(MODE)
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

DEBS := gcc make pkg-config libsodium-dev libzmq3-dev libopenblas-dev libcmocka-dev libsqlite3-dev libjansson-dev \
        libpcre2-dev libncurses-dev libmicrohttpd-dev python3
LIBS := libsodium libzmq openblas sqlite3 jansson libpcre2-8 ncursesw
cflags-release := -O2 -g
cflags-asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
cflags-tsan := -O1 -g -fsanitize=thread
ldflags-asan := -fsanitize=address,undefined
ldflags-tsan := -fsanitize=thread
WARN := -Wall -Wextra -Wconversion -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Werror
PKG_CFLAGS = $(shell pkg-config --cflags $(LIBS) 2>/dev/null)
PKG_LIBS = $(shell pkg-config --libs $(LIBS) 2>/dev/null)
ALL_CFLAGS = -std=c17 -D_GNU_SOURCE $(WARN) $(cflags-$(MODE)) -Iinclude -I. $(PKG_CFLAGS) -pthread $(CFLAGS)
ALL_LIBS = $(ldflags-$(MODE)) $(LDFLAGS) $(PKG_LIBS) -lm -pthread -ldl

src = $(sort $(wildcard $(1)/*.c $(1)/*/*.c))
obj = $(patsubst %.c,$(B)/%.o,$(1))
ZO := $(call src,zo)
NET := $(call src,net)
PEER := $(filter-out peer/main.c,$(call src,peer))
ZO_LIB := $(B)/libzo.a
NET_LIB := $(B)/libnet.a
PEER_LIB := $(B)/libpeer.a
BIN := $(if $(filter release,$(MODE)),build/onebyte,$(B)/onebyte)
TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/zo/test_*.c tests/net/test_*.c tests/peer/test_*.c))
BENCHES := $(patsubst %.c,$(B)/%,$(wildcard bench/bench_*.c))

.PHONY: all tests benches
all: $(BIN)
tests: $(TESTS)
benches: $(BENCHES)

# ISA flags on single files only; the table in zo/kernels/kernels.c decides at run time.
$(B)/zo/kernels/avx2.o: ISA := -mavx2 -mfma
$(B)/zo/kernels/avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma
$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA) -MMD -MP -c -o $@ $<

$(ZO_LIB): $(call obj,$(ZO))
$(NET_LIB): $(call obj,$(NET))
$(PEER_LIB): $(call obj,$(PEER))
$(B)/lib%.a:
	@rm -f $@
	ar rcs $@ $^
$(BIN): $(B)/peer/main.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(ALL_LIBS)
$(B)/tests/zo/%: $(B)/tests/zo/%.o $(ZO_LIB)
	$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/tests/net/%: $(B)/tests/net/%.o $(NET_LIB)
	$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/tests/peer/%: $(B)/tests/peer/%.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/bench/%: $(B)/bench/%.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(CC) -o $@ $^ $(ALL_LIBS)
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)

.PHONY: clean
clean:
	rm -rf build
