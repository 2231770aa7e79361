/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_protobuf: see metrics_protobuf.h. Numbers of fields: metrics.proto of
 * prometheus/client_model. */
#include "daemons/control/ops/metrics_protobuf.h"

#include <stdio.h>
#include <string.h>

enum {
    FAMILY_NAME = 1,
    FAMILY_HELP = 2,
    FAMILY_TYPE = 3,
    FAMILY_METRIC = 4,
    FAMILY_UNIT = 5,
    METRIC_LABEL = 1,
    METRIC_GAUGE = 2,
    METRIC_COUNTER = 3,
    METRIC_HISTOGRAM = 7,
    LABEL_NAME = 1,
    LABEL_VALUE = 2,
    VALUE = 1, /* of Gauge and Counter */
    HISTOGRAM_COUNT = 1,
    HISTOGRAM_SUM = 2,
    HISTOGRAM_BUCKET = 3,
    HISTOGRAM_NATIVE_SCHEMA = 5,
    HISTOGRAM_ZERO_THRESHOLD = 6,
    HISTOGRAM_ZERO_COUNT = 7,
    HISTOGRAM_SPAN = 12,
    HISTOGRAM_DELTA = 13,
    BUCKET_COUNT = 1,
    BUCKET_BOUND = 2,
    SPAN_OFFSET = 1,
    SPAN_LENGTH = 2,
    TYPE_COUNTER = 0,
    TYPE_GAUGE = 1,
    TYPE_HISTOGRAM = 4,
};
enum wire { WIRE_VARINT, WIRE_DOUBLE, WIRE_BYTES };

/* A message that is being written: all but families fit. */
#define MESSAGE_MAX 8192
struct message {
    size_t len;
    unsigned char at[MESSAGE_MAX];
};
#define VARINT_MAX 10

static size_t varint(unsigned char *at, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        at[n++] = (unsigned char)(value | 0x80);
    at[n++] = (unsigned char)value;
    return n;
}

