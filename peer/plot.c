#include "peer/plot.h"
#include <math.h>
#include <onebyte/zo/codec.h>
#include <string.h>

enum { WIDTH = 760, LEFT = 76, RIGHT = 20, PANEL = 150, GAP = 44, TOP = 64, PANELS = 5 };

void peer_plot_init(struct peer_plot *p, uint64_t end)
{
    memset(p, 0, sizeof *p);
    p->end = end ? end : 1;
}

static size_t n_bins(const struct peer_plot *p)
{
    return p->end < PEER_PLOT_BINS ? (size_t)p->end : PEER_PLOT_BINS;
}

static struct peer_plot_bin *bin_of(struct peer_plot *p, uint64_t step)
{
    step = step < p->end ? step : p->end - 1;
    return &p->bins[(size_t)((unsigned __int128)step * n_bins(p) / p->end)];
}

void peer_plot_eval(struct peer_plot *p, uint64_t step, double loss)
{
    struct peer_plot_bin *b = bin_of(p, step);
    if (!isfinite(loss))
        return;
    b->eval_sum += loss;
    b->evals++;
}

void peer_plot_add(struct peer_plot *p, uint64_t machine, const struct net_segment *s, size_t bytes,
                   int64_t unix_ms)
{
    struct peer_plot_bin *b = bin_of(p, s->step);
    const double loss = zo_f16_to_double(s->loss_f16);
    b->records += s->count;
    b->bytes += bytes;
    if (isfinite(loss)) {
        b->loss_sum += loss * s->count;
        b->loss_records += s->count;
    }
    if (unix_ms > b->last_ms)
        b->last_ms = unix_ms;
    if (p->first_ms == 0 || unix_ms < p->first_ms)
        p->first_ms = unix_ms;
    if (b->last_machine != machine + 1) {
        b->last_machine = machine + 1;
        b->machines++;
    }
}

/* y [n_bins] of a panel; NaN where nothing is known. */
static void series(const struct peer_plot *p, int panel, double *y)
{
    double bytes = 0;
    int64_t before = p->first_ms;
    uint64_t waiting = 0;
    for (size_t i = 0; i < n_bins(p); i++) {
        const struct peer_plot_bin *b = &p->bins[i];
        bytes += (double)b->bytes;
        waiting += b->records;
        y[i] = NAN;
        if (panel == 0 && b->loss_records > 0)
            y[i] = b->loss_sum / b->loss_records;
        if (panel == 1 && b->evals > 0)
            y[i] = b->eval_sum / b->evals;
        if (panel == 3 && b->records)
            y[i] = bytes;
        if (panel == 4 && b->records)
            y[i] = b->machines;
        if (panel == 2 &&
            b->last_ms > before) { /* columns that came in the same millisecond share one rate */
            y[i] = (double)waiting / ((double)(b->last_ms - before) / 1000);
            before = b->last_ms;
            waiting = 0;
        }
    }
}

/* 1, 2 or 5 times a power of ten, so that about four fit into x. */
static double tick(double x)
{
    const double raw = x / 4, power = pow(10, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static void label(char out[32], double x)
{
    static const char *const prefix[] = {"", "k", "M", "G", "T"};
    size_t i = 0;
    for (; fabs(x) >= 9999.5 && i + 1 < ARRAY_LEN(prefix); i++)
        x /= 1000;
    (void)snprintf(out, 32, "%.4g%s", fabs(x) < 1e-12 ? 0 : x, prefix[i]);
}

static void escaped(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++)
        switch (*c) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        default:
            fputc((unsigned char)*c < ' ' ? ' ' : *c, out);
        }
}

static void axes(FILE *out, int top, double lo, double hi, uint64_t end)
{
    char text[32];
    const double dy = tick(hi - lo), dx = tick((double)end);
    const int first = (int)ceil(lo / dy - 1e-9), last = (int)floor(hi / dy + 1e-6);
    for (int i = first; i <= last; i++) {
        const double v = i * dy;
        const double y = top + PANEL - (v - lo) / (hi - lo) * PANEL;
        label(text, v);
        fprintf(out,
                "<line class=\"g\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"e\" "
                "x=\"%d\" y=\"%.1f\">%s</text>\n",
                LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, text);
    }
    const double each = dx < 1 ? 1 : dx; /* steps are whole */
    for (int i = 0; i * each <= (double)end; i++) {
        const double v = i * each;
        label(text, v);
        fprintf(out, "<text class=\"m\" x=\"%.1f\" y=\"%d\">%s</text>\n",
                LEFT + v / (double)end * (WIDTH - LEFT - RIGHT), top + PANEL + 16, text);
    }
}

