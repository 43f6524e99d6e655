# onebyte.  `make help` lists the targets.  Objects live in build/$(MODE)/; the release binary is build/onebyte.
MODE ?= release
CC ?= gcc
PREFIX ?= /usr/local
B := build/$(MODE)
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
# One short line per file; V=1 shows the commands, make -s nothing.
V ?= 0
say = $(if $(filter 1,$(V)),,@$(if $(findstring s,$(filter-out -%,$(firstword $(MAKEFLAGS)))),,printf '  %-4s %s\n' $(1) $@ && ))
MAKEFLAGS += --no-builtin-rules

LIBS := libsodium libzmq openblas sqlite3 jansson libpcre2-8 libutf8proc ncursesw libmicrohttpd
cflags-release := -O2 -g
cflags-asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
cflags-tsan := -O1 -g -fsanitize=thread
ldflags-release := -Wl,-z,relro,-z,now
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
TESTS := $(patsubst %.c,$(B)/%,$(wildcard tests/zo/test_*.c tests/net/test_*.c tests/peer/test_*.c tests/cuda/test_*.c))
LIAR := $(if $(filter release,$(MODE)),$(B)/tests/e2e/liar)
BENCHES := $(patsubst %.c,$(B)/%,$(wildcard bench/bench_*.c))

.PHONY: all tests benches
all: $(BIN)
tests: $(TESTS) $(LIAR) $(if $(filter release,$(MODE)),build/cuda/emulated/libonebyte_cuda.so)
benches: $(BENCHES)

# Files that embed.c takes in with .incbin: the compiler's own dependencies do not know them.
$(B)/peer/demo/embed.o: $(wildcard peer/demo/model/* peer/demo/*.jsonl)

# ISA flags on single files only; the table in zo/kernels/kernels.c decides at run time.
$(B)/zo/kernels/avx2.o: ISA := -mavx2 -mfma
$(B)/zo/state.o: ISA := -O3
$(B)/zo/kernels/avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vpopcntdq -mavx2 -mfma
$(B)/zo/model/ops_ref.o: ISA := -O3 -fopenmp-simd -Wno-pass-failed
$(B)/zo/model/ops_avx2.o: ISA := -O3 -fopenmp-simd -Wno-pass-failed -mavx2 -mfma
$(B)/zo/model/ops_avx512.o: ISA := -O3 -fopenmp-simd -Wno-pass-failed -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
$(B)/zo/model/gemm_ref.o: ISA := -O3
$(B)/zo/model/gemm_avx2.o: ISA := -O3 -mavx2 -mfma
$(B)/zo/model/gemm_avx512.o: ISA := -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(ALL_CFLAGS) $(ISA) -MMD -MP -c -o $@ $<

$(ZO_LIB): $(call obj,$(ZO))
$(NET_LIB): $(call obj,$(NET))
$(PEER_LIB): $(call obj,$(PEER))
$(B)/lib%.a:
	@rm -f $@
	$(call say,AR)ar rcs $@ $^
$(BIN): $(B)/peer/main.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) -o $@ $^ $(ALL_LIBS)
$(B)/tests/zo/%: $(B)/tests/zo/%.o $(ZO_LIB)
	$(call say,LINK)$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/tests/net/%: $(B)/tests/net/%.o $(NET_LIB)
	$(call say,LINK)$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/tests/peer/%: $(B)/tests/peer/%.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(call say,LINK)$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)
$(B)/tests/e2e/liar: $(B)/peer/main.o $(B)/tests/e2e/liar.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(call say,LINK)$(CC) -Wl,--wrap=zo_codec_seal -o $@ $^ $(ALL_LIBS)
$(B)/bench/%: $(B)/bench/%.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(call say,LINK)$(CC) -o $@ $^ $(ALL_LIBS)
# ---- the hostile peer (tests/attack): built for the tests, never installed ----
ATTACK := build/release/tests/attack/attack
$(B)/tests/attack/attack: $(patsubst %.c,$(B)/%.o,$(wildcard tests/attack/*.c)) $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	$(call say,LINK)$(CC) -o $@ $^ $(ALL_LIBS)
.PHONY: attack
attack: all $(ATTACK) ## every attack of tests/attack on a swarm of real peers, and what a flood costs them: minutes
	@python3 tests/e2e/test_attack.py full flood

# The CUDA kernels, compiled as C: tests/cuda/emulate.h.
$(B)/tests/cuda/%: $(B)/tests/cuda/%.o $(B)/tests/cuda/emulate.o $(ZO_LIB)
	$(call say,LINK)$(CC) -o $@ $^ -lcmocka $(ALL_LIBS)

# ---- CUDA (zo/cuda): a plug-in that the program finds with dlopen; nothing else links CUDA ----
CUDA ?= 0
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(lastword $(sort $(wildcard /usr/local/cuda*/bin/nvcc))))
CUDA_ARCHS ?= 75 80 86 89 90
CUDA_PLUGIN ?= build/libonebyte_cuda.so
CUDA_EMULATED := build/cuda/emulated/libonebyte_cuda.so
NVCCFLAGS = -std=c++17 -O3 -Iinclude -I. -shared -Xcompiler -fPIC,-fvisibility=hidden,-Wall -Xptxas -warn-spills \
    $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
    -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
