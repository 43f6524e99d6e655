#include "peer/home.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Makes a folder and what leads to it. */
static enum err make_folders(const char *dir, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s", dir);
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        const char end = *p;
        *p = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return err_set(why, ERR_IO, "cannot make the folder %s: %s", path, strerror(errno));
        if (end == '\0')
            return ERR_OK;
        *p = end;
    }
}

enum err peer_absolute(char out[PEER_PATH_BYTES], const char *path, struct err_why *why)
{
    char cwd[PEER_PATH_BYTES] = "";
    if (path[0] != '/' && !getcwd(cwd, sizeof cwd))
        return err_set(why, ERR_IO, "cannot tell the current folder: %s", strerror(errno));
    const int n = snprintf(out, PEER_PATH_BYTES, "%s%s%s", cwd, cwd[0] ? "/" : "", path);
    if (n < 0 || n >= PEER_PATH_BYTES)
        return err_set(why, ERR_RANGE, "path too long: %.200s", path);
    for (size_t end = strlen(out); end > 1 && out[end - 1] == '/'; end--)
        out[end - 1] = '\0';
    return ERR_OK;
}

enum err peer_home_open(struct peer_home *h, const char *option, bool create, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    const char *env = getenv("ONEBYTE_HOME"), *state = getenv("XDG_STATE_HOME"),
               *user = getenv("HOME");
    int n = 0;
    if (option || (env && env[0]))
        n = snprintf(path, sizeof path, "%s", option ? option : env);
    else if (state && state[0])
        n = snprintf(path, sizeof path, "%s/onebyte", state);
    else if (user && user[0])
        n = snprintf(path, sizeof path, "%s/.local/state/onebyte", user);
    else
        return err_set(why, ERR_NOTFOUND, "no home folder: give --home DIR or set ONEBYTE_HOME");
    if (n < 0 || (size_t)n > sizeof path - 64) /* room for the names inside */
        return err_set(why, ERR_RANGE, "the home folder's path is too long");
    *h = (struct peer_home){.lock_fd = -1};
    TRY(peer_absolute(h->dir, path, why));
    struct stat st;
    if (stat(h->dir, &st) == 0)
        return S_ISDIR(st.st_mode) ? ERR_OK : err_set(why, ERR_IO, "%s is not a folder", h->dir);
    if (!create)
        return err_set(why, ERR_NOTFOUND, "no peer lives in %s: name its folder with --home",
                       h->dir);
    return make_folders(h->dir, why);
}

void peer_home_release(struct peer_home *h)
{
    if (h->lock_fd >= 0)
        close(h->lock_fd);
    h->lock_fd = -1;
}

const char *peer_home_path(const struct peer_home *h, const char *name, char *out)
{
    const int n = snprintf(out, PEER_PATH_BYTES, "%s/%s", h->dir, name);
    ENSURE(n > 0 && n < PEER_PATH_BYTES);
    return out;
}

const char *peer_checkpoint_path(const struct peer_home *h, uint64_t number, char out[PEER_PATH_BYTES])
{
    char name[64];
    snprintf(name, sizeof name, "snapshots/checkpoint-%llu.frontier", (unsigned long long)number);
    return peer_home_path(h, name, out);
}