static void curve(FILE *out, const double *y, size_t n, int top, double lo, double hi)
{
    const double column = (double)(WIDTH - LEFT - RIGHT) / (double)n;
    double last_x = 0, last_y = 0;
    size_t points = 0;
    fputs("<polyline points=\"", out);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(y[i]))
            continue;
        last_x = LEFT + ((double)i + 0.5) * column;
        last_y = top + PANEL - (y[i] - lo) / (hi - lo) * PANEL;
        fprintf(out, "%s%.1f,%.1f", points++ ? " " : "", last_x, last_y);
    }
    fputs("\"/>\n", out);
    if (points)
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n", last_x, last_y);
}

static void panel(FILE *out, const struct peer_plot *p, int i)
{
    static const char *const titles[] = {"loss on training examples, nats",
                                         "loss of checkpoints on the eval set, self-reported, nats",
                                         "gradients per second", "bytes in segments, total",
                                         "peers that contributed"};
    double y[PEER_PLOT_BINS], lo = INFINITY, hi = -INFINITY;
    const size_t n = n_bins(p);
    const int top = TOP + i * (PANEL + GAP);
    series(p, i, y);
    for (size_t j = 0; j < n; j++)
        if (isfinite(y[j])) {
            lo = fmin(lo, y[j]);
            hi = fmax(hi, y[j]);
        }
    fprintf(out, "<text class=\"t\" x=\"%d\" y=\"%d\">%s</text>\n", LEFT, top - 8, titles[i]);
    if (!isfinite(lo)) {
        fprintf(out, "<text x=\"%d\" y=\"%d\">nothing known</text>\n", LEFT + 8, top + PANEL / 2);
        return;
    }
    if (i > 1)
        lo = 0; /* amounts start at zero; a loss need not */
    if (i == 4)
        hi = fmax(hi, 3.5); /* peers are whole: so are the marks */
    if (hi - lo < 1e-9 * fmax(fabs(hi), 1e-3))
        hi = lo + fmax(fabs(lo), 1);
    hi += 0.05 * (hi - lo);
    axes(out, top, lo, hi, p->end);
    curve(out, y, n, top, lo, hi);
}

enum err peer_plot_write(const struct peer_plot *p, const char *name, FILE *out)
{
    const int height = TOP + PANELS * (PANEL + GAP);
    uint64_t records = 0, bytes = 0;
    if (!name[0])
        name = "onebyte"; /* as the page calls a run without a name */
    for (size_t i = 0; i < n_bins(p); i++) {
        records += p->bins[i].records;
        bytes += p->bins[i].bytes;
    }
    fprintf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n<title>",
        WIDTH, height);
    escaped(out, name);
    fputs("</title>\n<style>svg { background: #fff } text { font: 12px system-ui, sans-serif; "
          "fill: #444a55 } .h { font-size: 16px; "
          "fill: #1a1c20 } .t { fill: #1a1c20 } .e { text-anchor: end } .m { text-anchor: middle } "
          ".g { stroke: #d9dce2 } polyline { "
          "fill: none; stroke: #0b5cad; stroke-width: 1.8; stroke-linejoin: round } circle { fill: "
          "#0b5cad }\n@media "
          "(prefers-color-scheme: dark) { svg { background: #14161a } text { fill: #a2a9b5 } .h, "
          ".t { fill: #e8eaee } .g { stroke: "
          "#333842 } polyline { stroke: #7db8f5 } circle { fill: #7db8f5 } }</style>\n",
          out);
    fprintf(out, "<text class=\"h\" x=\"%d\" y=\"26\">", LEFT);
    escaped(out, name);
    fprintf(out, ": %llu gradients in %llu bytes, over steps</text>\n", (unsigned long long)records,
            (unsigned long long)bytes);
    for (int i = 0; i < PANELS; i++)
        panel(out, p, i);
    fputs("</svg>\n", out);
    return ferror(out) ? ERR_IO : ERR_OK;
}
