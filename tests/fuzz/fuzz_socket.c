/* What the command line's socket takes: pieces of lines, as they come. */
#include "tests/fuzz/fuzz.h"
#include "peer/control.h"
#include <sys/socket.h>
#include <sys/un.h>

static struct peer_control *server;

static void close_server(void)
{
    peer_control_close(server);
}

static void serve(void)
{
    json_t *request;
    uint64_t client;
    peer_control_ready(server);
    while (peer_control_next(server, &request, &client))
        peer_control_reply(server, client, request); /* sends it back */
}

FUZZ_TARGET(socket)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct err_why why = {{0}};
    if (!server) {
        ENSURE(peer_control_open(&server, fuzz_dir(), &why) == ERR_OK);
        ENSURE(atexit(close_server) == 0);
    }
    (void)snprintf(to.sun_path, sizeof to.sun_path, "%s/control.sock", fuzz_dir());
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ENSURE(fd >= 0 && connect(fd, (const struct sockaddr *)&to, sizeof to) == 0);
    for (size_t at = 0; at < size;) {
        char back[4096];
        const size_t n = size - at < 150 ? size - at : 150; /* a reply to each byte fits the socket: no send waits */
        if (send(fd, data + at, n, MSG_NOSIGNAL) <= 0)
            break; /* it was dropped: too long a line */
        at += n;
        serve();
        while (recv(fd, back, sizeof back, 0) > 0)
            continue;
    }
    close(fd);
    serve(); /* sees the end */
    return 0;
}
