/* safetensors: round trip in every dtype, known bits of F16 and BF16, refusal of each way a file
 * can be damaged. */
#include <onebyte/base/bytes.h>
#include <onebyte/zo/checkpoint.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], file[128];

static int folder_make(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/onebyte-ckpt-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(file, sizeof file, "%s/model.safetensors", folder);
    return 0;
}

static int folder_drop(void **state)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "a.safetensors", "b.safetensors", "pytorch_model.bin"};
    char path[128];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder); /* fails if a temporary file was left behind */
}

/* A file of this header text and n data bytes (0, 1, 2, ..), with `declared` as its header's
 * length. */
static void file_make(const char *name, const char *head, uint64_t declared, size_t n)
{
    char path[128];
    uint8_t length[8];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    bytes_put_le(length, declared, 8);
    fwrite(length, 1, 8, f);
    fwrite(head, 1, strlen(head), f);
    for (size_t i = 0; i < n; i++)
        fputc((int)(i & 0xff), f);
    assert_int_equal(fclose(f), 0);
}

static void refused(const char *head, size_t n, enum err code, const char *says)
{
    struct zo_ckpt c;
    struct err_why why = {""};
    file_make("model.safetensors", head, strlen(head), n);
    const enum err e = zo_ckpt_open(&c, folder, &why);
    if (e != code || !strstr(why.text, says) || strchr(why.text, '\n'))
        fail_msg("%s: error %d, \"%s\" does not say \"%s\"", head, (int)e, why.text, says);
}

#define ONE(dtype, shape, begin, end)                                                              \
    "{\"x\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]" \
    "}"                                                                                            \
    "}"

static void damaged_headers_are_refused(void **state)
{
    (void)state;
    refused(ONE("F32", "2", 0, 8), 7, ERR_FORMAT, "tensor x lies outside");
    refused(ONE("F32", "2", 0, 8), 9, ERR_FORMAT, "after the last tensor");
    refused(ONE("F32", "2", 4, 12), 12, ERR_FORMAT, "hole");
    refused(ONE("F32", "2", 8, 0), 8, ERR_FORMAT, "outside");
    refused(ONE("F32", "2", -8, 0), 8, ERR_FORMAT, "outside");
    refused(ONE("F32", "2", 0, 99999999999999999), 8, ERR_FORMAT, "outside");
    refused(ONE("F32", "3", 0, 8), 8, ERR_FORMAT, "shape and dtype");
    refused(ONE("F16", "2", 0, 8), 8, ERR_FORMAT, "shape and dtype");
    refused(ONE("F32", "4294967296,4294967296,2", 0, 8), 8, ERR_FORMAT, "bad shape");
    refused(ONE("F32", "9223372036854775807", 0, 8), 8, ERR_FORMAT, "shape and dtype");
    refused(ONE("F32", "-2", 0, 8), 8, ERR_FORMAT, "bad shape");
    refused(ONE("F32", "1,1,1,1,1,1,1,1,2", 0, 8), 8, ERR_FORMAT, "dimensions");
    refused(ONE("Q4_0", "2", 0, 8), 8, ERR_UNSUPPORTED, "Q4_0");
    refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, ERR_FORMAT, "lacks");
    refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, ERR_FORMAT,
            "lacks");
    refused("{\"x\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERR_FORMAT, "lacks");
    refused("{\"x\\n\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ERR_FORMAT,
            "control character");
    refused("{\"x\":5}", 8, ERR_FORMAT, "lacks");
    refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
            8, ERR_FORMAT, "overlaps");
    refused("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
            "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
            8, ERR_FORMAT, "not a JSON object");
    refused("[]", 0, ERR_FORMAT, "not a JSON object");
    refused("{\"x\":", 8, ERR_FORMAT, "not a JSON object");
}

static void every_truncation_is_refused(void **state)
{
    static const char head[] = ONE("F32", "2", 0, 8);
    struct zo_ckpt c;
    struct err_why why = {""};
    (void)state;
    file_make("model.safetensors", head, strlen(head), 8);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_OK);
    zo_ckpt_close(&c);
    for (size_t n = 8 + strlen(head) + 7;; n--) {
        assert_int_equal(truncate(file, (off_t)n), 0);
        assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_FORMAT);
        if (n == 0)
            break;
    }
    file_make("model.safetensors", head, UINT64_MAX, 8);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "header of"));
    file_make("model.safetensors", head, 99999999, 8);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "truncated"));
}

