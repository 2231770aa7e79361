/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_writer: see metrics_writer.h; protobuf is in metrics_protobuf.c. */
#include "daemons/control/ops/metrics_writer.h"
#include "daemons/control/ops/metrics_protobuf.h"
#include "polder/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- text ---- */

static void put(struct metrics_writer *w, const char *text)
{
    text_put_bytes(w->t, text, strlen(text));
}

static const char *suffix_of(enum metrics_type type)
{
    return type == METRICS_COUNTER ? "_total" : type == METRICS_INFO ? "_info" : "";
}

/* In OpenMetrics a counter's family name is without "_total", in the older text it is the name of
 * the samples. */
static void put_head(struct metrics_writer *w)
{
    static const char *const type[] = {[METRICS_COUNTER] = "counter",
                                       [METRICS_GAUGE] = "gauge",
                                       [METRICS_HISTOGRAM] = "histogram",
                                       [METRICS_INFO] = "info"};
    const struct metrics_family *f = &w->family;
    const bool open = w->form == METRICS_OPENMETRICS;
    const char *suffix = open ? "" : suffix_of(f->type);
    text_put(w->t, "# TYPE polder_%s%s %s\n", f->name, suffix,
             f->type == METRICS_INFO && !open ? "gauge" : type[f->type]);
    if (open && *f->unit)
        text_put(w->t, "# UNIT polder_%s %s\n", f->name, f->unit);
    text_put(w->t, "# HELP polder_%s%s %s\n", f->name, suffix, f->help);
}

static void put_escaped(struct metrics_writer *w, const char *value)
{
    for (;;) {
        const size_t n = strcspn(value, "\\\"\n");
        text_put_bytes(w->t, value, n);
        value += n;
        if (!*value)
            return;
        const char escaped[] = {'\\', *value == '\n' ? 'n' : *value};
        text_put_bytes(w->t, escaped, 2);
        value++;
    }
}

/* The name of a sample and its labels; le NULL: none. */
static void put_name(struct metrics_writer *w, const char *suffix,
                     const struct metrics_label *labels, const char *le)
{
    const char *before = "{";
    put(w, "polder_");
    put(w, w->family.name);
    put(w, suffix);
    for (; labels->name; labels++, before = ",") {
        put(w, before);
        put(w, labels->name);
        put(w, "=\"");
        put_escaped(w, labels->value);
        put(w, "\"");
    }
    if (le) {
        put(w, before);
        put(w, "le=\"");
        put(w, le);
        put(w, "\"");
    }
    put(w, *before == ',' || le ? "} " : " ");
}

static void put_u64(struct metrics_writer *w, uint64_t value)
{
    char digits[24], *at = digits + sizeof digits;
    *--at = '\n';
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    text_put_bytes(w->t, at, (size_t)(digits + sizeof digits - at));
}

static void text_sample_u64(struct metrics_writer *w, const char *suffix,
                            const struct metrics_label *labels, const char *le, uint64_t value)
{
    put_name(w, suffix, labels, le);
    put_u64(w, value);
}

static void text_sample_f64(struct metrics_writer *w, const char *suffix,
                            const struct metrics_label *labels, double value)
{
    put_name(w, suffix, labels, NULL);
    if (isnan(value))
        put(w, "NaN\n");
    else if (isinf(value))
        put(w, value > 0 ? "+Inf\n" : "-Inf\n");
    else
        text_put(w->t, "%.17g\n", value);
}

static void text_distribution(struct metrics_writer *w, const struct metrics_label *labels,
                              const struct distribution *d, double sum_s)
{
    const struct metrics_classic c = metrics_classic_of(d->first);
    for (int e = c.first; e <= c.last; e += c.step) {
        char le[40];
        const double bound = histogram_bound_s(e * 4);
        /* canonical floats: OpenMetrics wants 1.0, not 1 */
        snprintf(le, sizeof le, "%.17g%s", bound, bound < 1 ? "" : ".0");
        text_sample_u64(w, "_bucket", labels, le, distribution_at_most(d, e * 4));
    }
    text_sample_u64(w, "_bucket", labels, "+Inf", d->count);
    text_sample_u64(w, "_count", labels, NULL, d->count);
    text_sample_f64(w, "_sum", labels, sum_s);
}

