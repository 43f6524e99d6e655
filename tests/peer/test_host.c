/* When a volunteer's machine may compute: hours, battery, others' load, rates; facts from folders made here. */
#include "peer/host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static bool says(const char *text, const char *word)
{
    return text && strstr(text, word) == text;
}

static void hours_may_span_midnight(void **state)
{
    struct peer_host_limits l = {0};
    struct peer_host_facts f = {.others = -1};
    struct err_why why = {{0}};
    (void)state;
    assert_int_equal(peer_host_hours(&l, "22-6", &why), ERR_OK);
    const uint32_t in[] = {22 * 60, 23 * 60 + 59, 0, 5 * 60 + 59},
                   out[] = {6 * 60, 12 * 60, 21 * 60 + 59};
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        f.minute = in[i];
        assert_null(peer_host_judge(&l, &f));
    }
    for (size_t i = 0; i < ARRAY_LEN(out); i++) {
        f.minute = out[i];
        assert_true(says(peer_host_judge(&l, &f), "hours"));
    }
    assert_int_equal(peer_host_hours(&l, "9-17", &why), ERR_OK);
    f.minute = 9 * 60;
    assert_null(peer_host_judge(&l, &f));
    f.minute = 17 * 60;
    assert_true(says(peer_host_judge(&l, &f), "hours"));
    static const char *const wrong[] = {"",      "22",  "22-", "-6",  "22-25",
                                        "22-6h", "6-6", "a-b", " 1-2"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(peer_host_hours(&l, wrong[i], &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "--hours"));
}

static void load_and_battery_hold(void **state)
{
    struct peer_host_limits l = {.only_idle = true, .off_on_battery = true};
    struct peer_host_facts f = {.others = 0.5, .quiet_s = 0};
    (void)state;
    assert_true(says(peer_host_judge(&l, &f), "busy"));
    f = (struct peer_host_facts){.others = 0.01, .quiet_s = 10}; /* quiet, but not for long */
    assert_true(says(peer_host_judge(&l, &f), "busy"));
    f.quiet_s = 61;
    assert_null(peer_host_judge(&l, &f));
    f.on_battery = true;
    assert_true(says(peer_host_judge(&l, &f), "battery"));
    l = (struct peer_host_limits){0};
    assert_null(peer_host_judge(&l, &f));
    f = (struct peer_host_facts){.others = -1}; /* unknown: no reason to stop */
    l.only_idle = true;
    assert_null(peer_host_judge(&l, &f));
}

