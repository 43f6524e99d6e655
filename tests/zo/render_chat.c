/* Renders conversations for tests/check_templates.py.  Usage: render_chat DIR < FILE
 * FILE: one JSON object per line {"messages": [..], "prompt": bool}.  Out: per line the text in hexadecimal, or
 * "error " and why. */
#include "zo/data/tok.h"

static void print_one(const struct chat *c, const json_t *line)
{
    struct buf out = {0};
    struct err_why why = {0};
    const json_t *messages = json_object_get(line, "messages");
    const enum err e = zo_chat_render(c, &out, messages, json_array_size(messages),
                                      zo_json_bool(line, "prompt", false), &why);
    if (e)
        printf("error %s", why.text);
    for (size_t i = 0; !e && i < out.n; i++)
        printf("%02x", (unsigned char)out.p[i]);
    putchar('\n');
    buf_free(&out);
}

int main(int argc, char **argv)
{
    struct chat c = {0};
    if (argc < 2 || zo_chat_open(&c, argv[1]))
        return 1;
    json_t *line;
    while ((line = json_loadf(stdin, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL))) {
        print_one(&c, line);
        json_decref(line);
    }
    zo_chat_free(&c);
    return 0;
}
