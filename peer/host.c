#include "peer/host.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <onebyte/zo/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const double others_max = 0.2, quiet_s_min = 60;
#define NS UINT64_C(1000000000)

enum err peer_host_hours(struct peer_host_limits *l, const char *text, struct err_why *why)
{
    unsigned from = 99, to = 99;
    int end = 0;
    if (sscanf(text, "%2u-%2u%n", &from, &to, &end) != 2 || text[end] != '\0' || from > 24 ||
        to > 24 || from == to || text[0] < '0' || text[0] > '9')
        return err_set(why, ERR_RANGE,
                       "--hours takes two different hours of the day such as 22-6, not '%s'", text);
    l->has_hours = true;
    l->from = from;
    l->to = to;
    return ERR_OK;
}

const char *peer_host_judge(const struct peer_host_limits *l, const struct peer_host_facts *f)
{
    if (l->has_hours) {
        const uint32_t from = 60 * l->from, to = 60 * l->to, m = f->minute;
        const bool inside = from < to ? m >= from && m < to : m >= from || m < to;
        if (!inside)
            return "hours: outside the hours given by --hours";
    }
    if (l->off_on_battery && f->on_battery)
        return "battery: this machine runs on its battery (--on-battery never)";
    if (l->only_idle && f->others >= 0 && (f->others > others_max || f->quiet_s < quiet_s_min))
        return "busy: other programs use this machine (--only-idle)";
    return NULL;
}

/* First line of a small file, without its newline; "" if there is none. */
static void first_line(char *out, size_t n, const char *dir, const char *name, const char *file)
{
    char path[1024];
    out[0] = '\0';
    (void)snprintf(path, sizeof path, "%s/%s/%s", dir, name, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    if (!fgets(out, (int)n, f))
        out[0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    fclose(f);
}

bool peer_host_on_battery(const char *root)
{
    char dir[512], text[64];
    bool discharging = false, mains = false;
    (void)snprintf(dir, sizeof dir, "%s/sys/class/power_supply", root);
    DIR *d = opendir(dir);
    for (struct dirent *e = NULL; d && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        first_line(text, sizeof text, dir, e->d_name, "scope");
        if (strcmp(text, "Device") == 0)
            continue; /* a mouse's battery is not ours */
        first_line(text, sizeof text, dir, e->d_name, "type");
        const bool battery = strcmp(text, "Battery") == 0;
        first_line(text, sizeof text, dir, e->d_name, battery ? "status" : "online");
        discharging = discharging || (battery && strcmp(text, "Discharging") == 0);
        mains = mains || (!battery && strcmp(text, "1") == 0);
    }
    if (d)
        closedir(d);
    return discharging && !mains;
}

bool peer_host_ticks(const char *root, uint64_t *busy, uint64_t *total, uint64_t *own)
{
    char path[512], line[1024];
    unsigned long long t[8] = {0}, user = 0, system = 0;
    (void)snprintf(path, sizeof path, "%s/proc/stat", root);
    FILE *f = fopen(path, "re");
    const bool all = f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1],
                                 &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) == 8;
    if (f)
        fclose(f);
    (void)snprintf(path, sizeof path, "%s/proc/self/stat", root);
    f = fopen(path, "re");
    const char *after =
        f && fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL; /* the name may hold blanks */
    const bool self =
        after && sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                        &system) == 2;
    if (f)
        fclose(f);
    if (!all || !self)
        return false;
    *total = 0;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        *total += t[i];
    *busy = *total - t[3] - t[4]; /* idle, waiting for disks */
    *own = user + system;
    return true;
}

