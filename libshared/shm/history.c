/* SPDX-License-Identifier: BSD-2-Clause */
/* history: see history.h. */
#include "polder/history.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "shared by processes");
_Static_assert(sizeof(_Atomic float) == sizeof(float), "layout");
_Static_assert(sizeof(struct history_sample) % 8 == 0, "no padding behind the values");

static const struct history_kind kinds[] = {
#define SERIES(id, name, unit, what) {name, unit, what},
#define SERVER_SERIES(id, name, unit, what)
#include "libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
};
static const struct history_kind server_kinds[] = {
#define SERIES(id, name, unit, what)
#define SERVER_SERIES(id, name, unit, what) {name, unit, what},
#include "libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
};
/* The columns, in their order. */
static const char columns[] =
#define SERIES(id, name, unit, what)        name "," unit ";"
#define SERVER_SERIES(id, name, unit, what) name "," unit ";"
#include "libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
    ;

uint64_t history_page_layout(void)
{
    return XXH3_64bits_withSeed(columns, sizeof columns,
                                HISTORY_LAYOUT + ((uint64_t)sizeof(struct history_page) << 8));
}

const struct history_kind *history_kind(enum history_series series)
{
    return &kinds[series];
}

const struct history_kind *history_server_kind(enum history_server_series series)
{
    return &server_kinds[series];
}

/* ---- samples ---- */

static size_t samples_of(enum history_ring_id ring)
{
    return ring == HISTORY_FINE ? HISTORY_FINE_SAMPLES : HISTORY_COARSE_SAMPLES;
}

static size_t slot_of(enum history_ring_id ring, uint64_t at)
{
    return (size_t)(at / history_step(ring) % samples_of(ring));
}

static const struct history_sample *sample_of(const struct history_page *page,
                                              enum history_ring_id ring, uint64_t at)
{
    const struct history_sample *samples = ring == HISTORY_FINE ? page->fine : page->coarse;
    return &samples[slot_of(ring, at)];
}

void history_put(struct history_page *page, enum history_ring_id ring, uint64_t at,
                 const float *values)
{
    struct history_sample *s = (struct history_sample *)sample_of(page, ring, at);
    atomic_store_explicit(&s->at, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        atomic_store_explicit(&s->value[i], values[i], memory_order_relaxed);
    atomic_store_explicit(&s->at, at, memory_order_release);
    atomic_store_explicit(&page->newest[ring], at, memory_order_release);
}

/* ---- a page of an earlier run ---- */

static void ring_mend(struct history_page *page, enum history_ring_id ring, uint64_t now_s)
{
    struct history_sample *sample = ring == HISTORY_FINE ? page->fine : page->coarse;
    const uint64_t n = ring == HISTORY_FINE ? HISTORY_FINE_SAMPLES : HISTORY_COARSE_SAMPLES;
    uint64_t newest = 0;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t at = atomic_load(&sample[i].at);
        if (at && !history_belongs(ring, at, i, now_s))
            atomic_store(&sample[i].at, 0);
        else if (at > newest)
            newest = at;
    }
    atomic_store(&page->newest[ring], newest);
}

void history_mend(struct history_page *page, uint64_t now_s)
{
    for (unsigned ring = 0; ring < HISTORY_RINGS; ring++)
        ring_mend(page, (enum history_ring_id)ring, now_s);
    for (size_t i = 0; i < HISTORY_SERVERS; i++) {
        struct history_server *s = &page->server[i];
        s->subject[sizeof s->subject - 1] = 0;
        if (atomic_load(&s->since) > now_s)
            atomic_store(&s->id, 0);
    }
}

/* ---- servers ---- */

static size_t row_of(const struct history_page *page, uint64_t id)
{
    size_t row = 0;
    while (row < HISTORY_SERVERS && atomic_load(&page->server[row].id) != id)
        row++;
    return row;
}

