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