static void put(const char *root, const char *path, const char *text)
{
    char full[512];
    (void)snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *p = full + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            (void)mkdir(full, 0700);
            *p = '/';
        }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void supplies_are_read(void **state)
{
    char root[] = "/tmp/onebyte-host-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_false(peer_host_on_battery(root)); /* a desktop: no such folder */
    put(root, "sys/class/power_supply/hidpp/type", "Battery\n");
    put(root, "sys/class/power_supply/hidpp/scope", "Device\n");
    put(root, "sys/class/power_supply/hidpp/status", "Discharging\n");
    assert_false(peer_host_on_battery(root)); /* a mouse */
    put(root, "sys/class/power_supply/BAT0/type", "Battery\n");
    put(root, "sys/class/power_supply/BAT0/status", "Discharging\n");
    assert_true(peer_host_on_battery(root));
    put(root, "sys/class/power_supply/AC/type", "Mains\n");
    put(root, "sys/class/power_supply/AC/online", "0\n");
    assert_true(peer_host_on_battery(root));
    put(root, "sys/class/power_supply/AC/online", "1\n");
    assert_false(peer_host_on_battery(root));
    uint64_t busy = 1, total = 1, own = 1;
    assert_false(peer_host_ticks(root, &busy, &total, &own));
    put(root, "proc/stat", "cpu  100 20 30 1000 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
    put(root, "proc/self/stat", "1 (a b) c) R 1 1 1 0 -1 4194304 1 2 3 4 70 9 0 0 20\n");
    assert_true(peer_host_ticks(root, &busy, &total, &own));
    assert_int_equal(total, 1221);
    assert_int_equal(busy, 171);
    assert_int_equal(own, 79);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", root);
    FILE *rm = popen(command, "r");
    assert_non_null(rm);
    assert_int_equal(pclose(rm), 0);
    assert_true(peer_host_ticks("", &busy, &total, &own)); /* this machine's */
    assert_true(busy <= total);
}

static void heat_is_read(void **state)
{
    char root[] = "/tmp/onebyte-heat-XXXXXX", command[64];
    uint64_t events = 1;
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_true(isnan(peer_host_temperature(root))); /* a virtual machine: no sensor */
    assert_false(peer_host_throttled(root, &events));
    put(root, "sys/class/thermal/thermal_zone0/type", "acpitz\n");
    put(root, "sys/class/thermal/thermal_zone0/temp", "99000\n");
    assert_true(isnan(peer_host_temperature(root))); /* the board's */
    put(root, "sys/class/thermal/thermal_zone1/type", "x86_pkg_temp\n");
    put(root, "sys/class/thermal/thermal_zone1/temp", "54500\n");
    assert_true(peer_host_temperature(root) == 54.5);
    put(root, "sys/class/hwmon/hwmon0/name", "nvme\n");
    put(root, "sys/class/hwmon/hwmon0/temp1_input", "70000\n");
    assert_true(peer_host_temperature(root) == 54.5);
    put(root, "sys/class/hwmon/hwmon1/name", "k10temp\n");
    put(root, "sys/class/hwmon/hwmon1/temp1_input", "61000\n");
    assert_true(peer_host_temperature(root) == 61);
    put(root, "sys/class/hwmon/hwmon1/temp1_input", "what\n");
    assert_true(peer_host_temperature(root) == 54.5);
    put(root, "sys/devices/system/cpu/cpufreq/x", "");
    put(root, "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3\n");
    put(root, "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "4\n");
    assert_true(peer_host_throttled(root, &events));
    assert_int_equal(events, 7);
    (void)snprintf(command, sizeof command, "rm -r %s", root);
    FILE *rm = popen(command, "r");
    assert_non_null(rm);
    assert_int_equal(pclose(rm), 0);
}

/* Over any stretch, what passed is at most rate x time + one second's burst + one event. */
static void a_bucket_holds_its_rate(void **state)
{
    struct peer_bucket b = {0};
    const uint64_t rate = 1000, second = 1000000000, event = 5000;
    uint64_t now = second, total = 0;
    (void)state;
    assert_int_equal(peer_bucket_wait(&b, 0, 99999, now), 0); /* no limit */
    assert_int_equal(peer_bucket_wait(&b, rate, 0, now), 0);
    for (int i = 0; i < 200; i++) {
        const uint64_t wait = peer_bucket_wait(&b, rate, total, now);
        if (wait) {
            now += wait;
            continue;
        }
        total += event;
        now += second / 100;
        assert_true(total <= rate * (now - second) / second + rate + event);
    }
    assert_true(total >= rate * (now - second) / second); /* and it is used */
    (void)peer_bucket_wait(&b, rate, total, now + 3600 * second);
    assert_true(b.left <= (double)rate); /* an idle hour is no credit */
    b = (struct peer_bucket){0};
    (void)peer_bucket_wait(&b, rate, 500, now);
    assert_int_equal(peer_bucket_wait(&b, rate, 400, now), 0); /* a count that fell is no endless debt */
}

static void limits_are_the_kernels(void **state)
{
    (void)state;
    const pid_t pid = fork(); /* limits cannot be taken back */
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct peer_host_limits l = {.nice = 5, .memory_mb = 4000};
        struct err_why why;
        const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        const bool good = peer_host_apply(&l, 2, &why) == ERR_OK && getpriority(PRIO_PROCESS, 0) >= 5 &&
                          mmap(NULL, 1000000000, PROT_READ | PROT_WRITE, how, -1, 0) != MAP_FAILED &&
                          mmap(NULL, 4000000000, PROT_READ | PROT_WRITE, how, -1, 0) == MAP_FAILED;
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hours_may_span_midnight), cmocka_unit_test(load_and_battery_hold),
        cmocka_unit_test(supplies_are_read),       cmocka_unit_test(a_bucket_holds_its_rate),
        cmocka_unit_test(limits_are_the_kernels),  cmocka_unit_test(heat_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
