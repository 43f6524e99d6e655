/* onebyte doctor: is this machine ready, and if not, what to do. */
#include "peer/device.h"
#include "peer/engine.h"
#include "peer/invite.h"
#include "peer/json_out.h"
#include "peer/options.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <onebyte/net/transport.h>
#include <poll.h>
#include <sodium.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct values {
    struct peer_common common;
    const char *connect, *listen;
};

enum { DEFAULT_PORT = 7117 }; /* as init's --address */

enum verdict { GOOD, NOTE, BAD };

struct doctor {
    const struct values *v;
    json_t *findings;
    size_t bad;
};

/* One finding; fix: what to do about it, "" if nothing. */
__attribute__((format(printf, 5, 6))) static void
found(struct doctor *d, enum verdict v, const char *what, const char *fix, const char *format, ...)
{
    static const char *const words[] = {"ok", "note", "bad"};
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    d->bad += v == BAD;
    json_array_append_new(d->findings,
                          json_pack("{s:s, s:s, s:s, s:s}", "check", what, "result", words[v],
                                    "text", text, "fix", v == GOOD ? "" : fix));
    if (d->v->common.json)
        return;
    printf("%-5s %-8s %s\n", words[v], what, text);
    if (v != GOOD && fix[0])
        printf("               -> %s\n", fix);
}

static void check_compute(struct doctor *d)
{
    struct err_why why = {{0}};
    const char *kernels = zo_kernels_name(zo_kernels_pick(NULL));
    const bool plain = strcmp(kernels, "ref") == 0;
    found(d, plain ? NOTE : GOOD, "cpu",
          "it works, slowly: a CPU with AVX2 is several times faster", "%zu cores, kernels %s",
          peer_threads_default(), kernels);
    const bool blas = zo_blas_start(&why) == ERR_OK;
    found(d, blas ? GOOD : BAD, "blas", "install OpenBLAS (Debian: libopenblas0)", "%s",
          blas ? zo_blas_core() : why.text);
    const long pages = sysconf(_SC_AVPHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    const double mb = (double)pages * (double)size / 1e6;
    found(d, mb < 200 ? NOTE : GOOD, "memory",
          "a model needs about 4 to 8 bytes per parameter: close programs, or take a smaller model",
          "%.0f MB free at once", mb);
}

/* A machine without a GPU is whole: nothing to do there. */
static void check_gpu(struct doctor *d)
{
    struct peer_gpu g;
    struct err_why why = {{0}};
    const bool driver = access("/proc/driver/nvidia/version", R_OK) == 0;
    const enum err e = peer_device_probe(&g, &why);
    if (e == ERR_OK) {
        found(d, g.free_bytes < 1000000000 ? NOTE : GOOD, "gpu",
              "too little for a model of more than some hundred million parameters: another program holds it (nvidia-smi lists them)",
              "%s, %.1f of %.1f GB free", g.name, (double)g.free_bytes / 1e9, (double)g.bytes / 1e9);
        return;
    }
    if (e == ERR_NOTFOUND && !driver) {
        found(d, GOOD, "gpu", "", "none, the CPU computes (%.300s)", why.text);
        return;
    }
    found(d, NOTE, "gpu",
          strstr(why.text, "no CUDA plug-in") ? "make CUDA=1 && sudo make install builds it, with nvcc"
                                              : "the CPU computes until this is mended; nvidia-smi shows what the driver sees",
          "%.400s", why.text);
}

static void check_clock(struct doctor *d)
{
    struct timex t = {.modes = 0};
    const time_t now = time(NULL);
    const int state = adjtimex(&t);
    char text[64] = "";
    struct tm tm;
    (void)strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &tm));
    const bool wrong = now < 1750000000; /* before this program was written */
    found(d,
          wrong                 ? BAD
          : state == TIME_ERROR ? NOTE
                                : GOOD,
          "clock",
          wrong ? "set the clock, e.g. timedatectl set-ntp true"
                : "only log lines use it; timedatectl set-ntp true synchronises it",
          "%s%s", text, !wrong && state == TIME_ERROR ? ", not synchronised" : "");
}

