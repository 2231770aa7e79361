/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard_scope: which parts of a route are quarantined; see leak_guard.h.
 *
 * A place is taken by the process that sets its since_ms, and is in force when its len is set,
 * which is the last step; the bit in the gate follows. A process that dies in between has closed
 * nothing, and the next finding closes it; guard_scopes_mend() frees the place. A release takes the
 * steps in reverse.
 */
#include "polder/inval.h"
#include "polder/leak_guard.h"

#include <stdio.h>
#include <string.h>

#define URLS_A_DIRECTORY    3 /* findings below one directory until it is closed */
#define DIRECTORIES_A_ROUTE 3 /* of these until the route is */

/* ---- what covers a URL ---- */

bool guard_scope_is_prefix(const struct guard_scope *s)
{
    return atomic_load(&s->len) < atomic_load(&s->url_len);
}

static bool covers(const struct guard_scope *s, const char *url, size_t len)
{
    const size_t n = atomic_load_explicit(&s->len, memory_order_acquire);
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
    if (!n || n > len || n > sizeof s->url || memcmp(s->url, url, n) != 0)
        return false;
    return n == len || url[n] == '?' || guard_scope_is_prefix(s);
}

struct guard_scope *guard_scope_of(struct guard_route *g, const char *url, size_t len)
{
    if (guard_is_closed(g))
        return &g->scope[0];
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++)
        if (covers(&g->scope[i], url, len))
            return &g->scope[i];
    return NULL;
}

bool guard_scope_holds(const struct guard_route *g, const struct guard_scope *s)
{
    return s == &g->scope[0] ? guard_is_closed(g) : atomic_load(&s->len) != 0;
}

struct guard_scope *guard_scope_at(struct guard_route *g, uint32_t n)
{
    for (uint32_t i = 0; i <= GUARD_SCOPES; i++)
        if (guard_scope_holds(g, &g->scope[i]) && n-- == 0)
            return &g->scope[i];
    return NULL;
}

/* ---- closing ---- */

static void put_text(char *to, size_t size, _Atomic uint32_t *len, const char *from, size_t n)
{
    n = n < size ? n : size;
    memcpy(to, from, n); /* NOLINT(clang-analyzer-core.NonNullParamChecker) */
    atomic_store_explicit(len, (uint32_t)n, memory_order_release);
}

static void free_scope(struct guard_scope *s)
{
    atomic_store(&s->len, 0); /* first: it is not in force any more */
    atomic_store(&s->names_len, 0);
    atomic_store(&s->url_len, 0);
    atomic_store(&s->notified, 0);
    atomic_store(&s->calm, 0);
    atomic_store(&s->differs, 0);
    atomic_store(&s->tried_ms, 0);
    atomic_store(&s->since_ms, 0); /* last: now another process may write the texts */
}

struct guard_scope *guard_close_route(struct guard_route *g, const char *url, size_t len,
                                      uint64_t real_ms)
{
    struct guard_scope *s = &g->scope[0];
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&s->since_ms, &none, real_ms))
        put_text(s->url, sizeof s->url, &s->url_len, url, len);
    atomic_store(&g->gate, GUARD_CLOSED);
    return s;
}

/* Of "host/a/b" or "host/a/" the part up to the '/' before the last name, within `max`. */
static size_t directory_of(const char *url, size_t len, size_t max)
{
    size_t n = len ? len - 1 : 0;
    n = n < max ? n : max;
    while (n && url[n - 1] != '/')
        n--;
    return n;
}

static uint32_t urls_below(const struct guard_route *g, const char *url, size_t len)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++) {
        const struct guard_scope *s = &g->scope[i];
        const size_t n = atomic_load(&s->len);
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        found += n > len && n <= sizeof s->url && !memcmp(s->url, url, len) &&
                 !guard_scope_is_prefix(s) && directory_of(s->url, n, n) == len;
    }
    return found;
}

static uint32_t directories(const struct guard_route *g)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++)
        found += atomic_load(&g->scope[i].len) && guard_scope_is_prefix(&g->scope[i]);
    return found;
}

/* What a directory covers needs no place of its own. */
static void free_covered(struct guard_route *g, const struct guard_scope *by)
{
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++) {
        struct guard_scope *s = &g->scope[i];
        const size_t n = atomic_load(&s->len);
        if (s != by && n && n <= sizeof s->url && covers(by, s->url, n))
            free_scope(s);
    }
}

static struct guard_scope *take_place(struct guard_route *g, uint64_t real_ms)
{
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++) {
        uint64_t none = 0;
        if (atomic_compare_exchange_strong(&g->scope[i].since_ms, &none, real_ms))
            return &g->scope[i];
    }
    return NULL;
}

/* Bytes of the URL that are to be closed; 0: the route. */
static size_t extent(const struct guard_route *g, const char *url, size_t len)
{
    const size_t directory = directory_of(url, len, GUARD_URL - 1);
    if (len <= GUARD_URL && (!directory || urls_below(g, url, directory) < URLS_A_DIRECTORY - 1))
        return len;
    return directories(g) < DIRECTORIES_A_ROUTE - 1 ? directory : 0;
}

