/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * list: contents of the store, for control: cache.list, cache.show and cache.why on
 * runtime_dir/keeper.sock.
 *
 * A query becomes a job that walks along `url`, a slice of a millisecond per round, each with a
 * read transaction of its own; only its caller waits for it. The answer of cache.list ends at the
 * limit, when it grows too long for a message, or after a second, with a cursor to continue from.
 */
#include "daemons/keeper/inspect/inspect.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/url.h"
#include "polder/access_bits.h"
#include "polder/cache_status.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_NS      KEEPER_SLICE_NS
#define LOOK_MS       1000 /* then a list ends, with a cursor; control waits for two seconds */
#define JOBS_MAX      16
#define LIMIT_DEFAULT 100
#define LIMIT_MAX     1000
#define ANSWER_MAX    (600u << 10) /* bytes; well below RPC_MESSAGE_MAX */
#define CURSOR_TEXT   (2 * STORE_URL_KEY + 1)

struct inspect {
    struct rpc_server *server;
    STAILQ_HEAD(, job) jobs;
    unsigned n_jobs;
};

/* ---- output of an object ---- */

static uint64_t seconds_left(uint64_t until_ms, uint64_t now_ms)
{
    return until_ms > now_ms ? (until_ms - now_ms) / 1000 : 0;
}

static enum inval_state check(const struct keeper *k, const struct cache_record *r)
{
    return cache_record_state(k->shared->inval, r, r->fetch_seq);
}

static const char *state_of(const struct keeper *k, const struct cache_record *r,
                            enum inval_state state)
{
    switch (state) {
    case INVAL_HARD:
        return "invalidated";
    case INVAL_SOFT:
        return "stale (invalidated softly)";
    case INVAL_VALID:
        break;
    }
    if (r->flags & CACHE_VARY_RECORD)
        return "vary record: names what selects a variant";
    if (r->fresh_until_ms > k->real_ms)
        return r->flags & CACHE_NO_CACHE ? "to be validated" : "fresh";
    return "stale";
}

static void put_common(const struct keeper *k, struct rpc_out *o, const struct cache_record *r)
{
    struct cache_view view;
    cache_view_of(r, &view);
    const uint64_t now_ms = k->real_ms;
    const enum inval_state state = check(k, r);
    rpc_out_strn(o, "url", view.url, r->url_len < QUERY_URL_SHOWN ? r->url_len : QUERY_URL_SHOWN);
    rpc_out_str(o, "state", state_of(k, r, state));
    rpc_out_u64(o, "status", r->status);
    rpc_out_u64(o, "bytes", r->body_len);
    rpc_out_u64(o, "age",
                r->age_s + (now_ms > r->received_ms ? (now_ms - r->received_ms) / 1000 : 0));
    rpc_out_f64(o, "ttl", (double)cache_status_ttl_s(r, state == INVAL_SOFT, now_ms));
    rpc_out_u64(o, "stale_while_revalidate", seconds_left(r->swr_until_ms, now_ms));
    rpc_out_u64(o, "stale_if_error", seconds_left(r->sie_until_ms, now_ms));
    const uint8_t uses = atomic_load_explicit(&k->shared->ref[r->slot], memory_order_relaxed);
    rpc_out_u64(o, "uses", access_bits_used(uses));
    rpc_out_u64(o, "reads", access_bits_reads(uses));
    rpc_out_u64(o, "tags", r->n_tags);
    rpc_out_strn(o, "variant", view.vary,
                 r->vary_len < QUERY_URL_SHOWN ? r->vary_len : QUERY_URL_SHOWN);
    rpc_out_u64(o, "obj_id", r->obj_id);
}

static void put_flags(struct rpc_out *o, uint32_t flags)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } names[] = {
        {CACHE_MUST_REVALIDATE, "must-revalidate"},
        {CACHE_NO_CACHE, "no-cache"},
        {CACHE_AUTH_OK, "authorization-allowed"},
        {CACHE_ETAG_OURS, "etag-made-here"},
        {CACHE_HAS_ETAG, "etag"},
        {CACHE_HAS_LAST_MODIFIED, "last-modified"},
        {CACHE_CHUNKED_BODY, "body-in-chunks"},
        {CACHE_FROM_POST, "from-post"},
        {CACHE_SOFTENED, "invalidated-softly"},
    };
    rpc_out_list(o, "flags");
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (flags & names[i].flag)
            rpc_out_str(o, NULL, names[i].name);
    rpc_out_end(o);
}