/* Whatever a flipped bit makes of the header, what is accepted lies inside the file (ASan reads all of it). */
static void flipped_bits_never_read_outside(void **state)
{
    static const char head[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";
    (void)state;
    for (size_t bit = 0; bit < 8 * (8 + strlen(head)); bit++) {
        struct zo_ckpt c;
        struct err_why why = {""};
        float got[64];
        file_make("model.safetensors", head, strlen(head), 32);
        FILE *f = fopen(file, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, (long)(bit / 8), SEEK_SET), 0);
        const int byte = fgetc(f);
        assert_int_equal(fseek(f, (long)(bit / 8), SEEK_SET), 0);
        fputc(byte ^ 1 << bit % 8, f);
        fclose(f);
        if (zo_ckpt_open(&c, folder, &why) != ERR_OK) {
            assert_true(why.text[0] != 0 && !strchr(why.text, '\n'));
            continue;
        }
        for (size_t i = 0; i < c.n; i++) {
            assert_true(c.tensors[i].elements <= 16);
            zo_ckpt_read_f32(&c.tensors[i], 0, got, (size_t)c.tensors[i].elements);
        }
        zo_ckpt_close(&c);
    }
}

static void nothing_there_says_what_to_do(void **state)
{
    struct zo_ckpt c;
    struct err_why why = {""};
    (void)state;
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "model.safetensors"));
    file_make("pytorch_model.bin", "", 0, 0);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "safetensors.torch"));
    assert_int_equal(zo_ckpt_open(&c, "/nonexistent/model", &why), ERR_NOTFOUND);
}

static void shards(void **state)
{
    struct zo_ckpt c;
    struct err_why why = {""};
    char index[128];
    (void)state;
    (void)snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
    FILE *f = fopen(index, "w");
    assert_non_null(f);
    fputs("{\"weight_map\": {\"x\": \"a.safetensors\", \"w\": \"b.safetensors\"}}", f);
    fclose(f);
    file_make("a.safetensors", ONE("F32", "2", 0, 8), strlen(ONE("F32", "2", 0, 8)), 8);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "b.safetensors: shard is missing"));
    static const char other[] = "{\"w\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]}}",
                      twice[] = "{\"w\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]},"
                                "\"x\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[2,4]}}",
                      wrong[] = "{\"v\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[0,2]}}";
    file_make("b.safetensors", other, strlen(other), 2);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_OK);
    assert_int_equal(c.n, 2);
    assert_string_equal(c.tensors[0].name, "w"); /* byte order over all shards */
    assert_int_equal(c.tensors[0].n_dims, 0);
    assert_int_equal(c.tensors[0].elements, 1);
    zo_ckpt_drop_pages(&c);
    zo_ckpt_close(&c);
    file_make("b.safetensors", wrong, strlen(wrong), 2);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_NOTFOUND);
    assert_non_null(strstr(why.text, "tensor w is in no shard"));
    file_make("b.safetensors", twice, strlen(twice), 4);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "two shards"));
    f = fopen(index, "w");
    assert_non_null(f);
    fputs("{\"weight_map\": {\"x\": \"../a.safetensors\"}}", f);
    fclose(f);
    assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_FORMAT); /* no way out of the folder */
}

/* F16 and BF16 values by their definition: IEEE 754 binary16, and the upper half of binary32. */
static void half_precision_values(void **state)
{
    static const struct {
        uint16_t bits;
        float value;
    } f16[] = {{0x0000, 0.0f},        {0x3c00, 1.0f},        {0xc000, -2.0f},
               {0x7bff, 65504.0f},    {0x0400, 0x1p-14f},    {0x0001, 0x1p-24f},
               {0x83ff, -0x3ffp-24f}, {0x3555, 0x1.554p-2f}, {0x7c00, INFINITY}};
    struct zo_ckpt_tensor t = {.dtype = ZO_F16, .elements = 1};
    uint8_t bytes[3];
    float got;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(f16); i++) {
        bytes_put_le(bytes + 1, f16[i].bits, 2); /* unaligned on purpose */
        t.data = bytes + 1;
        zo_ckpt_read_f32(&t, 0, &got, 1);
        assert_memory_equal(&got, &f16[i].value, sizeof got);
    }
    bytes_put_le(bytes + 1, 0xc049, 2);
    t.dtype = ZO_BF16;
    zo_ckpt_read_f32(&t, 0, &got, 1);
    assert_true(got == -3.140625f);
}

static void read_values(void *ctx, uint64_t first, float *out, size_t n)
{
    memcpy(out, (const float *)ctx + first, n * sizeof *out);
}