static bool is_among(uint64_t id, const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* A free one, or the oldest of those that none of these servers has. */
static size_t row_to_take(const struct history_page *page, const uint64_t *ids, size_t n)
{
    size_t best = HISTORY_SERVERS;
    uint64_t oldest = UINT64_MAX;
    for (size_t row = 0; row < HISTORY_SERVERS; row++) {
        const uint64_t id = atomic_load(&page->server[row].id);
        const uint64_t since = id ? atomic_load(&page->server[row].since) : 0;
        if (since < oldest && (!id || !is_among(id, ids, n))) {
            oldest = since;
            best = row;
        }
    }
    return best;
}

static void row_take(struct history_server *s, uint64_t id, const char *subject, uint64_t now_s)
{
    atomic_store(&s->id, 0);
    snprintf(s->subject, sizeof s->subject, "%s", subject);
    atomic_store(&s->since, now_s);
    atomic_store(&s->id, id);
}

void history_servers_put(struct history_page *page, const uint64_t *id,
                         const char (*subject)[HISTORY_SUBJECT], size_t n, uint64_t now_s,
                         size_t *row)
{
    const size_t kept = n < HISTORY_SERVERS ? n : HISTORY_SERVERS;
    for (size_t i = 0; i < n; i++) {
        row[i] = i < kept ? row_of(page, id[i]) : HISTORY_SERVERS;
        if (i >= kept || row[i] < HISTORY_SERVERS)
            continue;
        row[i] = row_to_take(page, id, kept);
        if (row[i] < HISTORY_SERVERS)
            row_take(&page->server[row[i]], id[i], subject[i], now_s);
    }
}

/* ---- columns ---- */

static bool column_server(size_t column, size_t *row, size_t *series)
{
    if (column < HISTORY_SERIES)
        return false;
    *row = (column - HISTORY_SERIES) / HISTORY_SERVER_SERIES;
    *series = (column - HISTORY_SERIES) % HISTORY_SERVER_SERIES;
    return true;
}

const struct history_kind *history_column_kind(size_t column)
{
    size_t row, series;
    return column_server(column, &row, &series) ? &server_kinds[series] : &kinds[column];
}

bool history_column_is_used(const struct history_page *page, size_t column)
{
    size_t row, series;
    return !column_server(column, &row, &series) || atomic_load(&page->server[row].id);
}

void history_name(const struct history_page *page, size_t column, char *out, size_t size)
{
    size_t row, series;
    if (column_server(column, &row, &series))
        snprintf(out, size, "%s:%.*s", server_kinds[series].name, HISTORY_SUBJECT - 1,
                 page->server[row].subject);
    else
        snprintf(out, size, "%s", kinds[column].name);
}

int history_find(const struct history_page *page, const char *name, size_t len, size_t *column)
{
    char text[HISTORY_NAME];
    for (*column = 0; *column < HISTORY_WIDTH; ++*column) {
        if (!history_column_is_used(page, *column))
            continue;
        history_name(page, *column, text, sizeof text);
        if (strlen(text) == len && !memcmp(text, name, len))
            return 0;
    }
    return -ENOENT;
}

/* ---- ranges ---- */

/* The newest sample, unless none has come for a while. */
static uint64_t end_of(const struct history_page *page, enum history_ring_id ring, uint64_t now_s)
{
    const uint64_t newest = atomic_load(&page->newest[ring]), step = history_step(ring);
    if (newest && newest <= now_s && now_s - newest < 3 * step)
        return newest;
    return now_s / step * step;
}

int history_range(const struct history_page *page, uint64_t since_s, uint64_t step, uint64_t now_s,
                  struct history_range *out)
{
    if (!since_s || since_s > history_span(HISTORY_COARSE))
        return -EINVAL;
    const bool fine = step ? step % HISTORY_COARSE_STEP : since_s <= history_span(HISTORY_FINE);
    out->ring = fine ? HISTORY_FINE : HISTORY_COARSE;
    out->step = step ? step : history_step(out->ring);
    if (out->step > since_s || since_s > history_span(out->ring) ||
        (fine && out->step != HISTORY_FINE_STEP))
        return -ERANGE;
    out->n = (size_t)(since_s / out->step);
    out->end = end_of(page, out->ring, now_s);
    out->start = out->end - (out->n - 1) * out->step;
    return 0;
}

static double sample_value(const struct history_page *page, enum history_ring_id ring, uint64_t at,
                           size_t column)
{
    const struct history_sample *s = sample_of(page, ring, at);
    size_t row, series;
    if (atomic_load_explicit(&s->at, memory_order_acquire) != at ||
        (column_server(column, &row, &series) && atomic_load(&page->server[row].since) > at))
        return NAN;
    const double value = (double)atomic_load_explicit(&s->value[column], memory_order_relaxed);
    return isfinite(value) ? value : NAN;
}

double history_value(const struct history_page *page, const struct history_range *r, size_t column,
                     size_t i)
{
    const uint64_t last = r->start + i * r->step, step = history_step(r->ring);
    double sum = 0;
    unsigned n = 0;
    for (uint64_t at = last - r->step + step; at <= last; at += step) {
        const double value = sample_value(page, r->ring, at, column);
        if (isnan(value))
            continue;
        sum += value;
        n++;
    }
    return n ? sum / n : NAN;
}
