/* SPDX-License-Identifier: BSD-2-Clause */
/* compress: see compress.h. */
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/encoder.h"
#include "daemons/worker/fetch/content.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ACCEPT_MAX 1024 /* of Accept-Encoding; longer ones get the plain response */
#define IDLE_MAX   4    /* encoders of each coding that are kept for the next answer */
#define OUT_SIZE   16384
#define WHOLE_MAX  CACHE_VALUE_MAX /* of a body that is compressed at once */

struct compress_stream {
    struct fetch *ex;
    struct compress_stream *next, *prev;
    struct encoder *encoder;
    uint8_t coding;
    bool unflushed;    /* the encoder holds back what has come */
    uint64_t since_ms; /* since when */
    bool waits;        /* its backend, for the next turn */
};

struct compress_state {
    struct worker *worker;
    struct compress_stream *streams;
    unsigned n_streams;
    struct encoder *idle[CODINGS][IDLE_MAX];
    unsigned n_idle[CODINGS];
    size_t spent;   /* bytes, in this turn */
    bool any_waits; /* backends, for the next turn */
    ev_timer flush;
    char out[OUT_SIZE];
    char whole[WHOLE_MAX];
};

/* ---- what is compressed ---- */

static bool compress_says_no_transform(const struct h1_head *head)
{
    for (uint32_t i = head->first[H1_CACHE_CONTROL] ? head->first[H1_CACHE_CONTROL] - 1u
                                                    : head->n_fields;
         i < head->n_fields; i++) {
        struct str rest = head->field[i].value, element;
        while (head->field[i].id == H1_CACHE_CONTROL && field_list_next(&rest, &element))
            if (field_is(element, "no-transform"))
                return true;
    }
    return false;
}

enum coding compress_choose(const struct request *r)
{
    const struct config_route *route = r->route;
    const struct h1_head *head = r->head;
    char joined[ACCEPT_MAX];
    if (!route || !route->n_compress || !head->first[H1_ACCEPT_ENCODING] || head->first[H1_RANGE] ||
        compress_says_no_transform(head))
        return CODING_IDENTITY;
    const size_t n = h1_join(head, H1_ACCEPT_ENCODING, joined, sizeof joined);
    return n ? coding_choose((struct str){joined, n}, route->compress, route->n_compress)
             : CODING_IDENTITY;
}

static bool compress_is_worth_it(const struct fetch *ex, const struct h1_head *head)
{
    const struct h1_field *type = h1_only(head, H1_CONTENT_TYPE);
    const bool length_known =
        head->framing == H1_LENGTH || (ex->req.is_head && head->first[H1_CONTENT_LENGTH]);
    if (head->status < 200 || head->status == 204 || head->status == 205 || head->status == 206 ||
        head->status == 304 || head->first[H1_CONTENT_ENCODING] || head->first[H1_CONTENT_RANGE])
        return false;
    return type && coding_type_is_compressible(type->value) && !content_is_vouched_for(head) &&
           !compress_says_no_transform(head) &&
           (!length_known || (head->length && head->length >= ex->req.route->compress_min));
}

/* ---- encoders ---- */

static void on_flush(EV_P_ ev_timer *watcher, int events);

static struct compress_state *compress_of(struct worker *w)
{
    if (!w->fetches->compress && (w->fetches->compress = calloc(1, sizeof *w->fetches->compress))) {
        w->fetches->compress->worker = w;
        ev_timer_init(&w->fetches->compress->flush, on_flush, 0., COMPRESS_FLUSH_MS / 1000.);
        w->fetches->compress->flush.data = w->fetches->compress;
    }
    return w->fetches->compress;
}

static struct encoder *compress_take_encoder(struct compress_state *s, enum coding coding)
{
    if (s->n_idle[coding])
        return s->idle[coding][--s->n_idle[coding]];
    return encoder_new(coding, ENCODER_STREAM, ENCODER_UNKNOWN);
}

