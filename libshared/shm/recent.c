/* SPDX-License-Identifier: BSD-2-Clause */
/* recent: see recent.h. */
#include "polder/recent.h"
#include "polder/shm.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define BODY_MAX         512
#define QUERY_PARAMETERS 16

/* Both start with the number. */
_Static_assert(offsetof(struct recent_request, number) == 0, "recent_read()");
_Static_assert(offsetof(struct recent_event, number) == 0, "recent_read()");

struct place {
    _Atomic uint64_t filled; /* number + 1, stored last; 0: never, or being filled */
    _Atomic uint64_t check;  /* of the body and its number */
    char body[BODY_MAX];
};
_Static_assert(sizeof(struct recent_request) <= BODY_MAX, "room");
_Static_assert(sizeof(struct recent_event) <= BODY_MAX, "room");

struct recent_page {
    struct {
        _Atomic uint64_t watched_until_ms; /* mono; readers store, workers load; relaxed */
        _Alignas(64) _Atomic uint64_t requests, events; /* numbers given so far */
    };
    _Alignas(64) struct place request[RECENT_REQUESTS];
    struct place event[RECENT_EVENTS];
};

size_t recent_page_size(void)
{
    return sizeof(struct recent_page);
}

void recent_watch(struct recent_page *page, uint64_t now_ms)
{
    atomic_store_explicit(&page->watched_until_ms, now_ms + RECENT_WATCHED_MS,
                          memory_order_relaxed);
}

/* ---- rings ---- */

static uint64_t check_of(const void *body, size_t len, uint64_t number)
{
    return XXH3_64bits_withSeed(body, len, number);
}

static void ring_put(struct place *ring, size_t places, _Atomic uint64_t *given, const void *body,
                     size_t len)
{
    const uint64_t number = atomic_fetch_add_explicit(given, 1, memory_order_relaxed);
    struct place *p = &ring[number % places];
    char copy[BODY_MAX];
    memcpy(copy, body, len);
    memcpy(copy, &number, sizeof number);
    atomic_store_explicit(&p->filled, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy(p->body, copy, len);
    atomic_store_explicit(&p->check, check_of(copy, len, number), memory_order_relaxed);
    atomic_store_explicit(&p->filled, number + 1, memory_order_release);
}

static bool place_read(const struct place *p, uint64_t number, void *out, size_t len)
{
    if (atomic_load_explicit(&p->filled, memory_order_acquire) != number + 1)
        return false;
    const uint64_t check = atomic_load_explicit(&p->check, memory_order_relaxed);
    memcpy(out, p->body, len);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&p->filled, memory_order_relaxed) == number + 1 &&
           check_of(out, len, number) == check;
}

static size_t ring_read(const struct place *ring, size_t places, const _Atomic uint64_t *given,
                        uint64_t *from, void *out, size_t len, size_t max, uint64_t *lost)
{
    const uint64_t next = atomic_load_explicit(given, memory_order_acquire);
    const uint64_t oldest = next > places ? next - places : 0;
    size_t n = 0;
    uint64_t skipped = 0;
    if (*from > next)
        *from = oldest;
    if (*from < oldest) {
        skipped = oldest - *from;
        *from = oldest;
    }
    for (; *from < next && n < max; ++*from) {
        if (place_read(&ring[*from % places], *from, (char *)out + n * len, len))
            n++;
        else
            skipped++;
    }
    if (lost)
        *lost = skipped;
    return n;
}

void recent_put_request(struct recent_page *page, const struct recent_request *request)
{
    ring_put(page->request, RECENT_REQUESTS, &page->requests, request, sizeof *request);
}

void recent_put_event(struct recent_page *page, const struct recent_event *event)
{
    if (page)
        ring_put(page->event, RECENT_EVENTS, &page->events, event, sizeof *event);
}

uint64_t recent_requests_next(const struct recent_page *page)
{
    return atomic_load_explicit(&page->requests, memory_order_acquire);
}

uint64_t recent_events_next(const struct recent_page *page)
{
    return atomic_load_explicit(&page->events, memory_order_acquire);
}

size_t recent_read_requests(const struct recent_page *page, uint64_t *from,
                            struct recent_request *out, size_t max, uint64_t *lost)
{
    return ring_read(page->request, RECENT_REQUESTS, &page->requests, from, out, sizeof *out, max,
                     lost);
}

