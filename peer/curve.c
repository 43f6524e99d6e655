#include "peer/curve.h"
#include "peer/json_out.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static json_t *point_json(const struct net_score_point *p)
{
    return json_pack("{s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "number", (json_int_t)p->number, "step",
                     (json_int_t)p->step, "loss", peer_json_real(p->loss), "accuracy", peer_json_real(p->accuracy), "examples",
                     (json_int_t)p->examples, "total", (json_int_t)p->total, "terms", (json_int_t)p->terms, "nonfinite",
                     (json_int_t)p->nonfinite, "reporters", (json_int_t)p->reporters, "compared", (json_int_t)p->compared,
                     "spread", peer_json_real(p->spread));
}

json_t *peer_curve_json(const struct net_scores *t)
{
    json_t *points = json_array(), *loss = NULL, *step = NULL;
    struct net_score_point p;
    for (uint64_t from = 0; net_scores_point(t, from, &p); from = p.number + 1) {
        json_array_append_new(points, point_json(&p));
        if (p.examples < p.total)
            continue;
        json_decref(loss);
        json_decref(step);
        loss = peer_json_real(p.loss);
        step = json_integer((json_int_t)p.step);
    }
    return json_pack("{s:b, s:o, s:o, s:o}", "self_reported", 1, "loss", loss ? loss : json_null(), "step",
                     step ? step : json_null(), "points", points);
}

size_t peer_curve_line(char out[PEER_CURVE_BYTES], const double *y, size_t n, bool utf8)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char marks[] = "_.-=+*%#";
    const size_t width = n < PEER_CURVE_WIDTH ? n : PEER_CURVE_WIDTH;
    double column[PEER_CURVE_WIDTH], low = INFINITY, high = -INFINITY;
    size_t bytes = 0;
    for (size_t i = 0; i < width; i++) {
        double sum = 0, count = 0;
        for (size_t j = i * n / width; j < (i + 1) * n / width; j++)
            if (isfinite(y[j])) {
                sum += y[j];
                count++;
            }
        column[i] = sum / count; /* NaN: nothing known */
        low = fmin(low, column[i]);
        high = fmax(high, column[i]);
    }
    for (size_t i = 0; i < width; i++) {
        const double height = high > low ? (column[i] - low) / (high - low) * 7 : 0;
        const size_t h = isfinite(column[i]) ? (size_t)lround(height) : 0;
        const char *mark = !isfinite(column[i]) ? " " : utf8 ? blocks[h] : (const char[]){marks[h], 0};
        const size_t k = strlen(mark);
        memcpy(out + bytes, mark, k);
        bytes += k;
    }
    out[bytes] = 0;
    return width;
}

size_t peer_curve_text(char out[PEER_CURVE_BYTES], const json_t *curve, bool utf8)
{
    const json_t *points = json_object_get(curve, "points");
    const size_t n = json_array_size(points);
    const bool whole = json_is_number(json_object_get(curve, "loss"));
    double *y = calloc(n + 1, sizeof *y);
    size_t k = 0;
    out[0] = 0;
    for (size_t i = 0; y && i < n; i++) {
        const json_t *p = json_array_get(points, i), *loss = json_object_get(p, "loss");
        if (!json_is_number(loss) || (whole && json_integer_value(json_object_get(p, "examples")) <
                                                   json_integer_value(json_object_get(p, "total"))))
            continue;
        y[k++] = json_number_value(loss);
    }
    const size_t width = y && k > 0 ? peer_curve_line(out, y, k, utf8) : 0;
    free(y);
    return width;
}

bool peer_curve_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0]) /* the first that is set decides */
            return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
    }
    return false;
}
