/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compress_stored: encoded variants of stored responses, made in the background.
 *
 * A hit served uncompressed queues its object here (compress_stored_want). One variant at a time is
 * made, a piece of the body per idle iteration of the loop, or every few milliseconds while the
 * loop is busy. Over all workers each variant is made once: it holds a permit like any fetch, which
 * the keeper releases after its commit, and which the master frees when its worker dies. A body
 * that does not become a tenth smaller is remembered as an empty variant.
 *
 * A variant names its source (source_id): when the source is replaced or removed, the variant is
 * useless and is soon evicted or replaced.
 */
#include "daemons/worker/cache/compress_stored.h"
#include "daemons/http/h1.h"
#include "daemons/worker/cache/copy_encoder.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/permit.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "polder/fetch_lock.h"
#include "polder/inval.h"
#include "polder/ring.h"
#include "polder/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAITING   64
#define TURN_S    0.005
#define PIECE     16384u
#define TRIES     5 /* until the keeper has stored what was fetched just now */
#define TRY_MS    20
#define SEND_ROOM (RING_BYTES / 4) /* of the ring: fetches go first */
#define SEND_MS   5000             /* then it is given up */

struct compress_stored_job {
    struct cache_key key; /* of the source */
    uint8_t coding, tries;
    uint64_t due_ms;
};

enum compress_stored_state { COMPRESS_STORED_REST, COMPRESS_STORED_READ, COMPRESS_STORED_SEND };

struct compress_stored {
    ev_idle idle;
    ev_timer timer;
    struct worker *worker;
    struct compress_stored_job waiting[WAITING];
    unsigned n_waiting;

    enum compress_stored_state state;
    struct compress_stored_job job;
    struct permit permit;
    struct copy_encoder *encoder;
    struct cache_record record; /* of the copy */
    char *text;                 /* its url and vary */
    uint64_t source_len, at;    /* at: read of the source, then sent of the copy */
    uint64_t stream;            /* 0: nothing of it has been sent */
    uint64_t send_until_ms;
};

void compress_stored_copy_key(const struct worker *w, const struct cache_key *source,
                              enum coding coding, struct cache_key *key)
{
    cache_key_encoded(inval_secret(w->shared->inval), source, coding_name(coding), key);
}

/* ---- ends ---- */

static void rest(struct compress_stored *s)
{
    copy_encoder_free(s->encoder);
    s->encoder = NULL;
    free(s->text);
    s->text = NULL;
    s->state = COMPRESS_STORED_REST;
    permit_check_gone(&s->permit);
}

static void give_up(struct compress_stored *s, enum fetch_lock_result result)
{
    struct worker *w = s->worker;
    if (s->state == COMPRESS_STORED_SEND && s->stream)
        keeper_link_abort(w, s->stream);
    permit_release(w, &s->permit, result);
    rest(s);
}

/* ---- looking ---- */

/* The source's record, in the map until release. */
static bool find_source(struct compress_stored *s, struct cache_view *v)
{
    struct worker *w = s->worker;
    return reader_ready(w) && cache_reader_get(w->reader, &s->job.key, v) == 1 &&
           v->record->flags & CACHE_COMPRESSIBLE && v->record->body_len > 0;
}

static bool copy_is_there(struct worker *w, const struct cache_key *key, uint64_t source_id)
{
    struct cache_view v;
    return cache_reader_get(w->reader, key, &v) == 1 && v.record->source_id == source_id;
}

static void take_record(struct compress_stored *s, const struct cache_view *v,
                        const struct cache_key *key)
{
    static const char name[] = "content-coding: ";
    const char *coding = coding_name(s->job.coding);
    struct cache_record *rec = &s->record;
    *rec = *v->record;
    rec->key = *key;
    rec->source_id = v->record->obj_id;
    rec->obj_id = 0;
    rec->head_len = rec->inline_len = 0;
    rec->flags =
        (rec->flags & ~(uint32_t)(CACHE_COMPRESSIBLE | CACHE_CHUNKED_BODY)) | CACHE_ENCODED;
    s->source_len = v->record->body_len;
    s->text = malloc(rec->url_len + rec->vary_len + sizeof name + 16);
    if (!s->text)
        return;
    struct h1_out o = {s->text, s->text + rec->url_len + rec->vary_len + sizeof name + 16, false};
    h1_put(&o, v->url, rec->url_len);
    h1_put(&o, v->vary, rec->vary_len);
    h1_put(&o, name, sizeof name - 1);
    h1_put(&o, coding, strlen(coding));
    h1_put(&o, "\n", 1);
    rec->vary_len = (uint32_t)(o.at - s->text) - rec->url_len;
}