static void compress_give_encoder(struct compress_state *s, enum coding coding, struct encoder *e)
{
    if (s->n_idle[coding] < IDLE_MAX && encoder_reset(e))
        s->idle[coding][s->n_idle[coding]++] = e;
    else
        encoder_free(e);
}

static void compress_leave(struct fetch *ex)
{
    struct compress_state *s = ex->worker->fetches->compress;
    struct compress_stream *c = ex->compress;
    if (!c)
        return;
    if (c->next)
        c->next->prev = c->prev;
    *(c->prev ? &c->prev->next : &s->streams) = c->next;
    s->n_streams--;
    compress_give_encoder(s, c->coding, c->encoder);
    free(c);
    ex->compress = NULL;
    ex->let_go = NULL;
}

static bool compress_open(struct fetch *ex, enum coding coding)
{
    struct compress_state *s = compress_of(ex->worker);
    if (!s || s->n_streams >= COMPRESS_STREAMS)
        return false;
    struct compress_stream *c = calloc(1, sizeof *c);
    struct encoder *encoder = c ? compress_take_encoder(s, coding) : NULL;
    if (!encoder) {
        free(c);
        return false;
    }
    *c = (struct compress_stream){
        .ex = ex, .encoder = encoder, .coding = (uint8_t)coding, .next = s->streams};
    if (c->next)
        c->next->prev = c;
    s->streams = c;
    s->n_streams++;
    ex->compress = c;
    ex->let_go = compress_leave;
    return true;
}

/* ---- an answer ---- */

/* A body that ends with the connection is not compressed on the way into the store. */
static bool compress_fits_client(const struct fetch *ex)
{
    return !ex->req.http10 || !ex->req.client->keep_alive;
}

void compress_begin(struct fetch *ex, const struct h1_head *head, uint16_t status)
{
    struct worker *w = ex->worker;
    const enum coding coding = (enum coding)ex->req.coding;
    const bool body = !ex->req.is_head && status != 304;
    ex->compressible = request_may_compress(&ex->req) && compress_is_worth_it(ex, head);
    ex->coding = CODING_IDENTITY;
    if (!ex->req.client || !ex->compressible || coding == CODING_IDENTITY ||
        !compress_fits_client(ex))
        return;
    if (body && !compress_open(ex, coding)) {
        stats_add(w->stats, STATS_COMPRESS_REFUSED, 1);
        return;
    }
    ex->coding = (uint8_t)coding;
    stats_add(w->stats, STATS_COMPRESS_RESPONSES, body);
}

/* To the client: the head, if that is still to go, what has come out of the encoder, and the end.
 */
static void compress_put(struct fetch *ex, char *bytes, size_t len, bool last)
{
    struct iovec iov[8];
    unsigned n = 0;
    char line[18];
    const bool chunked = ex->client_body == BODY_CHUNKED;
    if (ex->head_unsent)
        iov[n++] = (struct iovec){ex->worker->texts->scratch, ex->head_unsent};
    ex->head_unsent = 0;
    ex->body_sent += len;
    route_stats_bytes(ex->worker, ex->req.route, len);
    if (len && chunked)
        iov[n++] = (struct iovec){line, h1_chunk_head(line, len)};
    if (len)
        iov[n++] = (struct iovec){bytes, len};
    if (len && chunked)
        iov[n++] = (struct iovec){(void *)"\r\n", 2};
    if (last && chunked)
        n += h1_last_chunk(iov + n, ex->up->body.kept, ex->up->body.kept_len);
    if (n)
        client_send(ex->req.client, iov, n); /* NOLINT(clang-analyzer-core.StackAddressEscape) */
}

/* For want of memory: the answer is visibly cut. */
static void compress_fail(struct fetch *ex)
{
    struct client *c = fetch_let_go(ex);
    c->note.cut = "polder";
    client_break(c);
}

