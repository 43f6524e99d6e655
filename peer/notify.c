#include "peer/notify.h"
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool peer_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const size_t n = path ? strlen(path) : 0;
    if (n < 2 || n > sizeof to.sun_path - 1 || (path[0] != '/' && path[0] != '@'))
        return false;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@')
        to.sun_path[0] = '\0'; /* an abstract name: no file, its length ends it */
    const socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] == '/'));
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to, bytes);
    close(fd);
    return sent == (ssize_t)strlen(state);
}

/* Half of WATCHDOG_USEC in ns; 0: no watchdog, or not for this process. */
static uint64_t watchdog_every_ns(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && strtoll(pid, NULL, 10) != (long long)getpid()))
        return 0;
    errno = 0;
    const unsigned long long u = strtoull(usec, NULL, 10);
    return errno || u > UINT64_MAX / 500 ? 0 : u * 500;
}

void peer_notify_alive(uint64_t now_ns)
{
    static uint64_t last_ns, every_ns;
    if (last_ns == 0)
        every_ns = watchdog_every_ns();
    if (last_ns != 0 && (every_ns == 0 || now_ns - last_ns < every_ns))
        return;
    last_ns = now_ns;
    if (every_ns)
        (void)peer_notify("WATCHDOG=1");
}
