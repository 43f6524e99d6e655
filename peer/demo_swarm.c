#include "peer/demo_swarm.h"
#include "peer/control.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void redirect(const char *path, int fd)
{
    const int f = open(path ? path : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (f >= 0) {
        dup2(f, fd);
        if (f != fd)
            close(f);
    }
}

enum err demo_spawn(pid_t *pid, const char *const *argv, const char *out, const char *log, struct err_why *why)
{
    const char *full[DEMO_ARGS_MAX + 2] = {"onebyte"};
    size_t n = 1;
    for (; argv[n - 1]; n++) {
        ENSURE(n <= DEMO_ARGS_MAX);
        full[n] = argv[n - 1];
    }
    const pid_t parent = getpid(), child = fork();
    if (child < 0)
        return err_set(why, ERR_IO, "cannot start a process: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1); /* it died before the line above */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        redirect(NULL, STDIN_FILENO);
        redirect(out, STDOUT_FILENO);
        redirect(log, STDERR_FILENO);
        execv("/proc/self/exe", (char *const *)(const void *)full);
        _exit(127);
    }
    *pid = child;
    return ERR_OK;
}

/* The last line of a file that begins with `first` (0: any), NUL-terminated; malloc'd, NULL: none. */
static char *last_line(const char *path, char first)
{
    char *text = NULL, *last = NULL;
    size_t n = 0, len = 0;
    struct err_why why;
    if (peer_read_file(&text, &n, path, 16 << 20, &why) != ERR_OK)
        return NULL;
    for (char *line = text, *end; *line; line = end + (*end != 0)) {
        end = line + strcspn(line, "\n");
        if (end > line && (!first || *line == first)) {
            last = line;
            len = (size_t)(end - line);
        }
    }
    char *out = last ? strndup(last, len) : NULL;
    free(text);
    return out;
}

static json_t *last_object(const char *path)
{
    char *line = last_line(path, '{');
    json_t *o = line ? json_loads(line, 0, NULL) : NULL;
    free(line);
    return o;
}

enum err demo_call(const char *const *argv, const char *dir, json_t **json, struct err_why *why)
{
    char out[PEER_PATH_BYTES + 16], log[PEER_PATH_BYTES + 16];
    pid_t pid;
    int status = 0;
    snprintf(out, sizeof out, "%s/call.out", dir);
    snprintf(log, sizeof log, "%s/call.log", dir);
    (void)unlink(out);
    (void)unlink(log);
    TRY(demo_spawn(&pid, argv, out, log, why));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        char *line = last_line(log, 0);
        const enum err e = err_set(why, ERR_IO, "onebyte %s failed: %.400s", argv[0], line ? line : "it said nothing");
        free(line);
        return e;
    }
    *json = last_object(out);
    return *json ? ERR_OK : err_set(why, ERR_FORMAT, "onebyte %s printed no JSON object", argv[0]);
}

enum err demo_peer_start(struct demo_peer *p, const char *manifest, const char *address, struct err_why *why)
{
    const char *argv[16] = {"run", manifest, "--home", p->home, "--listen", "127.0.0.1:0", "--threads", "1", "--json",
                            "--linger", "2.5", "--drain", "30"};
    size_t n = 13;
    if (address) {
        argv[n++] = "--connect";
        argv[n++] = address;
    }
    p->ended = false;
    return demo_spawn(&p->pid, argv, p->out, p->log, why);
}

void demo_peer_kill(struct demo_peer *p)
{
    if (p->pid <= 0)
        return;
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    p->pid = 0;
}

void demo_peer_reap(struct demo_peer *p)
{
    int status = 0;
    if (p->pid <= 0 || waitpid(p->pid, &status, WNOHANG) != p->pid)
        return;
    p->pid = 0;
    p->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    p->ended = p->code == 0;
}

json_t *demo_peer_status(const struct demo_peer *p)
{
    struct err_why why;
    json_t *o = NULL;
    if (p->pid <= 0 || peer_control_call(p->home, json_pack("{s:s}", "op", "status"), 20000, &o, &why) != ERR_OK)
        return NULL;
    return o;
}

json_t *demo_peer_last(const struct demo_peer *p)
{
    return last_object(p->out);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void demo_remove(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
