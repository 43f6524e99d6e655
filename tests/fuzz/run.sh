#!/bin/sh
# tests/fuzz/run.sh SECONDS NAME ... -- each target from its corpus for so long; first the canary, which must fail.
# What is found (crashing inputs, new coverage) stays in build/fuzz/out.
seconds=$1
shift
out=build/fuzz/out
mkdir -p $out
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
if build/fuzz/tests/fuzz/fuzz_canary -max_total_time=60 -seed=1 -artifact_prefix=$out/canary- >$out/canary.log 2>&1; then
    echo "fuzz: the canary did not fail: nothing would be found" >&2
    exit 1
fi
rm -f $out/canary-*
failed=0
for name in "$@"; do
    mkdir -p "$out/$name"
    if build/fuzz/tests/fuzz/"fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
        -artifact_prefix="$out/$name-" "$out/$name" "tests/fuzz/corpus/$name" >"$out/$name.log" 2>&1; then
        echo "ok $name: $(grep -o 'Done [0-9]* runs' "$out/$name.log")"
    else
        echo "FAIL $name: see $out/$name.log" >&2
        failed=1
    fi
done
exit $failed
