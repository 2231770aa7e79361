/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * history: samples of the service's figures over the last 24 hours.
 *
 * Two rings of samples in shared memory, which the master makes and which no death but the master's
 * ends: one sample a second for an hour, one each ten seconds for a day. What is sampled is
 * libshared/tables/history_series.def. control writes, once a second; control reads, and a child of
 * the master that saves it all (history_save()).
 *
 * A sample belongs to the moment at which its interval ended, in seconds of Unix time, and lies
 * where that moment says: second % samples of the ring. A sample that was not taken is thus one
 * whose place still has another moment: samples missed while control or Polder was down are
 * missing, not 0. There is no index that could be wrong.
 *
 * A crash. The moment is stored as 0, the values are written, then the moment is stored (release):
 * that is the one step which publishes a sample. Killed before it, control leaves a place without a
 * sample. A server's row is claimed in the same way.
 *
 * Over restarts the page itself is kept where the service manager keeps descriptors (kept.h), and
 * history_mend() looks it through. For a reboot, and elsewhere, history_save() writes the page to
 * state_dir/history.page: a header with its layout and a checksum, then all samples; to a temporary
 * file that is renamed. history_load() believes only a whole file of this layout, and of it only
 * samples that lie where they belong.
 */
#ifndef POLDER_HISTORY_H
#define POLDER_HISTORY_H
#include "polder/shm.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_series {
#define SERIES(id, name, unit, what) HISTORY_##id,
#define SERVER_SERIES(id, name, unit, what)
#include "../../libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
    HISTORY_SERIES
};
enum history_server_series {
#define SERIES(id, name, unit, what)
#define SERVER_SERIES(id, name, unit, what) HISTORY_SERVER_##id,
#include "../../libshared/tables/history_series.def"
#undef SERIES
#undef SERVER_SERIES
    HISTORY_SERVER_SERIES
};

#define HISTORY_LAYOUT  1  /* of struct history_page, beside the number of series */
#define HISTORY_SERVERS 16 /* servers that have a history: the first ones of the file */
#define HISTORY_WIDTH   (HISTORY_SERIES + HISTORY_SERVERS * HISTORY_SERVER_SERIES)
#define HISTORY_SUBJECT 112

enum history_ring_id { HISTORY_FINE, HISTORY_COARSE, HISTORY_RINGS };
#define HISTORY_FINE_STEP      1u
#define HISTORY_FINE_SAMPLES   3600u
#define HISTORY_COARSE_STEP    10u
#define HISTORY_COARSE_SAMPLES 8640u

struct history_sample {
    _Atomic uint64_t at;                              /* Unix time; 0: none */
    _Atomic float value[(HISTORY_WIDTH + 1) / 2 * 2]; /* NaN: nothing was counted */
};
struct history_server {
    _Atomic uint64_t id;           /* stats_server_id(); 0: free. Stored last (release) */
    _Atomic uint64_t since;        /* samples before it are of another server */
    char subject[HISTORY_SUBJECT]; /* "UPSTREAM/SERVER" */
};
struct history_page {
    struct shm_header header;
    /* control: the file of an earlier run has been loaded; survives deaths of control */
    _Alignas(64) _Atomic uint32_t loaded;
    _Atomic uint64_t newest[HISTORY_RINGS]; /* at of the last sample; 0: none */
    struct history_server server[HISTORY_SERVERS];
    _Alignas(64) struct history_sample fine[HISTORY_FINE_SAMPLES];
    struct history_sample coarse[HISTORY_COARSE_SAMPLES];
};
uint64_t history_page_layout(void);

/* ---- what there is ---- */
struct history_kind {
    const char *name, *unit, *what;
};
const struct history_kind *history_kind(enum history_series series);
const struct history_kind *history_server_kind(enum history_server_series series);

/* ---- the one writer ---- */
/* values[HISTORY_WIDTH]; at: a multiple of the ring's step. */
void history_put(struct history_page *page, enum history_ring_id ring, uint64_t at,
                 const float *values);
/* The rows of these servers, made where they have none; rows of others are replaced, the oldest
 * first. row[i]: of id[i], or HISTORY_SERVERS: there are too many. */
void history_servers_put(struct history_page *page, const uint64_t *id,
                         const char (*subject)[HISTORY_SUBJECT], size_t n, uint64_t now_s,
                         size_t *row);
/* Where a value of a server stands among the values of a sample. */
static inline size_t history_server_column(size_t row, enum history_server_series series)
{
    return HISTORY_SERIES + row * HISTORY_SERVER_SERIES + (size_t)series;
}

/* ---- readers ---- */
/* A column of samples, by the name under which it is asked for. -ENOENT: there is none. */
int history_find(const struct history_page *page, const char *name, size_t len, size_t *column);
/* "p95", "serverP95:api/10.0.0.7:80" */
void history_name(const struct history_page *page, size_t column, char *out, size_t size);
#define HISTORY_NAME (HISTORY_SUBJECT + 32)
const struct history_kind *history_column_kind(size_t column);
/* False: that row is free. */
bool history_column_is_used(const struct history_page *page, size_t column);

static inline uint64_t history_step(enum history_ring_id ring)
{
    return ring == HISTORY_FINE ? HISTORY_FINE_STEP : HISTORY_COARSE_STEP;
}
static inline uint64_t history_span(enum history_ring_id ring)
{
    return ring == HISTORY_FINE ? HISTORY_FINE_STEP * HISTORY_FINE_SAMPLES
                                : HISTORY_COARSE_STEP * HISTORY_COARSE_SAMPLES;
}
/* Whether a sample of that moment, not later than now, lies in that place of the ring. */
static inline bool history_belongs(enum history_ring_id ring, uint64_t at, uint64_t place,
                                   uint64_t now_s)
{
    const uint64_t step = history_step(ring);
    return at <= now_s && at % step == 0 && at / step % (history_span(ring) / step) == place;
}
/* A series to show: one value each `step` seconds, up to the newest one. */
struct history_range {
    enum history_ring_id ring;
    uint64_t step;       /* a multiple of the ring's */
    uint64_t start, end; /* moments of the first and of the last value */
    size_t n;
};
/* since_s, step: seconds; step 0: as fine as there is. 0, or -EINVAL: since_s is not 1 to a day;
 * -ERANGE: step is neither 1, for an hour at most, nor a multiple of 10 up to since_s. */
int history_range(const struct history_page *page, uint64_t since_s, uint64_t step, uint64_t now_s,
                  struct history_range *out);
/* The i-th value: the mean of the samples of its interval that have one; NaN: none has. */
double history_value(const struct history_page *page, const struct history_range *range,
                     size_t column, size_t i);

/* ---- over restarts ---- */
/* The page of an earlier run in this boot: drops samples that do not lie where they belong or are of
 * the future, and rows that were being written. */
void history_mend(struct history_page *page, uint64_t now_s);
#define HISTORY_FILE "history.page"
size_t history_file_size(void);
/* 0 or a negative errno. Safe while control writes. */
int history_save(const struct history_page *page, const char *state_dir, uint64_t now_s);
/* 0, also where there is no file, or a negative errno: -EPROTO: it is damaged, -ESTALE: it is of
 * another version. Samples with a time in the future are left out. */
int history_load(struct history_page *page, const char *state_dir, uint64_t now_s);
#endif