static void check_home(struct doctor *d)
{
    struct peer_home h;
    struct net_identity self = {.sk = NULL};
    struct err_why why = {{0}};
    struct stat st;
    struct statvfs fs;
    char id[65];
    if (peer_home_open(&h, d->v->common.home, false, &why) != ERR_OK) {
        found(d, NOTE, "home", "onebyte keygen makes it, and onebyte run does", "%s", why.text);
        return;
    }
    const bool open = stat(h.dir, &st) == 0 && (st.st_mode & 077) != 0;
    char fix[PEER_PATH_BYTES + 32];
    (void)snprintf(fix, sizeof fix, "chmod 700 %s", h.dir);
    found(d, open ? BAD : GOOD, "home", fix, "%s%s%s", h.dir, open ? " can be read by others" : "",
          peer_home_running(&h) ? ", a peer runs in it" : "");
    if (statvfs(h.dir, &fs) == 0) {
        const double mb = (double)fs.f_bavail * (double)fs.f_frsize / 1e6;
        found(d, mb < 100 ? BAD : GOOD, "disk",
              "free some space: the ledger grows by about 2 bytes per gradient", "%.0f MB free",
              mb);
    }
    if (access(h.dir, W_OK) != 0)
        found(d, BAD, "disk", "make the folder writable, or name another with --home",
              "%s cannot be written: %s", h.dir, strerror(errno));
    const enum err e = peer_home_identity(&h, &self, false, NULL, &why);
    if (e == ERR_OK) {
        net_hex(id, self.id, 32);
        found(d, GOOD, "key", "", "machine id %s", id);
        net_identity_release(&self);
    } else {
        found(d, e == ERR_NOTFOUND ? NOTE : BAD, "key",
              e == ERR_NOTFOUND ? "onebyte keygen, or the first run, makes one"
                                : "see the line above",
              "%s", why.text);
    }
}

/* What peers of one run must share (arith, wire), and libraries too old for what we call. */
static void check_versions(struct doctor *d)
{
    const bool old = sodium_library_version_major() < 10 || sqlite3_libversion_number() < 3024000;
    found(d, old ? BAD : GOOD, "versions", "install libsodium 1.0.12 and SQLite 3.24 or newer",
          "onebyte %s (arith 1, wire 1), libsodium %s, SQLite %s", PEER_VERSION,
          sodium_version_string(), sqlite3_libversion());
}

static void check_limits(struct doctor *d)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0)
        found(d, r.rlim_cur < 512 ? NOTE : GOOD, "files", "ulimit -n 1024",
              "%llu open files allowed", (unsigned long long)r.rlim_cur);
}

/* This machine's own address tells whether it stands behind a translator. */
static void check_nat(struct doctor *d)
{
    struct in_addr own = {0};
    char text[INET_ADDRSTRLEN] = "";
    const bool routed = peer_own_address(text) && inet_pton(AF_INET, text, &own) == 1;
    const uint32_t a = ntohl(own.s_addr);
    const bool inner =
        a >> 24 == 10 || a >> 20 == 0xAC1 || a >> 16 == 0xC0A8 || a >> 22 == (100u << 2 | 1);
    if (!routed)
        found(d, NOTE, "network",
              "connect this machine to a network; a run on one machine works without",
              "no route to other networks");
    else
        found(d, inner ? NOTE : GOOD, "network",
              "dial out with --connect (that makes a full member), or forward a port to be dialled "
              "by others",
              inner ? "own address %s is private: probably behind NAT" : "own address %s", text);
}

