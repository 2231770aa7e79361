/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_writer: see metrics_writer.h. */
#include "daemons/control/ops/metrics_writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* In OpenMetrics a counter's family name is without "_total", in the older text it is the name of
 * the samples. */
void metrics_family(struct metrics_writer *w, const char *name, const char *type, const char *unit,
                    const char *help)
{
    if (!strcmp(w->family, name))
        return;
    snprintf(w->family, sizeof w->family, "%s", name);
    const char *suffix = !w->openmetrics && !strcmp(type, "counter") ? "_total" : "";
    const char *shown = type;
    if (!strcmp(type, "info")) {
        suffix = w->openmetrics ? "" : "_info";
        shown = w->openmetrics ? "info" : "gauge";
    }
    text_put(w->t, "# TYPE polder_%s%s %s\n", name, suffix, shown);
    if (unit && w->openmetrics)
        text_put(w->t, "# UNIT polder_%s %s\n", name, unit);
    text_put(w->t, "# HELP polder_%s%s %s\n", name, suffix, help);
}

const char *metrics_escaped(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; *text && n + 3 < size; text++) {
        if (*text == '\\' || *text == '"' || *text == '\n')
            out[n++] = '\\';
        out[n++] = *text == '\n' ? 'n' : *text;
    }
    out[n] = 0;
    return out;
}

void metrics_sample(struct metrics_writer *w, const char *suffix, const char *labels, double value)
{
    text_put(w->t, "polder_%s%s%s%s%s %.17g\n", w->family, suffix, *labels ? "{" : "", labels,
             *labels ? "}" : "", value);
}

void metrics_sample_u64(struct metrics_writer *w, const char *suffix, const char *labels,
                        uint64_t value)
{
    text_put(w->t, "polder_%s%s%s%s%s %" PRIu64 "\n", w->family, suffix, *labels ? "{" : "", labels,
             *labels ? "}" : "", value);
}

/* ---- histograms ---- */

/* Classic buckets: powers of two of a second, which are bounds of the histogram's own, so nothing
 * is guessed. */
struct classic {
    int first, last, step;
};

static struct classic classic_of(enum histogram_first first)
{
    return first == HISTOGRAM_LATENCY ? (struct classic){-16, 5, 1} : (struct classic){-4, 20, 2};
}

void metrics_histogram(struct metrics_writer *w, const char *labels, const struct distribution *d,
                       const double *sum_s)
{
    const struct classic c = classic_of(d->first);
    const char *comma = *labels ? "," : "";
    char with_le[METRICS_LABELS + 32];
    for (int e = c.first; e <= c.last; e += c.step) {
        const double bound = histogram_bound_s(e * 4);
        /* canonical floats: OpenMetrics wants 1.0, not 1 */
        snprintf(with_le, sizeof with_le, "%s%sle=\"%.17g%s\"", labels, comma, bound,
                 bound < 1 ? "" : ".0");
        metrics_sample_u64(w, "_bucket", with_le, distribution_at_most(d, e * 4));
    }
    snprintf(with_le, sizeof with_le, "%s%sle=\"+Inf\"", labels, comma);
    metrics_sample_u64(w, "_bucket", with_le, d->count);
    metrics_sample_u64(w, "_count", labels, d->count);
    metrics_sample(w, "_sum", labels, sum_s ? *sum_s : (double)d->sum_ns / 1e9);
}