size_t recent_read_events(const struct recent_page *page, uint64_t *from, struct recent_event *out,
                          size_t max, uint64_t *lost)
{
    return ring_read(page->event, RECENT_EVENTS, &page->events, from, out, sizeof *out, max, lost);
}

/* ---- what may be shown ---- */

struct writer {
    char *at, *end; /* of what may be written, without the NUL */
    bool cut;
};

static void put_byte(struct writer *o, char c)
{
    if (o->at == o->end)
        o->cut = true;
    else
        *o->at++ = c >= ' ' && c < 0x7f ? c : '?';
}

static struct writer writer_on(char *out, size_t size)
{
    return (struct writer){out, out + size - 1, false};
}

static void put_text(struct writer *o, const char *text)
{
    while (*text)
        put_byte(o, *text++);
}

/* start: of all that was written */
static void writer_end(struct writer *o, char *start)
{
    if (o->cut && o->end - start >= 3)
        memcpy(o->end - 3, "...", 3);
    *o->at = 0;
}

void recent_text(char *out, size_t size, struct str text)
{
    struct writer o = writer_on(out, size);
    for (size_t i = 0; i < text.len && !o.cut; i++)
        put_byte(&o, text.at[i]);
    writer_end(&o, out);
}

/* "a=*&b=*"; a parameter without '=' has no name that could be told from a value. */
static void put_query(struct writer *o, const char *at, const char *end)
{
    for (unsigned n = 0; at < end && n < QUERY_PARAMETERS; n++) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        stop = stop ? stop : end;
        const char *value = memchr(at, '=', (size_t)(stop - at));
        if (n)
            put_byte(o, '&');
        while (value && at <= value)
            put_byte(o, *at++);
        put_byte(o, '*');
        at = stop < end ? stop + 1 : end;
    }
    if (at < end)
        put_text(o, "...");
}

/* ";v=*" of a path's parameters: ";jsessionid=..." says as much as a query does. */
static const char *put_parameter(struct writer *o, const char *at, const char *end)
{
    const char *value = NULL, *stop = at + 1;
    for (; stop < end && *stop != ';' && *stop != '/'; stop++)
        if (*stop == '=' && !value)
            value = stop;
    put_byte(o, *at++);
    while (value && at <= value)
        put_byte(o, *at++);
    if (at < stop || value)
        put_byte(o, '*');
    return stop;
}

/* A '?' that somebody has encoded was meant to begin a query. */
static bool is_encoded_mark(const char *at, const char *end)
{
    return end - at >= 3 && at[0] == '%' && at[1] == '3' && (at[2] | 0x20) == 'f';
}

static void put_path(struct writer *o, const char *at, const char *end)
{
    while (at < end && !o->cut) {
        if (is_encoded_mark(at, end)) {
            put_text(o, "%3F");
            put_query(o, at + 3, end);
            return;
        }
        if (*at == ';')
            at = put_parameter(o, at, end);
        else
            put_byte(o, *at++);
    }
}

/* Of "http://user:password@host/" what stands before the '@' is not shown; what follows. */
static const char *put_user(struct writer *o, const char *at, const char *end)
{
    if (at == end || *at == '/')
        return at;
    const char *scheme = memmem(at, (size_t)(end - at), "://", 3);
    const char *host = scheme ? scheme + 3 : at;
    const char *slash = memchr(host, '/', (size_t)(end - host));
    const char *user = memrchr(host, '@', (size_t)((slash ? slash : end) - host));
    if (!user)
        return at;
    while (at < host)
        put_byte(o, *at++);
    put_byte(o, '*');
    return user;
}

void recent_mask_target(char *out, size_t size, struct str target)
{
    struct writer o = writer_on(out, size);
    const char *end = target.at + target.len;
    const char *query = target.len ? memchr(target.at, '?', target.len) : NULL;
    const char *path_end = query ? query : end;
    put_path(&o, put_user(&o, target.at, path_end), path_end);
    if (query) {
        put_byte(&o, '?');
        put_query(&o, query + 1, end);
    }
    writer_end(&o, out);
}

void recent_mask_key(char *out, size_t size, struct str key, uint64_t hash)
{
    char start[5];
    key.len = key.len / 2 < 4 ? key.len / 2 : 4;
    recent_text(start, sizeof start, key);
    snprintf(out, size, "%s~%08x", start, (unsigned)(uint32_t)(hash ^ hash >> 32));
}
