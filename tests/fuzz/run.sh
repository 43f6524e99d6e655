#!/bin/sh
# tests/fuzz/run.sh SECONDS NAME ... -- each target from its corpus for so many seconds of CPU time (a busy machine takes longer,
# six times at most); first the canary, which must fail.
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
hertz=$(getconf CLK_TCK)
failed=0
for name in "$@"; do
    mkdir -p "$out/$name"
    build/fuzz/tests/fuzz/"fuzz_$name" -max_total_time=$((6 * seconds)) -timeout=20 -rss_limit_mb=2048 -max_len=8192 \
        -artifact_prefix="$out/$name-" "$out/$name" "tests/fuzz/corpus/$name" >"$out/$name.log" 2>&1 &
    pid=$!
    used=0
    while now=$(awk -v hz="$hertz" '{sub(/.*\) /, ""); if ($1 != "Z") printf "%d", ($12 + $13) / hz}' /proc/$pid/stat 2>/dev/null) &&
        [ -n "$now" ]; do # empty: it ended by itself
        used=$now
        if [ "$used" -ge "$seconds" ]; then
            kill -USR1 $pid # libFuzzer ends in good order
            break
        fi
        sleep 1
    done
    if wait $pid; then
        echo "ok $name: $(grep -o '^#[0-9]*' "$out/$name.log" | tail -1 | tr -d '#') runs in $used s of CPU time"
    else
        echo "FAIL $name after $used s of CPU time: see $out/$name.log" >&2
        failed=1
    fi
done
exit $failed