/* Is this the name of a CPU's own sensor?  Boards and disks have sensors, too. */
static bool is_cpu_sensor(const char *name)
{
    static const char *const names[] = {"x86_pkg_temp", "coretemp",    "k10temp",    "zenpower",
                                        "cpu-thermal",  "cpu_thermal", "soc-thermal", "soc_thermal"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* The hottest of files of a class whose name says CPU; -INFINITY: none. */
static double hottest(const char *root, const char *class, const char *name, const char *value)
{
    char dir[512], text[64];
    double hot = -INFINITY;
    (void)snprintf(dir, sizeof dir, "%s/sys/class/%s", root, class);
    DIR *d = opendir(dir);
    for (struct dirent *e = NULL; d && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        first_line(text, sizeof text, dir, e->d_name, name);
        if (!is_cpu_sensor(text))
            continue;
        first_line(text, sizeof text, dir, e->d_name, value);
        char *end = NULL;
        const double milli = strtod(text, &end);
        if (end != text && milli > -50e3 && milli < 200e3 && milli / 1000 > hot)
            hot = milli / 1000;
    }
    if (d)
        closedir(d);
    return hot;
}

double peer_host_temperature(const char *root)
{
    const double zone = hottest(root, "thermal", "type", "temp"),
                 monitor = hottest(root, "hwmon", "name", "temp1_input"), hot = fmax(zone, monitor);
    return isfinite(hot) ? hot : NAN;
}

bool peer_host_throttled(const char *root, uint64_t *events)
{
    char dir[512], text[64];
    bool known = false;
    (void)snprintf(dir, sizeof dir, "%s/sys/devices/system/cpu", root);
    DIR *d = opendir(dir);
    *events = 0;
    for (struct dirent *e = NULL; d && (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, "cpu", 3) != 0 || e->d_name[3] < '0' || e->d_name[3] > '9')
            continue;
        first_line(text, sizeof text, dir, e->d_name, "thermal_throttle/core_throttle_count");
        if (text[0] < '0' || text[0] > '9')
            continue;
        *events += strtoull(text, NULL, 10);
        known = true;
    }
    if (d)
        closedir(d);
    return known;
}

/* Level of every thread there is: libraries start theirs before main, and only new ones inherit. */
static enum err apply_nice(const struct peer_host_limits *l, struct err_why *why)
{
    DIR *d = opendir("/proc/self/task");
    int bad = 0;
    for (struct dirent *e = NULL; d && (e = readdir(d)) != NULL;) {
        unsigned tid = 0;
        if (sscanf(e->d_name, "%u", &tid) == 1 && setpriority(PRIO_PROCESS, tid, (int)l->nice) != 0)
            bad = errno;
    }
    if (d)
        closedir(d);
    if (!d || bad)
        return err_set(why, ERR_IO, "--nice %d: %s", (int)l->nice, strerror(d ? bad : errno));
    return ERR_OK;
}

/* Private writable address space of this process, in bytes: what RLIMIT_DATA counts. */
static uint64_t data_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* OpenBLAS reserves 128 MB of address space for each thread that is inside it and touches a few; refused, it asks again for
 * ever.  So all of it is reserved before there is a limit: for our workers, and for its own threads, which we leave idle. */
static enum err reserve_blas(size_t threads, struct err_why *why)
{
    enum { MOST = 96 };
    void *held[MOST];
    void *(*take)(int) = NULL;
    void (*give)(void *) = NULL;
    TRY(zo_blas_start(why));
    void *found = dlsym(RTLD_DEFAULT, "blas_memory_alloc");
    memcpy(&take, &found, sizeof take); /* as in zo/blas.c: POSIX promises that the bytes agree */
    found = dlsym(RTLD_DEFAULT, "blas_memory_free");
    memcpy(&give, &found, sizeof give);
    const long cores = sysconf(_SC_NPROCESSORS_CONF);
    size_t n = threads + 1 + (cores > 0 ? (size_t)cores : 1);
    n = !take || !give ? 0 : n > MOST ? MOST : n; /* another BLAS: nothing known */
    for (size_t i = 0; i < n; i++)
        held[i] = take(0);
    for (size_t i = 0; i < n; i++)
        give(held[i]);
    return ERR_OK;
}

enum err peer_host_apply(const struct peer_host_limits *l, size_t threads, struct err_why *why)
{
    if (l->memory_mb)
        TRY(reserve_blas(threads, why));
    if (l->nice) /* its threads as well */
        TRY(apply_nice(l, why));
    if (l->memory_mb) {
        const rlim_t limit = (rlim_t)(data_bytes() + l->memory_mb * 1000000);
        const struct rlimit r = {.rlim_cur = limit, .rlim_max = limit};
        if (setrlimit(RLIMIT_DATA, &r) != 0)
            return err_set(why, ERR_IO, "--max-memory %d: %s", (int)l->memory_mb, strerror(errno));
    }
    return ERR_OK;
}

uint64_t peer_bucket_wait(struct peer_bucket *b, uint64_t rate, uint64_t total, uint64_t now_ns)
{
    if (rate == 0)
        return 0;
    if (b->at_ns == 0)
        b->left = (double)rate;
    else
        b->left += (double)(now_ns - b->at_ns) / 1e9 * (double)rate - (total > b->seen ? (double)(total - b->seen) : 0);
    if (b->left > (double)rate)
        b->left = (double)rate;
    b->at_ns = now_ns;
    b->seen = total;
    return b->left >= 0 ? 0 : (uint64_t)(-b->left / (double)rate * 1e9) + 1;
}

static void look(struct peer_host *h, uint64_t now_ns)
{
    struct tm tm = {.tm_hour = 0};
    const time_t now = time(NULL);
    (void)localtime_r(&now, &tm);
    h->facts.minute = (uint32_t)(60 * tm.tm_hour + tm.tm_min);
    h->facts.on_battery = h->limits.off_on_battery && peer_host_on_battery("");
    h->facts.others = -1;
    uint64_t busy = 0, total = 0, own = 0;
    if (!h->limits.only_idle || !peer_host_ticks("", &busy, &total, &own))
        return;
    if (h->total == 0)
        h->quiet_since_ns = now_ns; /* the first look proves nothing yet */
    if (h->total != 0 && total > h->total) {
        const double others = (double)(busy - h->busy) - (double)(own - h->own);
        h->facts.others = others < 0 ? 0 : others / (double)(total - h->total);
    } else {
        h->facts.others = 0;
    }
    if (h->facts.others > others_max)
        h->quiet_since_ns = now_ns;
    h->facts.quiet_s = (double)(now_ns - h->quiet_since_ns) / 1e9;
    h->busy = busy;
    h->total = total;
    h->own = own;
}

const char *peer_host_hold(struct peer_host *h, uint64_t now_ns)
{
    const struct peer_host_limits *l = &h->limits;
    if (!l->has_hours && !l->off_on_battery && !l->only_idle)
        return NULL;
    if (h->looked_ns == 0 || now_ns - h->looked_ns >= NS) {
        look(h, now_ns);
        h->looked_ns = now_ns;
        h->hold = peer_host_judge(l, &h->facts);
    }
    return h->hold;
}