static void round_trip(void **state)
{
    static float big[40000], scalar = 0.75f;
    /* Ties of F16: 1 + 2^-11 goes down to even, 1 + 3 * 2^-11 up; the same at BF16's 2^-8. */
    static const float picked[] = {1.0f,           -0.5f,          1.0f + 0x1p-11f, 1.0f + 0x3p-11f,
                                   1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 0x1p-25f,        0x3p-25f};
    static const float as_f16[] = {1.0f,           -0.5f,          1.0f, 1.0f + 0x1p-9f,
                                   1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 0.0f, 0x1p-23f};
    static const float as_bf16[] = {1.0f, -0.5f,          1.0f,     1.0f,
                                    1.0f, 1.0f + 0x1p-6f, 0x1p-25f, 0x3p-25f};
    static const enum zo_dtype kinds[] = {ZO_F32, ZO_F16, ZO_BF16};
    const uint64_t dims[] = {200, 200};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(big); i++)
        big[i] = i < ARRAY_LEN(picked) ? picked[i] : (float)((int)(i % 255) - 127) * 0.125f;
    const struct zo_ckpt_source sources[] = {
        {.name = "m.weight", .n_dims = 2, .dims = dims, .read = read_values, .ctx = big},
        {.name = "a\"quoted\"", .n_dims = 0, .dims = NULL, .read = read_values, .ctx = &scalar},
    };
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct zo_ckpt c;
        struct err_why why = {""};
        static float got[40000];
        assert_int_equal(zo_ckpt_write(file, sources, 2, kinds[k], &why), ERR_OK);
        assert_int_equal(zo_ckpt_open(&c, folder, &why), ERR_OK);
        const struct zo_ckpt_tensor *m = zo_ckpt_find(&c, "m.weight"),
                                    *s = zo_ckpt_find(&c, "a\"quoted\"");
        assert_non_null(m);
        assert_non_null(s);
        assert_null(zo_ckpt_find(&c, "m.weigh"));
        assert_int_equal(m->dtype, kinds[k]);
        assert_int_equal(m->dims[1], 200);
        assert_true((uintptr_t)m->data % zo_dtype_bytes(kinds[k]) == 0);
        zo_ckpt_read_f32(m, 0, got, 40000);
        const float *want = k == 0 ? picked : k == 1 ? as_f16 : as_bf16;
        for (size_t i = 0; i < ARRAY_LEN(big); i++)
            assert_true(got[i] == (i < ARRAY_LEN(picked) ? want[i] : big[i]));
        zo_ckpt_read_f32(m, 39998, got, 2);
        assert_true(got[1] == big[39999]);
        zo_ckpt_read_f32(s, 0, got, 1);
        assert_true(got[0] == 0.75f);
        zo_ckpt_close(&c);
    }
}

static void writing_fails_cleanly(void **state)
{
    static float big = 70000.0f;
    const struct zo_ckpt_source source = {.name = "x", .read = read_values, .ctx = &big};
    struct err_why why = {""};
    (void)state;
    assert_int_equal(zo_ckpt_write(file, &source, 1, ZO_F16, &why), ERR_RANGE);
    assert_non_null(strstr(why.text, "x"));
    assert_true(access(file, F_OK) !=
                0); /* nothing half-written; the teardown finds no temporary file */
    assert_int_equal(zo_ckpt_write("/nonexistent/x.safetensors", &source, 1, ZO_F32, &why), ERR_IO);
    assert_int_equal(zo_ckpt_write(file, &source, 1, ZO_F64, &why), ERR_UNSUPPORTED);
    if (access("/dev/full", W_OK) == 0) { /* a full disk */
        char link[160];
        (void)snprintf(link, sizeof link, "%s.tmp", file);
        assert_int_equal(symlink("/dev/full", link), 0);
        assert_int_equal(zo_ckpt_write(file, &source, 1, ZO_F32, &why), ERR_IO);
        assert_non_null(strstr(why.text, "No space left"));
    }
}

/* Index tables (position_ids, masks) are read past: they are no parameters. */
static void integer_tensors_are_left_out(void **state)
{
    static const char head[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"p\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_"
        "offsets\":[0,16]},"
        "\"x\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[16,24]}}   ";
    struct zo_ckpt c;
    (void)state;
    file_make("model.safetensors", head, strlen(head), 24);
    assert_int_equal(zo_ckpt_open(&c, folder, NULL), ERR_OK);
    assert_int_equal(c.n, 1);
    assert_string_equal(c.tensors[0].name, "x");
    zo_ckpt_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged_headers_are_refused, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(every_truncation_is_refused, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(flipped_bits_never_read_outside, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(nothing_there_says_what_to_do, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(shards, folder_make, folder_drop),
        cmocka_unit_test(half_precision_values),
        cmocka_unit_test_setup_teardown(round_trip, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(writing_fails_cleanly, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(integer_tensors_are_left_out, folder_make, folder_drop),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