static void put_details(const struct keeper *k, struct rpc_out *o, const struct cache_record *r)
{
    struct cache_view view;
    cache_view_of(r, &view);
    rpc_out_u64(o, "received", r->received_ms / 1000);
    rpc_out_u64(o, "fresh_until", r->fresh_until_ms / 1000);
    rpc_out_u64(o, "last_modified", r->last_modified_ms / 1000);
    rpc_out_f64(o, "fetch_seconds", (double)r->fetch_ns / 1e9);
    rpc_out_u64(o, "stored_bytes", (uint64_t)k->store.items[r->slot].units * STORE_UNIT);
    rpc_out_u64(o, "kept_until", k->store.items[r->slot].expires_s);
    rpc_out_str(o, "queue",
                evict_is_settled(store_queues_of(&k->store, r->slot), r->slot) ? "main" : "small");
    rpc_out_u64(o, "birth", r->fetch_seq);
    rpc_out_strn(o, "head", view.head, r->head_len);
    put_flags(o, r->flags);
}

/* ---- jobs ---- */

static bool text_matches(const struct job *j, const char *url, size_t len)
{
    if (j->all_hosts) {
        const char *path = memchr(url, '/', len);
        if (!path)
            return false;
        len -= (size_t)(path - url);
        url = path;
    }
    if (len < j->len || (j->show && len != j->len))
        return false;
    return memcmp(url, j->text, j->len) == 0;
}

static void job_begin(const struct keeper *k, struct job *j)
{
    if (j->out)
        return;
    j->out = rpc_reply_result(j->reply);
    rpc_out_map(j->out, NULL);
    if (j->why)
        why_put_url(k, j);
    rpc_out_list(j->out, j->show ? "variants" : "objects");
}

static void job_found(struct keeper *k, struct job *j, struct MDB_txn *txn,
                      const struct cache_record *r)
{
    job_begin(k, j);
    struct rpc_out *o = j->out;
    rpc_out_map(o, NULL);
    put_common(k, o, r);
    if (j->show)
        put_details(k, o, r);
    if (j->why)
        why_put_variant(k, j, txn, r);
    if (r->flags & CACHE_VARY_RECORD)
        rpc_out_bool(o, "vary_record", true);
    rpc_out_end(o);
    j->found++;
}

/* The record of an entry; NULL where there is none any more. */
static const struct cache_record *entry_record(struct keeper *k, struct MDB_txn *txn,
                                               struct str key, struct str value)
{
    struct cache_key of;
    if (value.len != sizeof of)
        return NULL;
    memcpy(&of, value.at, sizeof of);
    const struct cache_record *r = store_find(&k->store, txn, &of, cache_record_sound);
    const uint8_t *id = (const uint8_t *)key.at + key.len - 8;
    return r && cache_id_of(id) == r->obj_id && store_slot_of(&k->store, r) != EVICT_NONE ? r
                                                                                          : NULL;
}

static bool entry_in_range(const struct job *j, struct str key)
{
    const size_t cut = j->len < STORE_URL_CUT ? j->len : STORE_URL_CUT;
    if (key.len <= 8 || key.len > STORE_URL_KEY)
        return false;
    return j->all_hosts || (key.len - 8 >= cut && memcmp(key.at, j->text, cut) == 0);
}

/* `why` tells of copies where it tells of what they are copies of. */
static bool is_wanted(const struct job *j, const struct cache_record *r)
{
    const uint32_t left_out = (j->show ? 0 : CACHE_VARY_RECORD) | (j->why ? CACHE_ENCODED : 0);
    return !(r->flags & left_out) && text_matches(j, (const char *)(r + 1), r->url_len);
}

/* What the key tells, which is the URL unless that was cut: most records need not be looked at. */
static bool key_may_match(const struct job *j, struct str key)
{
    const char *url = key.at;
    size_t len = key.len - 8;
    const bool whole = len < STORE_URL_CUT;
    if (whole)
        return text_matches(j, url, len);
    const char *path = j->all_hosts ? memchr(url, '/', len) : url;
    if (!path)
        return true;
    len -= (size_t)(path - url);
    return memcmp(path, j->text, len < j->len ? len : j->len) == 0;
}

static bool job_full(struct job *j)
{
    return j->found >= j->limit || (j->out && j->out->buffer.size > ANSWER_MAX);
}