static void begin(struct compress_stored *s, const struct cache_view *v)
{
    struct worker *w = s->worker;
    struct cache_key key;
    compress_stored_copy_key(w, &s->job.key, s->job.coding, &key);
    take_record(s, v, &key);
    if (copy_is_there(w, &key, s->record.source_id) ||
        permit_claim(w, &key, &s->permit, NULL) != FETCH_LOCK_LEAD) {
        rest(s);
        return;
    }
    s->encoder = s->text ? copy_encoder_new(s->job.coding, s->source_len) : NULL;
    s->at = s->stream = 0;
    s->state = COMPRESS_STORED_READ;
    if (!s->encoder)
        give_up(s, FETCH_LOCK_FAILED);
}

/* The next job that is due. */
static void look(struct compress_stored *s)
{
    struct worker *w = s->worker;
    struct cache_view v;
    for (unsigned i = 0; i < s->n_waiting; i++) {
        struct compress_stored_job *j = &s->waiting[i];
        if (j->due_ms > w->mono_ms)
            continue;
        s->job = *j;
        *j = s->waiting[--s->n_waiting];
        if (find_source(s, &v)) {
            begin(s, &v);
        } else if (++s->job.tries < TRIES) { /* not committed yet */
            s->job.due_ms = w->mono_ms + TRY_MS;
            s->waiting[s->n_waiting++] = s->job;
        }
        if (w->reader)
            cache_reader_release(w->reader);
        return;
    }
}

/* ---- making ---- */

/* A piece of the source from `at` on, in the map until release. */
static bool next_piece(struct compress_stored *s, const char **bytes, size_t *len)
{
    struct worker *w = s->worker;
    struct cache_view v;
    if (!find_source(s, &v) || v.record->obj_id != s->record.source_id)
        return false;
    *bytes = v.body;
    *len = v.record->inline_len;
    uint64_t skip = s->at;
    if (!v.body) {
        skip = s->at % CACHE_CHUNK;
        if (cache_reader_chunk(w->reader, s->record.source_id, (uint32_t)(s->at / CACHE_CHUNK),
                               bytes, len) != 1)
            return false;
    }
    if (skip >= *len)
        return false;
    *bytes += skip;
    *len -= skip;
    if (*len > PIECE)
        *len = PIECE;
    return *len <= s->source_len - s->at;
}

static void begin_sending(struct compress_stored *s, bool worth_it)
{
    size_t len = 0;
    if (worth_it)
        copy_encoder_bytes(s->encoder, &len);
    s->record.body_len = len;
    s->at = 0;
    s->send_until_ms = s->worker->mono_ms + SEND_MS;
    s->state = COMPRESS_STORED_SEND;
}

static void read_on(struct compress_stored *s)
{
    struct worker *w = s->worker;
    const char *bytes;
    size_t len;
    int rc = -ENOENT;
    if (next_piece(s, &bytes, &len)) {
        s->at += len;
        rc = copy_encoder_feed(s->encoder, bytes, len, s->at == s->source_len);
    }
    if (w->reader)
        cache_reader_release(w->reader);
    if (rc == -EFBIG || (rc == 0 && s->at == s->source_len))
        begin_sending(s, rc == 0);
    else if (rc < 0)
        give_up(s, FETCH_LOCK_FAILED);
}

/* ---- storing ---- */

static bool push(struct compress_stored *s, enum ring_type type, const struct iovec *iov, int n,
                 bool last)
{
    return keeper_link_push(s->worker, type, s->stream, last ? &s->permit : NULL, iov, n) == 0;
}

static bool send_whole(struct compress_stored *s, const char *bytes, size_t len)
{
    struct cache_record rec = s->record;
    rec.inline_len = (uint32_t)len;
    const struct iovec iov[3] = {
        {&rec, sizeof rec}, {s->text, rec.url_len + rec.vary_len}, {(void *)(uintptr_t)bytes, len}};
    return push(s, RING_STORE, iov, 3, true);
}

static bool send_begin(struct compress_stored *s)
{
    s->record.flags |= CACHE_CHUNKED_BODY;
    s->stream = ++s->worker->keeper.stream;
    const struct iovec iov[2] = {{&s->record, sizeof s->record},
                                 {s->text, s->record.url_len + s->record.vary_len}};
    return push(s, RING_BEGIN, iov, 2, false);
}