/* An open file description's lock: it dies with its holder, and asking about it does not take it. */
static struct flock whole_file(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

enum err peer_home_lock(struct peer_home *h, struct err_why *why)
{
    char path[PEER_PATH_BYTES], pid[32] = "";
    struct flock lock = whole_file(F_WRLCK);
    const int fd = open(peer_home_path(h, "lock", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(why, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        const ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        close(fd);
        return err_set(
            why, ERR_BUSY,
            "the home %s is in use by process %s: stop it (onebyte stop) or give another --home",
            h->dir, pid[0] ? pid : "?");
    }
    const int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        const int error = errno;
        close(fd);
        return err_set(why, ERR_IO, "cannot write %s: %s", path, strerror(error));
    }
    h->lock_fd = fd;
    return ERR_OK;
}

bool peer_home_running(const struct peer_home *h)
{
    char path[PEER_PATH_BYTES];
    struct flock lock = whole_file(F_WRLCK);
    const int fd = open(peer_home_path(h, "lock", path), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    const bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return held;
}

enum err peer_home_identity(const struct peer_home *h, struct net_identity *i, bool make,
                            bool *made, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    if (made)
        *made = false;
    peer_home_path(h, "identity", path);
    if (access(path, F_OK) == 0)
        return net_identity_load(i, path, why);
    if (!make)
        return err_set(why, ERR_NOTFOUND,
                       "no identity in %s: make one with onebyte keygen --home %s", h->dir, h->dir);
    TRY(net_identity_new(i));
    const enum err e = net_identity_save(i, path, why);
    if (e != ERR_OK)
        net_identity_release(i);
    else if (made)
        *made = true;
    return e;
}

enum err peer_home_new_identity(const struct peer_home *h, struct net_identity *i,
                                struct err_why *why)
{
    char path[PEER_PATH_BYTES], old[PEER_PATH_BYTES], name[32];
    peer_home_path(h, "identity", path);
    for (int n = 1; access(path, F_OK) == 0; n++) {
        (void)snprintf(name, sizeof name, "identity.old-%d", n);
        peer_home_path(h, name, old);
        if (access(old, F_OK) != 0 && rename(path, old) != 0)
            return err_set(why, ERR_IO, "cannot set the old identity aside as %s: %s", old,
                           strerror(errno));
    }
    return peer_home_identity(h, i, true, NULL, why);
}

enum err peer_home_manifest(const struct peer_home *h, struct peer_manifest *m, struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    peer_home_path(h, "run.json", path);
    if (access(path, F_OK) != 0)
        return err_set(
            why, ERR_NOTFOUND,
            "the home %s belongs to no run yet: start one with onebyte run MANIFEST --home %s",
            h->dir, h->dir);
    return peer_manifest_load(m, path, why);
}

enum err peer_home_adopt(const struct peer_home *h, const struct peer_manifest *m,
                         struct err_why *why)
{
    char path[PEER_PATH_BYTES], *text = NULL;
    size_t n = 0;
    peer_home_path(h, "run.json", path);
    const enum err e = peer_read_file(&text, &n, path, PEER_MANIFEST_BYTES_MAX, why);
    if (e == ERR_OK) {
        const bool same = n == m->text_bytes && memcmp(text, m->text, n) == 0;
        free(text);
        if (!same)
            return err_set(why, ERR_BUSY, "the home %s belongs to another run: give another --home",
                           h->dir);
    } else if (e != ERR_NOTFOUND) {
        return e;
    }
    return peer_manifest_save(m, path, why);
}

static json_t *texts_load(const char *path)
{
    json_t *o = json_load_file(path, 0, NULL);
    if (json_is_object(o))
        return o;
    json_decref(o);
    return json_object(); /* missing or damaged: these are conveniences, the next set writes it anew */
}

static void texts_get(const char *path, const char *key, char out[PEER_PATH_BYTES])
{
    json_t *o = texts_load(path);
    const char *v = json_string_value(json_object_get(o, key));
    const bool fits = v && strlen(v) < PEER_PATH_BYTES;
    (void)snprintf(out, PEER_PATH_BYTES, "%s", fits ? v : "");
    json_decref(o);
}

static enum err texts_set(const char *path, unsigned mode, const char *key, const char *value,
                          struct err_why *why)
{
    json_t *o = texts_load(path);
    char *text = NULL;
    const char *now = json_string_value(json_object_get(o, key));
    if (now && strcmp(now, value) == 0) { /* a peer starts on a full disk too */
        json_decref(o);
        return ERR_OK;
    }
    if (!o || json_object_set_new(o, key, json_string(value)) != 0 ||
        !(text = json_dumps(o, JSON_INDENT(1)))) {
        json_decref(o);
        return err_set(why, ERR_NOMEM, "cannot save the setting %s: %s is not UTF-8, or memory is out", key, value);
    }
    const enum err e = peer_write_file(path, text, strlen(text), mode, why);
    free(text);
    json_decref(o);
    return e;
}

void peer_home_get(const struct peer_home *h, const char *key, char out[PEER_PATH_BYTES])
{
    char path[PEER_PATH_BYTES];
    texts_get(peer_home_path(h, "settings.json", path), key, out);
}

enum err peer_home_set(const struct peer_home *h, const char *key, const char *value,
                       struct err_why *why)
{
    char path[PEER_PATH_BYTES];
    return texts_set(peer_home_path(h, "settings.json", path), 0600, key, value, why);
}

void peer_paths_get(const char *manifest_path, const char *key, char out[PEER_PATH_BYTES])
{
    char path[PEER_PATH_BYTES + 8];
    (void)snprintf(path, sizeof path, "%s.paths", manifest_path);
    texts_get(path, key, out);
}

enum err peer_paths_set(const char *manifest_path, const char *key, const char *value,
                        struct err_why *why)
{
    char path[PEER_PATH_BYTES + 8];
    (void)snprintf(path, sizeof path, "%s.paths", manifest_path);
    return texts_set(path, 0644, key, value, why);
}
