/* The list of commands, and what is generated from all of them. */
#include "peer/options.h"
#include <string.h>

#define PEER_COMMANDS(X) \
    X(keygen)            \
    X(init)              \
    X(run)               \
    X(status)            \
    X(stop)              \
    X(pause)             \
    X(resume)            \
    X(demo)              \
    X(doctor)            \
    X(eval)              \
    X(generate)          \
    X(prepare)           \
    X(export)            \
    X(replay)            \
    X(log)               \
    X(plot)              \
    X(audit)             \
    X(retract)           \
    X(admit)             \
    X(version)

#define X(name) extern const struct peer_command peer_cmd_##name;
PEER_COMMANDS(X)
#undef X

const struct peer_command *const peer_commands[] = {
#define X(name) &peer_cmd_##name,
    PEER_COMMANDS(X)
#undef X
};
const size_t peer_commands_n = ARRAY_LEN(peer_commands);

const struct peer_command *peer_command_find(const char *name)
{
    for (size_t i = 0; i < peer_commands_n; i++)
        if (strcmp(peer_commands[i]->name, name) == 0)
            return peer_commands[i];
    return NULL;
}

/* The options every command has; options.c holds their table. */
static const char common[] = "--json --home --help";

static void words_of(const struct peer_command *c, FILE *out)
{
    for (size_t i = 0; i < c->n_options; i++)
        fprintf(out, "--%s ", c->options[i].name);
    fputs(common, out);
}

/* A word in single quotes for the three shells: none of our texts holds a backslash. */
static void quoted(const char *text, FILE *out)
{
    fputc('\'', out);
    for (const char *p = text; *p; p++)
        fputs(*p == '\'' ? "'\\''" : (const char[]){*p, '\0'}, out);
    fputc('\'', out);
}

static void bash(FILE *out)
{
    fputs("_onebyte() {\n    local words\n    case ${COMP_WORDS[1]} in\n", out);
    for (size_t i = 0; i < peer_commands_n; i++) {
        fprintf(out, "    %s) words='", peer_commands[i]->name);
        words_of(peer_commands[i], out);
        fputs("' ;;\n", out);
    }
    fputs("    *) words='help", out);
    for (size_t i = 0; i < peer_commands_n; i++)
        fprintf(out, " %s", peer_commands[i]->name);
    fputs("' ;;\n    esac\n    [ \"$COMP_CWORD\" = 1 ] || [ \"${2#-}\" != \"$2\" ] || words=\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$2\"))\n}\ncomplete -o default -F _onebyte "
          "onebyte\n",
          out);
}

static void zsh(FILE *out)
{
    fputs("#compdef onebyte\nlocal -a commands\ncommands=(\n", out);
    for (size_t i = 0; i < peer_commands_n; i++) {
        char line[512];
        (void)snprintf(line, sizeof line, "%s:%s", peer_commands[i]->name,
                       peer_commands[i]->summary);
        fputs("    ", out);
        quoted(line, out);
        fputc('\n', out);
    }
    fputs(")\nif (( CURRENT == 2 )); then _describe command commands; return; fi\ncase $words[2] "
          "in\n",
          out);
    for (size_t i = 0; i < peer_commands_n; i++) {
        fprintf(out, "%s) compadd -- ", peer_commands[i]->name);
        words_of(peer_commands[i], out);
        fputs(" ;;\n", out);
    }
    fputs("esac\n_files\n", out);
}

static void fish(FILE *out)
{
    for (size_t i = 0; i < peer_commands_n; i++) {
        const struct peer_command *c = peer_commands[i];
        fprintf(out, "complete -c onebyte -n __fish_use_subcommand -a %s -d ", c->name);
        quoted(c->summary, out);
        fputc('\n', out);
        for (size_t j = 0; j < c->n_options; j++) {
            fprintf(out, "complete -c onebyte -n '__fish_seen_subcommand_from %s' -l %s%s -d ",
                    c->name, c->options[j].name, c->options[j].kind == PEER_FLAG ? "" : " -r");
            quoted(c->options[j].help, out);
            fputc('\n', out);
        }
    }
    fputs("complete -c onebyte -l json -d 'print one JSON object'\ncomplete -c onebyte -l home -r "
          "-d 'home folder'\n"
          "complete -c onebyte -s h -l help -d 'show the help'\n",
          out);
}

void peer_options_man_all(FILE *out)
{
    fprintf(out,
            ".TH ONEBYTE 1 \"\" \"onebyte %s\" \"onebyte\"\n.SH NAME\nonebyte \\- fine\\-tune a language model "
            "together; each gradient travels as one byte\n.SH SYNOPSIS\n.B onebyte\n.I COMMAND\n[options]\n.SH COMMANDS\n",
            PEER_VERSION);
    for (size_t i = 0; i < peer_commands_n; i++)
        fprintf(out, ".TP\n.BR onebyte\\-%s (1)\n%s\n", peer_commands[i]->name, peer_commands[i]->summary);
    fputs(".SH FILES\n.TP\n.I ~/.local/state/onebyte\nthe home of a peer, unless $ONEBYTE_HOME or \\-\\-home names another: "
          "identity, manifest, ledger, log.\n.SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage.\n",
          out);
}

enum err peer_options_completion(const char *shell, FILE *out, struct err_why *why)
{
    if (strcmp(shell, "bash") == 0)
        bash(out);
    else if (strcmp(shell, "zsh") == 0)
        zsh(out);
    else if (strcmp(shell, "fish") == 0)
        fish(out);
    else
        return err_set(why, ERR_RANGE, "no completions for '%s': bash, zsh or fish", shell);
    return ERR_OK;
}