/* 0: more to do, STORE_END: through, ENOBUFS: the answer is full, or what went wrong. */
static int job_walk(struct keeper *k, struct job *j, struct store_cursor *c, struct MDB_txn *txn)
{
    const uint64_t until_ns = clock_mono_ns() + SLICE_NS;
    struct str from = {(const char *)j->at, j->at_len};
    if (j->at_len == 0 && !j->all_hosts && j->len)
        from = (struct str){j->text, j->len < STORE_URL_CUT ? j->len : STORE_URL_CUT};
    int rc = store_cursor_seek(c, from);
    for (unsigned n = 1; rc == 0; n++, rc = store_cursor_next(c)) {
        if (!entry_in_range(j, c->key))
            return STORE_END;
        memcpy(j->at, c->key.at, c->key.len);
        j->at_len = (uint16_t)c->key.len;
        if (job_full(j))
            return ENOBUFS;
        if (n % 32 == 0 && clock_mono_ns() > until_ns)
            return 0;
        const struct cache_record *r =
            key_may_match(j, c->key) ? entry_record(k, txn, c->key, c->value) : NULL;
        if (r && is_wanted(j, r))
            job_found(k, j, txn, r);
    }
    return rc;
}

static int job_slice(struct keeper *k, struct job *j)
{
    struct MDB_txn *txn;
    struct store_cursor cursor;
    int rc = store_read_begin(&k->store, &txn);
    if (rc != 0)
        return rc;
    if ((rc = store_cursor_open(&k->store, txn, STORE_BY_URL, &cursor)) == 0) {
        rc = job_walk(k, j, &cursor, txn);
        store_cursor_close(&cursor);
    }
    store_read_end(txn);
    return rc;
}

static void cursor_put(struct rpc_out *o, const struct job *j)
{
    char text[CURSOR_TEXT];
    for (unsigned i = 0; i < j->at_len; i++)
        snprintf(text + (size_t)2 * i, 3, "%02x", j->at[i]);
    rpc_out_strn(o, "cursor", text, (size_t)2 * j->at_len);
}

static bool cursor_take(struct job *j, const char *text)
{
    const size_t n = strlen(text);
    if (n % 2 || n > 2 * STORE_URL_KEY || strspn(text, "0123456789abcdef") != n)
        return false;
    for (size_t i = 0; i < n; i += 2) {
        const char two[3] = {text[i], text[i + 1], 0};
        j->at[i / 2] = (uint8_t)strtoul(two, NULL, 16);
    }
    j->at_len = (uint16_t)(n / 2);
    return true;
}

static void job_answer(struct keeper *k, struct job *j, int rc)
{
    if (rc != STORE_END && rc != ENOBUFS && !j->out) {
        rpc_reply_error(j->reply, RPC_FAILED, "cannot read the store: %s", store_strerror(rc));
        return;
    }
    if (j->show && !j->why && j->found == 0) {
        rpc_reply_error(j->reply, RPC_NOT_FOUND, "%.*s is not stored", (int)j->len, j->text);
        return;
    }
    job_begin(k, j);
    struct rpc_out *o = j->out;
    rpc_out_end(o);
    if (rc == ENOBUFS)
        cursor_put(o, j);
    else
        rpc_out_nil(o, "cursor");
    rpc_out_u64(o, "total", store_items(&k->store));
    if (j->why)
        why_put_end(k, j);
    rpc_out_end(o);
    rpc_reply_send(j->reply);
}

struct slice_result inspect_slice(struct keeper *k)
{
    struct inspect *q = k->inspect;
    if (!q || STAILQ_EMPTY(&q->jobs))
        return SLICE_IDLE;
    struct job *j = STAILQ_FIRST(&q->jobs);
    STAILQ_REMOVE_HEAD(&q->jobs, entry);
    if (!k->store.env) {
        rpc_reply_error(j->reply, RPC_UNAVAILABLE, "the cache has no store at present");
    } else {
        int rc = job_slice(k, j);
        if (rc == 0 && !j->show && k->mono_ms >= j->until_ms)
            rc = ENOBUFS; /* time is over: the caller continues from the cursor */
        if (rc == 0) {    /* the others have their turn */
            STAILQ_INSERT_TAIL(&q->jobs, j, entry);
            return (struct slice_result){.more = true};
        }
        job_answer(k, j, rc);
    }
    q->n_jobs--;
    free(j);
    return (struct slice_result){.more = !STAILQ_EMPTY(&q->jobs)};
}

/* ---- questions ---- */

static struct job *job_new(struct keeper *k, const struct rpc_call *call, const char *text,
                           size_t len)
{
    struct inspect *q = k->inspect;
    struct job *j = q->n_jobs < JOBS_MAX ? calloc(1, sizeof *j + len + 1) : NULL;
    if (!j) {
        rpc_reply_error(call->reply, RPC_BUSY, "too many questions at once; try again");
        return NULL;
    }
    j->reply = call->reply;
    j->until_ms = k->mono_ms + LOOK_MS;
    j->limit = LIMIT_MAX;
    j->len = len;
    memcpy(j->text, text, len);
    j->all_hosts = len && text[0] == '/';
    return j;
}

