#!/bin/sh
# Builds, tests and measures the GPU backend on a bare machine with a GPU: nvcc, cuBLAS (the toolkit's or PyTorch's), python3
# and PyTorch; no network, none of our packages, nothing but zo, include, tests and bench of this tree.  Under ten minutes.
#
#     bench/gpu.sh [OUT]              figures as JSON lines in OUT/figures.jsonl (default OUT: build/gpu)
#     bench/gpu.sh --emulate [OUT]    the same steps without a GPU, kernels run on the CPU, a tiny shape: tries the script itself
#
# SHAPES="1.3b 13b" chooses shapes; ARCHS="90" the architectures built for (default: this machine's).
set -u
cd "$(dirname "$0")/.." || exit 2
emulate=0
[ "${1:-}" = "--emulate" ] && emulate=1 && shift
out=${1:-build/gpu}
shapes=${SHAPES:-$([ $emulate = 1 ] && echo tiny || echo "1.3b 13b")}
cc=${CC:-gcc}
mkdir -p "$out" || exit 2
figures=$out/figures.jsonl
: > "$figures"
began=$(date +%s)
failures=0
say() { echo "[$(($(date +%s) - began)) s] $*"; }
step() { # NAME SECONDS COMMAND..: never stops the script; a failure is counted and its last lines shown
    name=$1 limit=$2
    shift 2
    if timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
        say "$name: ok"
    else
        say "$name: FAILED (exit $?); the end of $out/$name.log:"
        tail -n 20 "$out/$name.log"
        failures=$((failures + 1))
        return 1
    fi
}

nvcc=${NVCC:-$(command -v nvcc || ls -d /usr/local/cuda*/bin/nvcc 2>/dev/null | tail -n 1)}
python=${PYTHON:-$(command -v python3)}
if [ $emulate = 0 ]; then
    [ -n "$nvcc" ] || { echo "gpu.sh: no nvcc: set NVCC" >&2; exit 2; }
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm --format=csv,noheader ||
        { echo "gpu.sh: no NVIDIA driver here (try --emulate)" >&2; exit 2; }
    archs=${ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d . | sort -u | tr '\n' ' ')}
    # cuBLAS of PyTorch's wheels, where the toolkit has none.
    wheels=$("$python" -c 'import glob, os, torch; d = os.path.dirname(os.path.dirname(torch.__file__)); print(":".join(sorted({os.path.dirname(p) for p in glob.glob(d + "/nvidia/**/libcublas.so*", recursive=True)})))' 2>/dev/null)
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$(dirname "$nvcc")/../lib64${wheels:+:$wheels}
    export LD_LIBRARY_PATH
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
    for f in $sources tests/cuda/emulate.c; do
        extra=
        case $f in */*avx512.c) extra=$avx512 ;; */*avx2.c) extra=$avx2 ;; esac
        case $f in zo/model/ops_*) extra="$extra -O3 -fopenmp-simd" ;; esac
        # shellcheck disable=SC2086
        $cc $flags $extra -c -o "$objects/$(echo "$f" | tr / _).o" "$f" || return 1
    done
    zo=$(ls "$objects"/*.o | grep -v emulate)
    # shellcheck disable=SC2086
    for t in state forward; do
        $cc $flags -o "$out/test_$t" tests/cuda/test_$t.c "$objects/tests_cuda_emulate.c.o" $zo -lm -ldl || return 1
    done
    # shellcheck disable=SC2086
    $cc $flags -o "$out/gpu" bench/gpu.c $zo -lm -ldl
}
if compile > "$out/compile.log" 2>&1; then say "compile: ok"; else say "compile: FAILED"; tail -n 20 "$out/compile.log"; exit 1; fi
wait $waiting || exit 1

# ---- test: state and digest bit for bit, losses against the CPU's ----
if [ $emulate = 1 ]; then
    step test_state 240 "$out/test_state"
    step test_forward 240 "$out/test_forward"
else
    ONEBYTE_CUDA=$PWD/$plugin
    case $plugin in /*) ONEBYTE_CUDA=$plugin ;; esac
    export ONEBYTE_CUDA
    step test_state 60 "$out/test_state"
    step test_forward 90 "$out/test_forward"
    sanitizer=$(command -v compute-sanitizer || ls "$(dirname "$nvcc")/compute-sanitizer" 2>/dev/null)
    if [ -n "$sanitizer" ]; then
        step sanitizer 60 "$sanitizer" --error-exitcode 1 "$out/test_forward" "folding*"
    else
        say "sanitizer: none here"
    fi
    unset ONEBYTE_CUDA
fi
grep -h "FAILED\|PASSED" "$out"/test_*.log

# ---- measure: ours, then PyTorch's MeZO, same shapes and batch ----
case $plugin in /*) ;; *) plugin=$PWD/$plugin ;; esac
for shape in $shapes; do
    batch=$([ "$shape" = tiny ] && echo "4 32" || echo "16 400")
    # shellcheck disable=SC2086
    step "ours_$shape" 150 "$out/gpu" "$plugin" "$shape" $batch
    grep '^{' "$out/ours_$shape.log" >> "$figures"
    # shellcheck disable=SC2086
    if step "torch_$shape" 120 "$python" bench/baselines/torch_mezo.py "$shape" $batch; then
        grep '^{' "$out/torch_$shape.log" >> "$figures"
    fi
done
"$python" bench/gpu_report.py "$figures" | tee "$out/report.md"
say "done: $failures steps failed; figures in $figures"
[ "$failures" = 0 ]