static uint64_t zigzag(int64_t value)
{
    return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

static size_t key(unsigned char *at, unsigned field, enum wire wire)
{
    return varint(at, field << 3 | wire);
}

static void put_u64(struct message *m, unsigned field, uint64_t value)
{
    if (m->len + 2 * VARINT_MAX > sizeof m->at)
        return;
    m->len += key(m->at + m->len, field, WIRE_VARINT);
    m->len += varint(m->at + m->len, value);
}

static void put_f64(struct message *m, unsigned field, double value)
{
    if (m->len + VARINT_MAX + sizeof value > sizeof m->at)
        return;
    m->len += key(m->at + m->len, field, WIRE_DOUBLE);
    memcpy(m->at + m->len, &value, sizeof value); /* little-endian, as all our machines */
    m->len += sizeof value;
}

static void put_bytes(struct message *m, unsigned field, const void *bytes, size_t len)
{
    if (m->len + 2 * VARINT_MAX + len > sizeof m->at)
        return;
    m->len += key(m->at + m->len, field, WIRE_BYTES);
    m->len += varint(m->at + m->len, len);
    memcpy(m->at + m->len, bytes, len);
    m->len += len;
}

static void put_text(struct message *m, unsigned field, const char *text)
{
    put_bytes(m, field, text, strlen(text));
}

static void put_message(struct message *m, unsigned field, const struct message *inner)
{
    put_bytes(m, field, inner->at, inner->len);
}

/* ---- families ---- */

static void append(struct text *t, unsigned field, const void *bytes, size_t len)
{
    unsigned char head[2 * VARINT_MAX];
    size_t n = key(head, field, WIRE_BYTES);
    n += varint(head + n, len);
    text_put_bytes(t, (const char *)head, n);
    text_put_bytes(t, bytes, len);
}

void metrics_protobuf_begin(struct metrics_writer *w, const char *suffix)
{
    const struct metrics_family *f = &w->family;
    char name[128];
    unsigned char type[2 * VARINT_MAX];
    size_t n = key(type, FAMILY_TYPE, WIRE_VARINT);
    n += varint(type + n, f->type == METRICS_COUNTER     ? TYPE_COUNTER
                          : f->type == METRICS_HISTOGRAM ? TYPE_HISTOGRAM
                                                         : TYPE_GAUGE);
    w->gathered.len = 0;
    const int len = snprintf(name, sizeof name, "polder_%s%s", f->name, suffix);
    append(&w->gathered, FAMILY_NAME, name, (size_t)len);
    append(&w->gathered, FAMILY_HELP, f->help, strlen(f->help));
    text_put_bytes(&w->gathered, (const char *)type, n);
    if (*f->unit)
        append(&w->gathered, FAMILY_UNIT, f->unit, strlen(f->unit));
}

void metrics_protobuf_end(struct metrics_writer *w)
{
    unsigned char len[VARINT_MAX];
    text_put_bytes(w->t, (const char *)len, varint(len, w->gathered.len));
    text_put_bytes(w->t, w->gathered.at, w->gathered.len);
    w->t->failed = w->t->failed || w->gathered.failed;
}

/* ---- samples ---- */

static void put_labels(struct message *m, const struct metrics_label *labels)
{
    for (; labels->name; labels++) {
        struct message pair;
        pair.len = 0;
        put_text(&pair, LABEL_NAME, labels->name);
        put_text(&pair, LABEL_VALUE, labels->value);
        put_message(m, METRIC_LABEL, &pair);
    }
}

void metrics_protobuf_sample(struct metrics_writer *w, const struct metrics_label *labels,
                             double value)
{
    struct message metric, inner;
    metric.len = inner.len = 0;
    put_labels(&metric, labels);
    put_f64(&inner, VALUE, value);
    put_message(&metric, w->family.type == METRICS_COUNTER ? METRIC_COUNTER : METRIC_GAUGE, &inner);
    append(&w->gathered, FAMILY_METRIC, metric.at, metric.len);
}

static void put_classic(struct message *m, const struct distribution *d)
{
    const struct metrics_classic c = metrics_classic_of(d->first);
    for (int e = c.first; e <= c.last; e += c.step) {
        struct message bucket;
        bucket.len = 0;
        put_u64(&bucket, BUCKET_COUNT, distribution_at_most(d, e * 4));
        put_f64(&bucket, BUCKET_BOUND, histogram_bound_s(e * 4));
        put_message(m, HISTOGRAM_BUCKET, &bucket);
    }
}

static void put_span(struct message *m, int offset, uint32_t length)
{
    struct message span;
    span.len = 0;
    put_u64(&span, SPAN_OFFSET, zigzag(offset));
    put_u64(&span, SPAN_LENGTH, length);
    put_message(m, HISTOGRAM_SPAN, &span);
}

/* Where the next bucket lies that has something, or the end. */
static int next_used(const struct distribution *d, int b)
{
    while (b < HISTOGRAM_BUCKETS && !d->bucket[b])
        b++;
    return b;
}

/* Runs of buckets that are used, with what separates them; each count as the difference to the one
 * before. What is shorter than the first bound is as good as 0, and counts there. */
static void put_native(struct message *m, const struct distribution *d)
{
    struct message deltas;
    int64_t last = 0;
    int behind = 0; /* index behind the last span; of the first, the offset is its index */
    deltas.len = 0;
    put_u64(m, HISTOGRAM_NATIVE_SCHEMA, zigzag(HISTOGRAM_SCHEMA));
    put_f64(m, HISTOGRAM_ZERO_THRESHOLD, histogram_bound_s((int)d->first));
    put_u64(m, HISTOGRAM_ZERO_COUNT, d->bucket[0]);
    for (int b = next_used(d, 1); b < HISTOGRAM_BUCKETS; b = next_used(d, b)) {
        const int index = (int)d->first + b;
        uint32_t length = 0;
        for (; b < HISTOGRAM_BUCKETS && d->bucket[b]; b++, length++) {
            deltas.len += varint(deltas.at + deltas.len, zigzag((int64_t)d->bucket[b] - last));
            last = (int64_t)d->bucket[b];
        }
        put_span(m, index - behind, length);
        behind = index + (int)length;
    }
    if (deltas.len)
        put_message(m, HISTOGRAM_DELTA, &deltas);
    else
        put_span(m, 0, 0); /* says that it is a native one, though nothing was observed */
}
_Static_assert(HISTOGRAM_BUCKETS *VARINT_MAX + 64 * 16 + 32 * 32 < MESSAGE_MAX / 2, "they all fit");

void metrics_protobuf_distribution(struct metrics_writer *w, const struct metrics_label *labels,
                                   const struct distribution *d, double sum_s)
{
    struct message metric, histogram;
    metric.len = histogram.len = 0;
    put_u64(&histogram, HISTOGRAM_COUNT, d->count);
    put_f64(&histogram, HISTOGRAM_SUM, sum_s);
    put_classic(&histogram, d);
    put_native(&histogram, d);
    put_labels(&metric, labels);
    put_message(&metric, METRIC_HISTOGRAM, &histogram);
    append(&w->gathered, FAMILY_METRIC, metric.at, metric.len);
}
