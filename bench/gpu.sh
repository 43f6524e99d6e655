#!/bin/sh
# Builds, tests and measures the GPU backend on a bare machine with a GPU: nvcc, cuBLAS (the toolkit's or PyTorch's), python3
# and PyTorch; no network, none of our packages, nothing but zo, include, tests and bench of this tree.  Under ten minutes.
#
#     bench/gpu.sh [OUT]              figures as JSON lines in OUT/figures.jsonl (default OUT: build/gpu)
#     bench/gpu.sh --test [OUT]       builds and tests only (make test-gpu)
#     bench/gpu.sh --emulate [OUT]    the same steps without a GPU, kernels run on the CPU, a tiny shape: tries the script itself
#
# SHAPES="tiny 1.3b 13b" chooses shapes; ARCHS="90" the architectures built for (default: this machine's); LIMIT_S=590 ends it:
# what would begin later is left out, and said.  What fails is said and counted, and the next step goes on.
set -u
cd "$(dirname "$0")/.." || exit 2
emulate=0 measure=1
while :; do
    case ${1:-} in
    --emulate) emulate=1 ;;
    --test) measure=0 ;;
    --*) echo "usage: gpu.sh [--test] [--emulate] [OUT]" >&2 && exit 2 ;;
    *) break ;;
    esac
    shift
done
out=${1:-build/gpu}
limit_s=${LIMIT_S:-590}
shapes=${SHAPES:-$([ $emulate = 1 ] && echo tiny || echo "tiny 1.3b 13b")}
cc=${CC:-gcc}
mkdir -p "$out" || exit 2
figures=$out/figures.jsonl
: > "$figures"
began=$(date +%s)
failures=0
say() { echo "[$(($(date +%s) - began)) s] $*"; }
step() { # NAME SECONDS COMMAND..: never stops the script; a failure is counted and its last lines shown
    name=$1 limit=$2 left=$((limit_s - $(date +%s) + began))
    shift 2
    [ "$left" -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 5 ]; then
        say "$name: LEFT OUT, ${limit_s} s are over"
        failures=$((failures + 1))
        return 1
    fi
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    if [ $code = 0 ]; then
        say "$name: ok"
    else
        [ $code = 124 ] && echo "stopped after $limit s" >> "$out/$name.log"
        say "$name: FAILED (exit $code); the end of $out/$name.log:"
        tail -n 20 "$out/$name.log"
        failures=$((failures + 1))
        return 1
    fi
}
ours() { # the same for a program that loads the plug-in
    name=$1 limit=$2
    shift 2
    step "$name" "$limit" env LD_LIBRARY_PATH="$libraries" "$@"
}

libraries=${LD_LIBRARY_PATH:-}
nvcc=${NVCC:-$(command -v nvcc || ls -d /usr/local/cuda*/bin/nvcc 2>/dev/null | tail -n 1)}
python=${PYTHON:-$(command -v python3)}
command -v ${cc%% *} > /dev/null || { echo "gpu.sh: no C compiler: install gcc, or set CC" >&2; exit 2; }
if [ $emulate = 0 ]; then
    [ -n "$nvcc" ] || { echo "gpu.sh: no nvcc: install the CUDA toolkit (12 or 13), or set NVCC" >&2; exit 2; }
    "$nvcc" --version | tail -n 2
    if command -v nvidia-smi > /dev/null; then
        nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm --format=csv,noheader ||
            { echo "gpu.sh: the NVIDIA driver does not answer (try --emulate)" >&2; exit 2; }
        archs=${ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | sort -u | tr '\n' ' ')}
    else
        archs=${ARCHS:-$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null)}
        [ -n "$archs" ] || { echo "gpu.sh: no nvidia-smi, and PyTorch finds no GPU: is the driver installed? (ARCHS=90 tries all the same, --emulate needs no GPU)" >&2; exit 2; }
    fi
    # cuBLAS of PyTorch's wheels, where the toolkit has none.  For our programs alone: PyTorch fails on a toolkit's other release.
    wheels=$("$python" -c 'import glob, os, torch; d = os.path.dirname(os.path.dirname(torch.__file__)); print(":".join(sorted({os.path.dirname(p) for p in glob.glob(d + "/nvidia/**/libcublas.so*", recursive=True)})))' 2>/dev/null)
    libraries=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$nvcc")/../lib64${wheels:+:$wheels}
fi

# ---- build: the plug-in beside the C files ----
flags="-std=c17 -O2 -g -D_GNU_SOURCE -ffunction-sections -Wl,--gc-sections -Iinclude -I. -Itests/cuda/bare -pthread"
sources="$(ls zo/*.c zo/kernels/*.c zo/model/*.c zo/cuda/*.c | grep -v -e zo/blas.c) tests/cuda/bare/jansson.c"
avx2= avx512=
if [ "$(uname -m)" = x86_64 ]; then
    avx2="-mavx2 -mfma"
    avx512="$avx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vpopcntdq"
