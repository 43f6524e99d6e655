/* onebyte: finds the command and runs it.  The only place that exits. */
#include "peer/options.h"
#include <onebyte/net/id.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void overview(FILE *out)
{
    fprintf(out,
            "onebyte %s: fine-tune a language model together; each gradient travels as one byte\n\n"
            "usage: onebyte COMMAND [options]\n\n",
            PEER_VERSION);
    for (size_t i = 0; i < peer_commands_n; i++)
        fprintf(out, "  %-10s %s\n", peer_commands[i]->name, peer_commands[i]->summary);
    fprintf(
        out,
        "\nonebyte COMMAND --help shows a command's options; onebyte demo needs nothing else.\n");
}

/* help [COMMAND] | help --man COMMAND|all | help --completion SHELL */
static int help(int argc, char **argv)
{
    struct err_why why = {{0}};
    if (argc == 0) {
        overview(stdout);
        return PEER_EXIT_OK;
    }
    if (argc == 2 && strcmp(argv[0], "--completion") == 0)
        return peer_options_completion(argv[1], stdout, &why) == ERR_OK ? PEER_EXIT_OK
                                                                        : peer_usage(NULL, &why);
    const bool man = argc == 2 && strcmp(argv[0], "--man") == 0;
    const char *name = argv[man ? 1 : 0];
    if (man && strcmp(name, "all") == 0) {
        peer_options_man_all(stdout);
        return PEER_EXIT_OK;
    }
    const struct peer_command *c = peer_command_find(name);
    if (!c || (argc > 1 && !man)) {
        (void)err_set(&why, ERR_RANGE, "no command '%s': see onebyte --help", name);
        return peer_usage(NULL, &why);
    }
    if (man)
        peer_options_man(c, stdout);
    else
        peer_options_help(c, stdout);
    return PEER_EXIT_OK;
}

int main(int argc, char **argv)
{
    struct err_why why = {{0}};
    /* A closed standard stream would be the next file or socket we open, and get our text: a stand-in refuses it. */
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return PEER_EXIT_FAILED;
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe or socket is an error code, not a death */
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: likewise */
    if (net_start() != ERR_OK) {
        (void)err_set(&why, ERR_IO, "libsodium did not start");
        return peer_fail(&why);
    }
    const char *name = argc > 1 ? argv[1] : "";
    if (name[0] == '\0') {
        overview(stderr);
        return PEER_EXIT_USAGE;
    }
    if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "help") == 0)
        return peer_flush(help(argc - 2, argv + 2));
    const struct peer_command *c =
        peer_command_find(strcmp(name, "--version") == 0 ? "version" : name);
    if (!c) {
        (void)err_set(&why, ERR_RANGE, "no command '%s': see onebyte --help", name);
        return peer_usage(NULL, &why);
    }
    return peer_command_run(c, argc - 2, argv + 2);
}