$(CUDA_PLUGIN): $(wildcard zo/cuda/*.cu zo/cuda/*.cuh) zo/cuda/abi.h zo/modp.h include/onebyte/zo/philox.h include/onebyte/base/err.h Makefile
	@test -n "$(NVCC)" || { echo "onebyte: no nvcc: install the CUDA toolkit, or set NVCC" >&2; exit 1; }
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) -o $@ zo/cuda/plugin.cu -ldl
# The same table with the kernels run on the CPU, for tests with real processes.
$(CUDA_EMULATED): tests/cuda/emulate.c tests/cuda/emulate.h $(wildcard zo/cuda/*.cuh) zo/cuda/abi.h zo/modp.h include/onebyte/zo/philox.h
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -fPIC -shared -o $@ tests/cuda/emulate.c $(ALL_LIBS)
ifneq ($(filter 1 yes,$(CUDA)),)
all: $(CUDA_PLUGIN)
endif
.PHONY: test-gpu have-nvcc
have-nvcc:
	@test -n "$(NVCC)"
test-gpu: ## the numeric tests on this machine's GPU, and compute-sanitizer on short runs; needs nvcc and gcc, no package
	@NVCC="$(NVCC)" sh bench/gpu.sh --test build/gpu-test
	@if $(HAVE_DEPS); then $(MAKE) --no-print-directory all && python3 tests/run.py tests/e2e/test_cuda.py; \
	else echo "test-gpu: a CPU peer beside a GPU peer needs the packages of make deps: left out"; fi
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)


# ---- tests ----
# test_netns.py needs namespaces and nftables: make test-netns.
E2E := $(sort $(filter-out tests/e2e/test_netns.py,$(wildcard tests/e2e/test_*.py)))
ASAN_TESTS = $(patsubst $(B)/%,build/asan/%,$(TESTS))
TSAN_TESTS = $(patsubst tests/%.c,build/tsan/tests/%,$(wildcard tests/zo/test_pool.c tests/peer/test_pipe.c))
# One dependency is enough: make demo and make test install what is missing by themselves.
HAVE_DEPS = pkg-config --exists $(LIBS) && test -e /usr/include/cmocka.h

# What PyTorch, transformers, PEFT and tokenizers say of the same; skipped where those can't be installed.
REFERENCE := $(patsubst %,tests/check_%.py,models runs tokenizers templates)
REFERENCE_TOOLS := $(patsubst %,$(B)/tests/zo/%,test_model encode_texts render_chat)

.PHONY: test test-reference reference-venv test-netns test-unit test-asan test-tsan demo deps deps-lint need-deps help lint install bench bench-quick results results-short results-need
need-deps:
	@$(HAVE_DEPS) || $(MAKE) --no-print-directory deps
test: need-deps ## everything: unit, simulator, e2e, sanitizers; installs what is missing
	@dpkg -s $(DEBS_test) >/dev/null 2>&1 || $(call try,$(DEBS_test)) || echo "onebyte: no $(DEBS_test): the tests that need them will be skipped"
	@$(MAKE) --no-print-directory -j2 all tests $(REFERENCE_TOOLS) $(ATTACK)
	@$(MAKE) --no-print-directory lib
	@$(MAKE) --no-print-directory reference-venv
	@$(MAKE) --no-print-directory -j2 MODE=asan tests $(FUZZ_REPLAY)
	@$(MAKE) --no-print-directory -j2 MODE=tsan $(TSAN_TESTS)
	@python3 tests/run.py $(TESTS) $(ASAN_TESTS) $(FUZZ_REPLAY) $(TSAN_TESTS) $(E2E) $(REFERENCE)
test-reference: all $(REFERENCE_TOOLS) reference-venv ## against PyTorch, transformers, PEFT, tokenizers, llama.cpp: all of it, minutes
	@for c in $(REFERENCE:%=%\ --all) "tests/check_models.py --seed 2" tests/check_llama.py; do python3 $$c || exit 1; done
reference-venv: ## build/venv with those libraries: 4 minutes at most, and never a failure
	@python3 tests/reference/install.py
test-netns: need-test-netns ## eight peers in network namespaces: a partition, NAT
	@python3 tests/run.py tests/e2e/test_netns.py
test-unit: tests ## the unit tests alone, release build
	@python3 tests/run.py $(TESTS)
test-asan: ## unit tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -j2 MODE=asan tests
	@python3 tests/run.py $(ASAN_TESTS)
test-tsan: ## thread tests under ThreadSanitizer
	@$(MAKE) --no-print-directory -j2 MODE=tsan $(TSAN_TESTS)
	@python3 tests/run.py $(TSAN_TESTS)
demo: need-deps ## builds and runs the main job on the embedded model: no download
	@$(MAKE) --no-print-directory -j2 all
	@build/onebyte demo

# ---- installing what is missing ----
# Debian packages, by who needs them.  None starts a daemon.
DEBS_build := gcc make pkg-config libsodium-dev libzmq3-dev libopenblas-dev libcmocka-dev libsqlite3-dev libjansson-dev \
              libpcre2-dev libutf8proc-dev libncurses-dev libmicrohttpd-dev python3
DEBS_test := systemd man-db zsh fish
DEBS_lint := clang-tidy cppcheck git
DEBS_lint-deb := $(DEBS_test) lintian
DEBS_test-netns := iproute2 nftables
DEBS_test-browser := chromium
DEBS_test-systemd := systemd
DEBS_test-readme := iproute2
DEBS_fuzz := clang libclang-rt-dev llvm
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)
apt_get = env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -q && apt-get install -q -y --no-install-recommends --no-upgrade $(1)"
need = dpkg -s $(1) >/dev/null 2>&1 || { for i in 1 2 3; do $(SUDO) $(call apt_get,$(1)) && exit 0; sleep 10; done; \
       echo "onebyte: could not install: $(1): check the network and /etc/apt/sources.list" >&2; exit 1; }
# What a test can do without: no question, no failure.
try = timeout -k 5 300 $(SUDO:sudo=sudo -n) $(call apt_get,$(1)) </dev/null
deps: ## installs the Debian packages that building and testing need
	@$(call need,$(DEBS_build))
	@python3 -c "import ensurepip, venv" 2>/dev/null || $(call try,python3-venv) || \
	    echo "onebyte: no python3-venv: the checks against PyTorch and transformers will be skipped"
deps-lint: ## installs the analysers
	@$(call need,$(DEBS_lint))
need-%: need-deps
	@$(call need,$(DEBS_$*))
	@$(MAKE) --no-print-directory -j2 all
# Out of Debian's package, which would start a server.
build/tools/promtool:
	@mkdir -p $(@D) && cd $(@D) && apt-get download -q prometheus
	@dpkg-deb --fsys-tarfile $(@D)/prometheus_*.deb | tar -x -C $(@D) --strip-components=3 ./usr/bin/promtool

# ---- simulator (tests/sim): virtual time, every fault, from one seed ----
SEED ?= 1
PEERS ?= 30
HOURS ?= 0.05
SEEDS ?= 1
$(B)/tests/sim/sim: $(B)/tests/sim/sim.o $(B)/tests/sim/world.o $(NET_LIB)
	$(call say,LINK)$(CC) -o $@ $^ $(ALL_LIBS)
.PHONY: sim sim-soak sim-swarm
sim: $(B)/tests/sim/sim ## one simulated swarm: SEED= PEERS= HOURS=, or SEEDS= of them from SEED on
	@$< $(SEED) $(PEERS) $(HOURS) $(SEEDS)
sim-soak: $(B)/tests/sim/sim ## 10,000 seeds x 30 peers
	@$< $(SEED) 30 0.02 10000
sim-swarm: $(B)/tests/sim/sim ## 1,000 peers and 1,000,000 records: time, memory, traffic
	@$< swarm 1000 1000000

# ---- fuzzing (tests/fuzz): clang's libFuzzer; `make test` replays the corpora without clang ----
T ?= 60
F ?= segment gossip control transport manifest invite ledger safetensors tokenizer jsonl config template socket evidence
cflags-fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-error -DFUZZ_ONE
build/fuzz/zo/kernels/avx512.o: cflags-fuzz := -O1 -g -Wno-error # no parser, and minutes of clang's time with the sanitizers
ldflags-fuzz := -fsanitize=fuzzer,address,undefined
FUZZ_REPLAY := build/asan/tests/fuzz/replay
.PHONY: fuzz fuzz-build
fuzz: need-fuzz ## every parser against libFuzzer for T=60 s each, F=NAME for one; the canary must fail
	@$(MAKE) --no-print-directory -j2 CC=clang MODE=fuzz fuzz-build
	@sh tests/fuzz/run.sh $(T) $(F)
fuzz-build: $(foreach f,canary $(F),$(B)/tests/fuzz/fuzz_$(f))
$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	@$(CC) -o $@ $^ $(ALL_LIBS)
$(B)/tests/fuzz/replay: $(patsubst %.c,$(B)/%.o,$(wildcard tests/fuzz/*.c)) $(PEER_LIB) $(NET_LIB) $(ZO_LIB)
	@$(CC) -o $@ $^ $(ALL_LIBS)

# ---- benches ----
bench: all benches ## every figure against its baseline, a Markdown table; under 10 minutes
	@python3 bench/run.py
results: results-need ## what it learns, beside the references, into bench/results: hours; the figures of RESULTS.md
	@python3 bench/results.py $(RESULTS)
results-short: results-need ## the same on the embedded task alone, one seed, into build/results/short: minutes
	@python3 bench/results.py --short $(RESULTS)
results-need: need-deps
	@$(MAKE) --no-print-directory -j2 all benches
	@$(MAKE) --no-print-directory reference-venv
bench-quick: all benches ## the same ratios on a small shape, under 60 s; fails if one is 25 % off its bound
	@python3 bench/run.py --quick

# ---- analysers ----
SOURCES = $(ZO) $(NET) $(PEER) peer/main.c
TIDY = $(patsubst %.c,$(B)/tidy/%.ok,$(SOURCES))
lint: deps-lint ## clang-tidy, cppcheck, layers, banned calls, lengths
	@python3 tests/lint.py
	@cppcheck -q -j2 --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -Iinclude -I. \
	    --suppress=missingIncludeSystem --suppress=missingInclude -D_GNU_SOURCE --max-configs=2 zo net peer
	@$(MAKE) --no-print-directory -j2 $(TIDY)
	@echo "lint: nothing found"
$(B)/tidy/%.ok: %.c .clang-tidy
	@mkdir -p $(@D)
	@clang-tidy --quiet $< -- -std=c17 -D_GNU_SOURCE -Iinclude -I. $(PKG_CFLAGS) $(ISA) 2>/dev/null
	@touch $@
$(B)/tidy/zo/kernels/avx2.ok: ISA := -mavx2 -mfma
$(B)/tidy/zo/model/gemm_avx2.ok: ISA := -mavx2 -mfma
$(B)/tidy/zo/model/gemm_avx512.ok: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma
$(B)/tidy/zo/kernels/avx512.ok: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vpopcntdq -mavx2 -mfma

.PHONY: clean
clean: ## removes build/
	rm -rf build
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' Makefile | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

# ---- packaging: man pages and completions come from the program's own option tables ----
$(B)/peer/web.o: peer/dist/page.html
install: all ## binary, man pages, completions, units, libonebyte: PREFIX=/usr/local, DESTDIR=
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) BINARY=$(BIN) sh peer/dist/install.sh
	@if [ -e build/libonebyte.a ]; then PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) sh peer/dist/install_lib.sh "$(LIBS)"; fi
lib: ## build/libonebyte.{a,so}: the core for other programs (include/onebyte/tune.h)
	@$(MAKE) --no-print-directory -j2 MODE=pic libonebyte
.PHONY: lib libonebyte deb
cflags-pic := -O2 -g -fPIC -fvisibility=hidden
libonebyte: $(call obj,$(ZO) $(NET) $(PEER))
	@ld -r -o $(B)/onebyte.o $^ && objcopy --localize-hidden $(B)/onebyte.o
	@rm -f build/libonebyte.a && ar rcs build/libonebyte.a $(B)/onebyte.o
	@$(CC) -shared -Wl,-soname,libonebyte.so.1 -Wl,-z,defs -o build/libonebyte.so.1 $^ $(ALL_LIBS) && ln -sf libonebyte.so.1 build/libonebyte.so
deb: all ## build/onebyte_VERSION_ARCH.deb
	@BINARY=$(BIN) sh peer/dist/deb.sh
.PHONY: lint-deb test-browser test-systemd test-readme
lint-deb: need-lint-deb ## the package, the metrics, the units, the shells, the library, as others' tools see them
	@$(MAKE) --no-print-directory lib build/tools/promtool
	@PATH="$(CURDIR)/build/tools:$$PATH" python3 tests/run.py tests/e2e/test_package.py
test-browser: need-test-browser ## page and plot in a real browser (chromium); pictures in build/browser
	@python3 tests/run.py tests/browser/test_page.py
test-readme: need-test-readme ## README's three machines, every command as written, in three network namespaces
	@python3 tests/run.py tests/readme/test_readme.py
test-systemd: need-test-systemd ## both units under a real systemd of our own: ready, watchdog, system call filter (root)
	@python3 tests/run.py tests/systemd/test_units.py