/* The next chunk, or the end. True: there is more to send. */
static bool send_on(struct compress_stored *s, const char *bytes, size_t len, bool *failed)
{
    if (!s->stream) {
        *failed = !send_begin(s);
        return !*failed;
    }
    if (s->at < len) {
        const size_t n = len - s->at < CACHE_CHUNK ? len - s->at : CACHE_CHUNK;
        const struct iovec iov = {(void *)(uintptr_t)(bytes + s->at), n};
        *failed = !push(s, RING_CHUNK, &iov, 1, false);
        s->at += n;
        return !*failed;
    }
    const uint64_t total = len;
    const struct iovec iov = {(void *)(uintptr_t)&total, sizeof total};
    *failed = !push(s, RING_END, &iov, 1, true);
    return false;
}

static void send_turn(struct compress_stored *s)
{
    struct worker *w = s->worker;
    size_t len = 0;
    bool failed = false;
    const char *bytes = s->record.body_len ? copy_encoder_bytes(s->encoder, &len) : "";
    if (ring_room(w->keeper.ring) < SEND_ROOM && w->mono_ms < s->send_until_ms)
        return; /* the next turn of the timer */
    if (len <= cache_inline_room(&s->record) && !s->stream)
        failed = !send_whole(s, bytes, len);
    else if (send_on(s, bytes, len, &failed))
        return;
    if (failed) {
        give_up(s, FETCH_LOCK_FAILED);
        return;
    }
    stats_add(w->stats, STATS_CACHE_COPIES, len > 0);
    rest(s); /* the keeper releases the claim */
}

/* ---- turns ---- */

static bool has_work(const struct compress_stored *s)
{
    return s->state != COMPRESS_STORED_REST || s->n_waiting;
}

static void turn(struct compress_stored *s)
{
    struct worker *w = s->worker;
    permit_renew(s->worker, &s->permit);
    switch (s->state) {
    case COMPRESS_STORED_REST:
        look(s);
        break;
    case COMPRESS_STORED_READ:
        read_on(s);
        break;
    case COMPRESS_STORED_SEND:
        send_turn(s);
        break;
    }
    /* What waits for time or room waits for the timer. */
    if (s->state == COMPRESS_STORED_READ)
        ev_idle_start(w->loop, &s->idle);
    else
        ev_idle_stop(w->loop, &s->idle);
    if (!has_work(s))
        ev_timer_stop(w->loop, &s->timer);
}

static void on_idle(EV_P_ ev_idle *watcher, int events)
{
    (void)loop, (void)events;
    turn(watcher->data);
}

static void on_timer(EV_P_ ev_timer *watcher, int events)
{
    struct compress_stored *s = watcher->data;
    (void)loop, (void)events;
    do
        turn(s);
    while (s->state == COMPRESS_STORED_SEND && ring_room(s->worker->keeper.ring) >= SEND_ROOM);
}

static struct compress_stored *compress_stored_of(struct worker *w)
{
    if (w->lookups->compress_stored)
        return w->lookups->compress_stored;
    struct compress_stored *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->worker = w;
    ev_idle_init(&s->idle, on_idle);
    ev_set_priority(&s->idle, EV_MINPRI);
    ev_timer_init(&s->timer, on_timer, TURN_S, TURN_S);
    s->idle.data = s->timer.data = s;
    return w->lookups->compress_stored = s;
}

void compress_stored_want(struct worker *w, const struct cache_key *key, enum coding coding)
{
    struct compress_stored *s = w->draining ? NULL : compress_stored_of(w);
    struct cache_key copy_key;
    if (!s || s->n_waiting == WAITING)
        return;
    for (unsigned i = 0; i < s->n_waiting; i++)
        if (s->waiting[i].coding == coding && !memcmp(&s->waiting[i].key, key, sizeof *key))
            return;
    if (s->state != COMPRESS_STORED_REST && s->job.coding == coding &&
        !memcmp(&s->job.key, key, sizeof *key))
        return;
    compress_stored_copy_key(w, key, coding, &copy_key);
    if (permit_is_noshare(w, &copy_key))
        return; /* the keeper did not want it a moment ago */
    s->waiting[s->n_waiting++] =
        (struct compress_stored_job){.key = *key, .coding = (uint8_t)coding, .due_ms = w->mono_ms};
    if (!ev_is_active(&s->timer))
        ev_timer_again(w->loop, &s->timer);
}

void compress_stored_stop(struct worker *w)
{
    struct compress_stored *s = w->lookups->compress_stored;
    w->lookups->compress_stored = NULL;
    if (!s)
        return;
    ev_idle_stop(w->loop, &s->idle);
    ev_timer_stop(w->loop, &s->timer);
    if (s->state != COMPRESS_STORED_REST)
        give_up(s, FETCH_LOCK_FAILED);
    free(s);
}