/* Without --listen: the port that invites name unless told otherwise. */
static void check_port(struct doctor *d)
{
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(DEFAULT_PORT)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (d->v->listen || fd < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const bool good = bind(fd, (const struct sockaddr *)&any, sizeof any) == 0;
    found(d, good ? GOOD : NOTE, "port", "a peer that listens there already is fine; else --listen 0.0.0.0:PORT with another",
          good ? "%d is free for --listen 0.0.0.0:%d" : "%d is taken", DEFAULT_PORT, DEFAULT_PORT);
    close(fd);
}

static void check_listen(struct doctor *d)
{
    struct net_transport *t = NULL;
    struct net_identity self = {.sk = NULL};
    struct err_why why = {{0}};
    enum err e = net_identity_new(&self);
    const struct net_transport_options o = {.identity = &self, .listen = d->v->listen};
    if (e == ERR_OK)
        e = net_transport_new(&t, &o, &why);
    found(d, e == ERR_OK ? GOOD : BAD, "listen",
          "name a free port, and an address of this machine (0.0.0.0: all of them)", "%s",
          e == ERR_OK ? net_transport_listening(t) : why.text);
    net_transport_free(t);
    net_identity_release(&self);
}

/* ZMTP's signature, which a listener sends first: ff, 8 bytes, 7f. */
static const char *talk(int fd)
{
    unsigned char hello[10] = {0};
    size_t n = 0;
    while (n < sizeof hello) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) <= 0)
            return "something accepts the connection but says nothing";
        const ssize_t got = recv(fd, hello + n, sizeof hello - n, 0);
        if (got <= 0)
            return "the connection was closed at once";
        n += (size_t)got;
    }
    return hello[0] == 0xff && hello[9] == 0x7f ? NULL : "another program answers there";
}

static const char *reach(const char *host, uint16_t port)
{
    const struct addrinfo want = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    const char *why = "no address";
    (void)snprintf(service, sizeof service, "%u", port);
    const int e = getaddrinfo(host, service, &want, &list);
    if (e != 0)
        return gai_strerror(e);
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct timeval limit = {.tv_sec = 5};
        if (fd < 0)
            continue;
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit,
                         sizeof limit); /* bounds connect, too */
        why = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? talk(fd)
              : errno == EINPROGRESS                      ? "no answer within 5 s"
                                                          : strerror(errno);
        close(fd);
        if (!why)
            break;
    }
    freeaddrinfo(list);
    return why;
}

static void check_connect(struct doctor *d)
{
    struct err_why why = {{0}};
    char host[64], address[256];
    uint16_t port = 0;
    (void)snprintf(address, sizeof address, "%.*s", (int)strcspn(d->v->connect, "?"),
                   d->v->connect);
    if (net_address_split(host, &port, address, &why) != ERR_OK) {
        found(d, BAD, "connect", "give HOST:PORT, as the other peer's onebyte status shows it",
              "%s", why.text);
        return;
    }
    const char *bad = reach(host, port);
    found(d, bad ? BAD : GOOD, "connect",
          "is the peer there running with --listen 0.0.0.0:PORT, and does its firewall let TCP "
          "through?",
          "%s: %s", address, bad ? bad : "a peer answers");
}

static int run(void *values, const char *const *args, size_t n_args)
{
    const struct values *v = values;
    struct doctor d = {.v = v, .findings = json_array()};
    (void)args;
    (void)n_args;
    check_compute(&d);
    check_gpu(&d);
    check_clock(&d);
    check_home(&d);
    check_limits(&d);
    check_versions(&d);
    check_port(&d);
    check_nat(&d);
    if (v->listen)
        check_listen(&d);
    if (v->connect)
        check_connect(&d);
    const int code = d.bad ? PEER_EXIT_FAILED : PEER_EXIT_OK;
    if (v->common.json) {
        const int printed = peer_json_print(json_pack("{s:s, s:b, s:o}", "version", PEER_VERSION,
                                                      "ready", d.bad == 0, "findings", d.findings));
        return code ? code : printed;
    }
    json_decref(d.findings);
    printf("%s\n", d.bad ? "not ready: see the lines marked bad" : "ready");
    return code;
}

static const struct peer_option options[] = {
    {"connect", PEER_TEXT, offsetof(struct values, connect), "HOST:PORT",
     "also: does a peer answer there?", 0, 0},
    {"listen", PEER_TEXT, offsetof(struct values, listen), "HOST:PORT",
     "also: can a peer listen here?", 0, 0},
};

const struct peer_command peer_cmd_doctor = {
    .name = "doctor",
    .args = "",
    .summary =
        "check this machine: CPU, BLAS, GPU, memory, disk, clock, key, versions, network; and say what to do",
    .details = "Each line is ok, note (it works, but) or bad. Exit code 1 if anything is bad.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .values_bytes = sizeof(struct values),
    .run = run,
};