/* False: that was the end of it. */
static bool compress_run(struct fetch *ex, enum encoder_op op, const char *bytes, size_t len)
{
    struct compress_state *s = ex->worker->fetches->compress;
    struct encoder_io io = {.in = bytes, .in_len = len, .out = s->out, .out_size = OUT_SIZE};
    int rc;
    do {
        rc = encoder_run(ex->compress->encoder, op, &io);
        const bool last = op == ENCODER_END && rc == 0;
        if (io.out_len || last)
            compress_put(ex, s->out, io.out_len, last);
    } while (rc > 0);
    if (rc < 0)
        compress_fail(ex);
    return rc == 0;
}

static void compress_hold_back(struct compress_state *s, struct compress_stream *c)
{
    if (!c->unflushed)
        c->since_ms = s->worker->mono_ms;
    c->unflushed = true;
    if (!ev_is_active(&s->flush))
        ev_timer_again(s->worker->loop, &s->flush);
}

void compress_send(struct fetch *ex, const struct iovec *iov, unsigned n, bool end)
{
    struct compress_state *s = ex->worker->fetches->compress;
    for (unsigned i = 0; i < n; i++) {
        if (!compress_run(ex, ENCODER_MORE, iov[i].iov_base, iov[i].iov_len))
            return;
        s->spent += iov[i].iov_len;
    }
    if (end) {
        if (compress_run(ex, ENCODER_END, NULL, 0))
            compress_leave(ex);
        return;
    }
    if (ex->head_unsent)
        compress_put(ex, NULL, 0, false);
    if (n)
        compress_hold_back(s, ex->compress);
}

size_t compress_whole(struct worker *w, enum coding coding, const char *bytes, size_t len,
                      const char **out)
{
    struct compress_state *s = len && len <= WHOLE_MAX ? compress_of(w) : NULL;
    struct encoder *e =
        s && s->spent + len <= COMPRESS_TURN ? compress_take_encoder(s, coding) : NULL;
    if (!e)
        return 0;
    struct encoder_io io = {
        .in = bytes, .in_len = len, .out = s->whole, .out_size = len - len / 10};
    const int rc = encoder_run(e, ENCODER_END, &io);
    s->spent += len;
    compress_give_encoder(s, coding, e);
    *out = s->whole;
    return rc == 0 ? io.out_len : 0;
}

bool compress_is_due_later(const struct fetch *ex)
{
    struct compress_state *s = ex->worker->fetches->compress;
    if (!ex->compress || s->spent < COMPRESS_TURN)
        return false;
    ex->compress->waits = s->any_waits = true;
    return true;
}

/* ---- turns ---- */

void compress_turn(struct worker *w)
{
    struct compress_state *s = w->fetches->compress;
    if (!s)
        return;
    s->spent = 0;
    if (!s->any_waits)
        return;
    s->any_waits = false;
    for (struct compress_stream *c = s->streams, *next; c; c = next) {
        next = c->next;
        if (c->waits && c->ex->req.client->out.len <= WORKER_HIGH)
            upstream_resume(c->ex->up); /* else when its client takes more */
        c->waits = false;
    }
}

/* What has come and nothing after it for a while is shown: a stream is not held back. */
static void on_flush(EV_P_ ev_timer *watcher, int events)
{
    struct compress_state *s = watcher->data;
    const uint64_t now_ms = s->worker->mono_ms;
    bool any = false;
    (void)events;
    for (struct compress_stream *c = s->streams, *next; c; c = next) {
        next = c->next;
        if (c->unflushed && now_ms >= c->since_ms + COMPRESS_FLUSH_MS) {
            c->unflushed = false;
            compress_run(c->ex, ENCODER_FLUSH, NULL, 0);
        } else {
            any = any || c->unflushed;
        }
    }
    if (!any)
        ev_timer_stop(EV_A_ watcher);
}

void compress_close(struct worker *w)
{
    struct compress_state *s = w->fetches->compress;
    if (!s)
        return;
    ev_timer_stop(w->loop, &s->flush);
    for (unsigned coding = 0; coding < CODINGS; coding++)
        while (s->n_idle[coding])
            encoder_free(s->idle[coding][--s->n_idle[coding]]);
    free(s);
    w->fetches->compress = NULL;
}
