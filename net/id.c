#include <onebyte/net/id.h>
#include <onebyte/base/bytes.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum err net_start(void)
{
    return sodium_init() < 0 ? ERR_IO : ERR_OK;
}

enum err net_identity_new(struct net_identity *i)
{
    uint8_t *sk = sodium_malloc(crypto_sign_SECRETKEYBYTES);
    if (!sk)
        return ERR_NOMEM;
    ENSURE(crypto_sign_keypair(i->id, sk) == 0);
    i->sk = sk;
    return ERR_OK;
}

void net_identity_release(struct net_identity *i)
{
    if (i->sk)
        sodium_free(i->sk); /* wipes */
    i->sk = NULL;
}

/* sodium_malloc keeps quiet when it cannot lock. */
bool net_identity_locked(const struct net_identity *i)
{
    return mlock(i->sk, crypto_sign_SECRETKEYBYTES) == 0;
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n > 0) {
        const ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

/* The folder's entry must survive a power loss too. */
static void sync_folder_of(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder)
        return;
    memcpy(folder, path, n);
    folder[n] = '\0';
    const int fd = open(slash ? (n ? folder : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
}

enum err net_identity_save(const struct net_identity *i, const char *path, struct err_why *why)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(why, ERR_IO, "cannot create the key file %s: %s%s", path, strerror(errno),
                       errno == EEXIST ? " (a key is never overwritten; move it away first)" : "");
    const bool ok = write_all(fd, i->sk, crypto_sign_SECRETKEYBYTES) && fsync(fd) == 0;
    const int saved = errno;
    if (close(fd) != 0 || !ok) {
        (void)unlink(path);
        return err_set(why, ERR_IO, "cannot write the key file %s: %s", path, strerror(saved));
    }
    sync_folder_of(path);
    return ERR_OK;
}

/* sk [64] <- the file behind fd, which must hold exactly that. */
static enum err read_key(uint8_t *sk, int fd, const char *path, struct err_why *why)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_set(why, ERR_IO, "cannot read the key file %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size != (off_t)crypto_sign_SECRETKEYBYTES)
        return err_set(why, ERR_FORMAT,
                       "%s is not a key file (it must be a file of exactly 64 bytes)", path);
    if (st.st_mode & 077)
        return err_set(why, ERR_FORMAT,
                       "others may read the key file %s: run chmod 600 on it, or make a new key",
                       path);
    size_t have = 0;
    while (have < crypto_sign_SECRETKEYBYTES) {
        const ssize_t r = read(fd, sk + have, crypto_sign_SECRETKEYBYTES - have);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return err_set(why, ERR_IO, "cannot read the key file %s", path);
        have += (size_t)r;
    }
    return ERR_OK;
}

enum err net_identity_load(struct net_identity *i, const char *path, struct err_why *why)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO of that name must not hold us */
    if (fd < 0)
        return err_set(why, errno == ENOENT ? ERR_NOTFOUND : ERR_IO,
                       "cannot open the key file %s: %s", path, strerror(errno));
    uint8_t *sk = sodium_malloc(crypto_sign_SECRETKEYBYTES);
    enum err e = sk ? read_key(sk, fd, path, why) : err_set(why, ERR_NOMEM, "out of memory");
    (void)close(fd);
    if (e == ERR_OK) {
        /* The public half is stored beside the seed: a damaged file must not make signatures nobody accepts. */
        uint8_t seed[crypto_sign_SEEDBYTES], pk[32], check[crypto_sign_SECRETKEYBYTES];
        ENSURE(crypto_sign_ed25519_sk_to_seed(seed, sk) == 0);
        ENSURE(crypto_sign_seed_keypair(pk, check, seed) == 0);
        if (sodium_memcmp(check, sk, sizeof check) != 0)
            e = err_set(why, ERR_FORMAT, "the key file %s is damaged: restore it or make a new key",
                        path);
        else
            memcpy(i->id, pk, 32);
        sodium_memzero(seed, sizeof seed);
        sodium_memzero(check, sizeof check);
    }
    if (e != ERR_OK) {
        if (sk)
            sodium_free(sk);
        return e;
    }
    i->sk = sk;
    return ERR_OK;
}

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(struct net_hash_state), "room for it");

