/* Two peers in one process fit a line to points that neither shows to the other.  Build:
 *     cc tune.c $(pkg-config --cflags --libs onebyte) */
#include <inttypes.h>
#include <onebyte/tune.h>
#include <stdio.h>

struct points {
    double first, length; /* where on the x axis this peer's own points lie */
};

/* Squared error of theta[0] x + theta[1] at one point of the true line 2 x - 1. */
static double loss(void *ctx, const float *theta, size_t n, uint64_t example)
{
    const struct points *p = ctx;
    const double x = p->first + p->length * (double)(example % 16) / 16;
    const double error = (double)theta[0] * x + (double)theta[n - 1] - (2 * x - 1);
    return error * error;
}

int main(void)
{
    struct points own[2] = {{-1, 1}, {0, 1}};
    const float theta[2] = {0, 0};
    const struct onebyte_options options = {.run = "line", .theta = theta, .n = 2, .eps = 0.001f, .lr = 0.05f, .n0 = 32, .steps = 400};
    struct onebyte_tuner *peers[2];
    struct err_why why;
    uint8_t message[2][ONEBYTE_MESSAGE_BYTES];
    size_t bytes[2];
    for (int i = 0; i < 2; i++)
        if (onebyte_tuner_new(&peers[i], &options, &why) != ERR_OK)
            return fprintf(stderr, "%s\n", why.text), 1;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 2; i++) /* both measure, then each takes what the other found */
            if (onebyte_tuner_measure(peers[i], loss, &own[i], 16, message[i], &bytes[i], &why) != ERR_OK)
                return fprintf(stderr, "%s\n", why.text), 1;
        for (int i = 0; i < 2; i++)
            if (onebyte_tuner_take(peers[i], message[1 - i], bytes[1 - i], &why) != ERR_OK)
                return fprintf(stderr, "%s\n", why.text), 1;
    }
    for (int i = 0; i < 2; i++)
        printf("peer %d: y = %.2f x %+.2f  digest %016" PRIx64 "\n", i, (double)onebyte_tuner_theta(peers[i])[0],
               (double)onebyte_tuner_theta(peers[i])[1], onebyte_tuner_digest(peers[i]));
    for (int i = 0; i < 2; i++)
        onebyte_tuner_free(peers[i]);
    return 0;
}