fi
if [ $emulate = 1 ]; then
    plugin=$out/libonebyte_cuda.so
    step plugin 300 $cc $flags -fPIC -shared -o "$plugin" tests/cuda/emulate.c -lm &
else
    plugin=$out/libonebyte_cuda.so
    gencode=$(for a in $archs; do printf -- '-gencode arch=compute_%s,code=sm_%s ' "$a" "$a"; done)
    step plugin 300 "$nvcc" -std=c++17 -O3 -Iinclude -I. -shared -Xcompiler -fPIC,-fvisibility=hidden $gencode -o "$plugin" \
        zo/cuda/plugin.cu -ldl &
fi
waiting=$!
objects=$out/objects
mkdir -p "$objects"
compile() {
    at=0 most=$(nproc)
    rm -f "$objects"/*.o
    for f in $sources tests/cuda/emulate.c; do
        extra=
        case $f in */*avx512.c) extra=$avx512 ;; */*avx2.c) extra=$avx2 ;; esac
        case $f in zo/model/ops_*) extra="$extra -O3 -fopenmp-simd" ;; esac
        # shellcheck disable=SC2086
        $cc $flags $extra -c -o "$objects/$(echo "$f" | tr / _).o" "$f" &
        at=$((at + 1))
        [ $((at % most)) = 0 ] && wait
    done
    wait
    [ "$(ls "$objects"/*.o | wc -l)" = "$at" ] || return 1
    zo=$(ls "$objects"/*.o | grep -v emulate)
    # shellcheck disable=SC2086
    for t in state forward; do
        $cc $flags -o "$out/test_$t" tests/cuda/test_$t.c "$objects/tests_cuda_emulate.c.o" $zo -lm -ldl || return 1
    done
    # shellcheck disable=SC2086
    $cc $flags -o "$out/gpu" bench/gpu.c $zo -lm -ldl
}
if (compile) > "$out/compile.log" 2>&1; then say "compile: ok"; else say "compile: FAILED"; tail -n 20 "$out/compile.log"; exit 1; fi
wait $waiting || exit 1

# ---- test: state and digest bit for bit, losses against the CPU's ----
case $plugin in /*) ;; *) plugin=$PWD/$plugin ;; esac
if [ $emulate = 0 ]; then
    ONEBYTE_CUDA=$plugin
    export ONEBYTE_CUDA
fi
# First the device alone: none, an old driver or no cuBLAS is one line then, not every test's failure.
ours device 60 "$out/gpu" "$plugin" tiny 1 8 || grep -q '"device"' "$out/device.log" || exit 1
ours test_state 90 "$out/test_state"
ours test_forward 120 "$out/test_forward"
grep -h "FAILED\|PASSED" "$out"/test_*.log

# ---- measure: ours, then PyTorch's MeZO, same shapes and batch ----
[ $measure = 0 ] && shapes=
for shape in $shapes; do
    batch=$([ "$shape" = tiny ] && echo "4 32" || echo "16 400")
    # shellcheck disable=SC2086
    ours "ours_$shape" 150 "$out/gpu" "$plugin" "$shape" $batch
    grep '^{' "$out/ours_$shape.log" >> "$figures"
    # shellcheck disable=SC2086
    step "torch_$shape" 120 "$python" bench/baselines/torch_mezo.py "$shape" $batch
    grep '^{' "$out/torch_$shape.log" >> "$figures"
done
[ $measure = 0 ] || "$python" bench/gpu_report.py "$figures" | tee "$out/report.md"

# ---- compute-sanitizer on short runs: memory, races in shared memory, barriers; what was never written, in our kernels alone ----
sanitizer=$(command -v compute-sanitizer || ls "$(dirname "${nvcc:-/}")/compute-sanitizer" "$(dirname "${nvcc:-/}")/../compute-sanitizer/compute-sanitizer" 2>/dev/null | head -n 1)
if [ $emulate = 1 ]; then
    say "sanitizer: needs a GPU"
elif [ -z "$sanitizer" ]; then
    say "sanitizer: no compute-sanitizer here (it comes with the CUDA toolkit)"
else
    # Our kernels alone (the option is of CUDA 12.3), as cuBLAS's are not ours to mend.  Calls that fail and are handled (a graph of
    # another shape, what cuBLAS tries) are no error; ours are all checked.
    only=$("$sanitizer" --help | grep -q kernel-name && echo "--kernel-name kns=kernel_")
    for tool in "memcheck --report-api-errors no" racecheck synccheck initcheck; do
        for t in "state the_fold*" "forward folding*"; do
            [ "$tool$t" = "initcheckforward folding*" ] && continue # what cuBLAS wrote would count as never written
            # shellcheck disable=SC2086
            ours "${tool%% *}_${t%% *}" 60 "$sanitizer" --tool $tool $only --error-exitcode 1 "$out/test_${t%% *}" "${t#* }"
        done
    done
fi
[ $measure = 0 ] || say "figures in $figures, their table in $out/report.md"
say "done: $failures steps failed"
[ "$failures" = 0 ]