struct guard_scope *guard_close(struct guard_route *g, const char *url, size_t len,
                                uint64_t real_ms)
{
    struct guard_scope *s = guard_scope_of(g, url, len);
    if (!s) {
        const size_t n = extent(g, url, len);
        s = n ? take_place(g, real_ms) : NULL;
        if (!s)
            return guard_close_route(g, url, len, real_ms);
        put_text(s->url, sizeof s->url, &s->url_len, url, len);
        atomic_store(&s->len, (uint32_t)n);
    }
    atomic_fetch_or(&g->gate, GUARD_NARROW); /* all bits are set in GUARD_CLOSED */
    if (s != &g->scope[0] && guard_scope_is_prefix(s))
        free_covered(g, s);
    return s;
}

/* ---- releasing ---- */

static bool any_part(const struct guard_route *g)
{
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++)
        if (atomic_load(&g->scope[i].len))
            return true;
    return false;
}

/* A number that all that is stored, or was asked for before, is below. */
static uint64_t number_now(const struct guard_route *g, struct inval_page *inval)
{
    char tag[48];
    const int n = snprintf(tag, sizeof tag, "\x1fguard %llu", (unsigned long long)g->id);
    return inval_mark_tag(inval, tag, (size_t)n, false);
}

static void change_gate(struct guard_route *g, uint64_t min, bool narrow)
{
    uint64_t was = atomic_load(&g->gate), gate;
    do {
        if (was == GUARD_CLOSED)
            return;
        gate = was & ~GUARD_NARROW;
        gate = (gate < min ? min : gate) | (narrow ? GUARD_NARROW : 0);
    } while (!atomic_compare_exchange_weak(&g->gate, &was, gate));
}

static void release_part(struct guard_route *g, struct guard_scope *s, struct inval_page *inval)
{
    if (atomic_load(&s->notified) < GUARD_NOTIFIED_STORE) /* its copies are there yet */
        change_gate(g, number_now(g, inval), true);
    free_scope(s);
    if (!any_part(g))
        change_gate(g, 0, false);
    if (any_part(g)) /* since that was looked at */
        atomic_fetch_or(&g->gate, GUARD_NARROW);
}

void guard_route_begin_again(struct guard_route *g)
{
    atomic_store(&g->due_ms, 0);
    atomic_store(&g->same, 0);
    atomic_store(&g->differs, 0);
    atomic_store(&g->unstable, 0);
    atomic_store(&g->failed, 0);
    atomic_store(&g->calm, 0);
    atomic_store(&g->checked_ms, 0);
}

void guard_release(struct guard_route *g, struct guard_scope *s, struct inval_page *inval)
{
    if (s != &g->scope[0]) {
        release_part(g, s, inval);
        return;
    }
    for (uint32_t i = 1; i <= GUARD_SCOPES; i++)
        free_scope(&g->scope[i]);
    guard_route_begin_again(g);
    atomic_store(&g->gate, number_now(g, inval));
    free_scope(s);
}

bool guard_scopes_mend(struct guard_route *g)
{
    for (uint32_t i = 0; i <= GUARD_SCOPES; i++) {
        struct guard_scope *s = &g->scope[i];
        if (!guard_scope_holds(g, s))
            free_scope(s);
        atomic_store(&s->notified, 0); /* said again after each start */
    }
    return any_part(g);
}

/* ---- what is known of it ---- */

void guard_scope_settle(struct guard_scope *s, enum guard_verdict verdict, uint64_t real_ms)
{
    atomic_store(&s->tried_ms, real_ms);
    if (verdict == GUARD_SAME)
        atomic_fetch_add(&s->calm, 1);
    else if (verdict == GUARD_DIFFERS)
        atomic_store(&s->calm, 0), atomic_fetch_add(&s->differs, 1);
}

void guard_scope_name(struct guard_route *g, struct guard_scope *s, const char *names, size_t len)
{
    if (guard_scope_holds(g, s)) /* not released meanwhile */
        put_text(s->names, sizeof s->names, &s->names_len, names, len);
}

static void get_text(const char *from, size_t size, uint32_t n, char *out)
{
    const size_t take = n < size ? n : size;
    memcpy(out, from, take);
    out[take] = 0;
    for (char *at = out; *at; at++) /* the page is a file, and these go into header lines */
        if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
            *at = '?';
}

void guard_scope_names(const struct guard_scope *s, char out[GUARD_NAMES + 1])
{
    get_text(s->names, sizeof s->names, atomic_load_explicit(&s->names_len, memory_order_acquire),
             out);
}

void guard_scope_url(const struct guard_scope *s, char out[GUARD_URL + 1])
{
    get_text(s->url, sizeof s->url, atomic_load_explicit(&s->url_len, memory_order_acquire), out);
}

void guard_scope_covers(const struct guard_scope *s, char out[GUARD_URL + 2])
{
    get_text(s->url, sizeof s->url, atomic_load_explicit(&s->len, memory_order_acquire), out);
    if (*out && guard_scope_is_prefix(s))
        strcat(out, "*");
}