static void job_start(struct keeper *k, struct job *j)
{
    STAILQ_INSERT_TAIL(&k->inspect->jobs, j, entry);
    k->inspect->n_jobs++;
}

static void ask_list(struct keeper *k, const struct rpc_call *call)
{
    char prefix[QUERY_URL_SHOWN], cursor[CURSOR_TEXT];
    uint64_t limit = LIMIT_DEFAULT;
    if (!rpc_call_check(call, RPC_METHOD_CACHE_LIST))
        return;
    int len = rpc_in_text(call->params, "prefix", prefix, sizeof prefix);
    if (len == -EINVAL) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "prefix: too long, or no text");
        return;
    }
    const int rc = rpc_in_u64(call->params, "limit", LIMIT_MAX, &limit);
    if ((rc < 0 && rc != -ENOENT) || limit == 0) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "limit is a whole number from 1 to %u",
                        LIMIT_MAX);
        return;
    }
    struct job *j = job_new(k, call, prefix, len > 0 ? (size_t)len : 0);
    if (!j)
        return;
    j->limit = (uint32_t)limit;
    len = rpc_in_text(call->params, "cursor", cursor, sizeof cursor);
    if (len == -EINVAL || (len > 0 && !cursor_take(j, cursor))) {
        free(j);
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "cursor: not one that cache list gave");
        return;
    }
    job_start(k, j);
}

static void ask_show(struct keeper *k, const struct rpc_call *call, enum rpc_method method)
{
    char *text = malloc(RPC_MESSAGE_MAX), *url = malloc(RPC_MESSAGE_MAX);
    if (!text || !url) {
        rpc_reply_error(call->reply, RPC_FAILED, "out of memory");
        goto out;
    }
    if (!rpc_call_check(call, method))
        goto out;
    int len = rpc_in_text(call->params, "url", text, RPC_MESSAGE_MAX);
    const char *wanted = text;
    if (len > 0 && text[0] != '/') {
        const struct config_route *route;
        len = url_normalise_text(k->shared->region[k->region]->config, text, (size_t)len, url,
                                 RPC_MESSAGE_MAX, &route);
        wanted = url;
    }
    if (len <= 0) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "url: http://host/path, host/path or /path");
        goto out;
    }
    struct job *j = job_new(k, call, wanted, (size_t)len);
    if (j) {
        j->show = true;
        j->why = method == RPC_METHOD_CACHE_WHY;
        if (j->why)
            why_route(k, j);
        if (j->why && !copies_ask(call, j))
            free(j);
        else
            job_start(k, j);
    }
out:
    free(text);
    free(url);
}

static void on_call(void *arg, const struct rpc_call *call)
{
    struct keeper *k = arg;
    const int method = rpc_method_find(call->method, call->method_len);
    if (method == RPC_METHOD_CACHE_LIST)
        ask_list(k, call);
    else if (method == RPC_METHOD_CACHE_SHOW || method == RPC_METHOD_CACHE_WHY)
        ask_show(k, call, (enum rpc_method)method);
    else
        rpc_reply_error(call->reply, RPC_NO_METHOD,
                        "the keeper knows cache.list, cache.show and cache.why");
}

int inspect_open(struct keeper *k)
{
    char path[PATH_MAX + 16];
    k->inspect = calloc(1, sizeof *k->inspect);
    if (!k->inspect)
        return -ENOMEM;
    STAILQ_INIT(&k->inspect->jobs);
    snprintf(path, sizeof path, "%s/keeper.sock", k->runtime_dir);
    const int rc = rpc_server_new(&k->inspect->server, k->loop, path, 0600, (gid_t)-1, on_call, k);
    if (rc == 0)
        return 0;
    free(k->inspect);
    k->inspect = NULL;
    return rc;
}

void inspect_close(struct keeper *k)
{
    struct inspect *q = k->inspect;
    if (!q)
        return;
    while (!STAILQ_EMPTY(&q->jobs)) {
        struct job *j = STAILQ_FIRST(&q->jobs);
        STAILQ_REMOVE_HEAD(&q->jobs, entry);
        rpc_reply_error(j->reply, RPC_UNAVAILABLE, "the keeper is stopping");
        free(j);
    }
    rpc_server_free(q->server);
    free(q);
    k->inspect = NULL;
}
