/* JSONL data, with the embedded model's tokenizer (no chat template there). */
#include "tests/fuzz/fuzz.h"
#include <onebyte/zo/dataset.h>

FUZZ_TARGET(jsonl)
{
    static struct zo_tokenizer *t;
    struct zo_dataset *d = NULL;
    struct err_why why = {{0}};
    if (!t)
        ENSURE(zo_tokenizer_open(&t, "peer/demo/model", &why) == ERR_OK);
    if (zo_dataset_open(&d, fuzz_file("data.jsonl", data, size), t, 32, &why) != ERR_OK)
        return 0;
    for (uint64_t i = 0; i < zo_dataset_size(d); i++) {
        const struct zo_example *e = zo_dataset_get(d, i);
        for (uint32_t s = 0; s < e->n_seqs; s++) {
            ENSURE(e->seqs[s].n <= 32);
            for (uint32_t k = 0; k < e->seqs[s].n; k++)
                ENSURE(e->seqs[s].ids[k] < zo_tokenizer_vocab(t));
            ENSURE(e->seqs[s].n == 0 || e->seqs[s].counted[0] == 0);
        }
    }
    zo_dataset_free(d);
    return 0;
}