/* ---- families ---- */

void metrics_begin(struct metrics_writer *w, enum metrics_form form,
                   const struct metrics_query *query, struct text *t)
{
    *w = (struct metrics_writer){.t = t, .query = query, .form = form};
}

static void end_family(struct metrics_writer *w)
{
    if (w->family.name && w->form == METRICS_PROTOBUF)
        metrics_protobuf_end(w);
    w->family.name = NULL;
}

static bool begin_family(struct metrics_writer *w, const struct metrics_family *family)
{
    end_family(w);
    if (w->query && !metrics_query_wants(w->query, family->name))
        return false;
    w->family = *family;
    if (w->form == METRICS_PROTOBUF)
        metrics_protobuf_begin(w, suffix_of(family->type));
    else
        put_head(w);
    return true;
}

bool metrics_family_begin(struct metrics_writer *w, enum metric id)
{
    return begin_family(w, metrics_family_of(id));
}

bool metrics_family_row(struct metrics_writer *w, const struct metrics_family *family)
{
    if (w->family.name && !strcmp(w->family.name, family->name))
        return true;
    return begin_family(w, family);
}

void metrics_end(struct metrics_writer *w)
{
    end_family(w);
    if (w->form == METRICS_OPENMETRICS)
        put(w, "# EOF\n");
}

void metrics_free(struct metrics_writer *w)
{
    text_free(&w->gathered);
}

/* ---- samples ---- */

void metrics_u64(struct metrics_writer *w, const struct metrics_label *labels, uint64_t value)
{
    if (w->form == METRICS_PROTOBUF)
        metrics_protobuf_sample(w, labels, (double)value);
    else
        text_sample_u64(w, suffix_of(w->family.type), labels, NULL, value);
}

void metrics_f64(struct metrics_writer *w, const struct metrics_label *labels, double value)
{
    if (w->form == METRICS_PROTOBUF)
        metrics_protobuf_sample(w, labels, value);
    else
        text_sample_f64(w, suffix_of(w->family.type), labels, value);
}

void metrics_distribution(struct metrics_writer *w, const struct metrics_label *labels,
                          const struct distribution *d, const double *sum_s)
{
    const double sum = sum_s ? *sum_s : (double)d->sum_ns / 1e9;
    if (w->form == METRICS_PROTOBUF)
        metrics_protobuf_distribution(w, labels, d, sum);
    else
        text_distribution(w, labels, d, sum);
}

/* ---- labels ---- */

#define CUT_MARK 20 /* "...", 16 digits, 0 */

const char *metrics_label_value(const char *text, char out[METRICS_VALUE_MAX])
{
    size_t n = 0, room = METRICS_VALUE_MAX - CUT_MARK;
    const size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        const size_t good = utf8_length(text + i, len - i), adds = good ? good : 3;
        if (n + adds > room) { /* by a hash, two that begin alike stay two */
            snprintf(out + n, METRICS_VALUE_MAX - n, "...%016" PRIx64, XXH3_64bits(text, len));
            return out;
        }
        memcpy(out + n, good ? text + i : "\xef\xbf\xbd", adds);
        n += adds;
        i += good ? good : 1;
    }
    out[n] = 0;
    return out;
}

void metrics_labels_of_row(const char *text, struct metrics_label labels[METRICS_LABELS_MAX + 1],
                           char space[METRICS_VALUE_MAX])
{
    unsigned n = 0;
    snprintf(space, METRICS_VALUE_MAX, "%s", text);
    for (char *at = space; *at && n < METRICS_LABELS_MAX; n++) {
        char *value = strstr(at, "=\""), *end = value ? strchr(value + 2, '"') : NULL;
        if (!end)
            break;
        *value = *end = 0;
        labels[n] = (struct metrics_label){at, value + 2};
        at = end[1] == ',' ? end + 2 : end + 1;
    }
    labels[n] = (struct metrics_label){0};
}