static crypto_generichash_state *inside(struct net_hash_state *h)
{
    return (crypto_generichash_state *)(void *)h->opaque;
}

void net_hash_start(struct net_hash_state *h)
{
    ENSURE(crypto_generichash_init(inside(h), NULL, 0, NET_HASH_BYTES) == 0);
}

void net_hash_more(struct net_hash_state *h, const void *p, size_t n)
{
    ENSURE(crypto_generichash_update(inside(h), p, n) == 0);
}

void net_hash_end(struct net_hash_state *h, uint8_t out[32])
{
    ENSURE(crypto_generichash_final(inside(h), out, NET_HASH_BYTES) == 0);
}

void net_hash(uint8_t out[32], const struct net_part *parts, size_t n)
{
    struct net_hash_state h = {0};
    net_hash_start(&h);
    for (size_t i = 0; i < n; i++)
        net_hash_more(&h, parts[i].p, parts[i].n);
    net_hash_end(&h, out);
}

/* Ed25519 reads its message twice, so the parts are joined.  Only a manifest is longer than the stack buffer. */
enum { SIGNED_BYTES_SHORT = 2048 };

/* The joined parts: in `room`, or malloc'd.  NULL: out of memory. */
static uint8_t *join(uint8_t room[SIGNED_BYTES_SHORT], size_t *bytes, const struct net_part *parts,
                     size_t n)
{
    size_t total = 0, have = 0;
    for (size_t i = 0; i < n; i++)
        total += parts[i].n;
    uint8_t *buf = total <= SIGNED_BYTES_SHORT ? room : malloc(total);
    for (size_t i = 0; buf && i < n; i++) {
        if (parts[i].n > 0)
            memcpy(buf + have, parts[i].p, parts[i].n);
        have += parts[i].n;
    }
    *bytes = total;
    return buf;
}

void net_sign(uint8_t sig[64], const struct net_identity *i, const struct net_part *parts, size_t n)
{
    uint8_t room[SIGNED_BYTES_SHORT];
    size_t bytes = 0;
    uint8_t *buf = join(room, &bytes, parts, n);
    ENSURE(i->sk != NULL);
    ENSURE(buf != NULL); /* our own manifest, at `init`: nothing is lost by ending here */
    ENSURE(crypto_sign_detached(sig, NULL, buf, bytes, i->sk) == 0);
    if (buf != room)
        free(buf);
}

enum err net_verify(const uint8_t sig[64], const uint8_t id[32], const struct net_part *parts,
                    size_t n)
{
    uint8_t room[SIGNED_BYTES_SHORT];
    size_t bytes = 0;
    uint8_t *buf = join(room, &bytes, parts, n);
    if (!buf)
        return ERR_NOMEM;
    const bool good = crypto_sign_verify_detached(sig, buf, bytes, id) == 0;
    if (buf != room)
        free(buf);
    return good ? ERR_OK : ERR_PROTO;
}

void net_stream_key(uint32_t key[2], const uint8_t run_id[32], const uint8_t machine[32])
{
    uint8_t h[32];
    const struct net_part parts[] = {{run_id, 32}, {machine, 32}};
    net_hash(h, parts, 2);
    key[0] = (uint32_t)bytes_get_le(h, 4);
    key[1] = (uint32_t)bytes_get_le(h + 4, 4);
}

void net_hex(char *out, const uint8_t *in, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digit[in[i] >> 4];
        out[2 * i + 1] = digit[in[i] & 15];
    }
    out[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum err net_unhex(uint8_t *out, size_t n, const char *hex)
{
    for (size_t i = 0; i < 2 * n; i++) /* stops at the first NUL: it is no digit */
        if (hex_value(hex[i]) < 0)
            return ERR_FORMAT;
    if (hex[2 * n] != '\0')
        return ERR_FORMAT;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(16 * hex_value(hex[2 * i]) + hex_value(hex[2 * i + 1]));
    return ERR_OK;
}
