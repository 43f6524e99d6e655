/* Chat templates: parsed, and rendered with a conversation. */
#include "tests/fuzz/fuzz.h"
#include "zo/data/template.h"

FUZZ_TARGET(template)
{
    struct chat_template *t = NULL;
    struct buf out = {0};
    struct err_why why = {{0}};
    json_t *variables = json_loads("{\"messages\":[{\"role\":\"system\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":\" hi \"},"
                                   "{\"role\":\"assistant\",\"content\":\"yes\"}],\"bos_token\":\"<s>\",\"eos_token\":\"</s>\","
                                   "\"add_generation_prompt\":true}",
                                   0, NULL);
    ENSURE(variables != NULL);
    if (zo_template_new(&t, (const char *)data, size, &why) == ERR_OK) {
        if (zo_template_render(t, &out, variables, &why) == ERR_OK)
            ENSURE(out.n <= TEMPLATE_OUTPUT_MAX);
        zo_template_free(t);
    }
    buf_free(&out);
    json_decref(variables);
    return 0;
}
