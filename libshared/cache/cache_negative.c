/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_negative: what ends a stored answer that says that something is not there.
 *
 * Such an answer has no tags by which it could be invalidated, and what it denies is mostly made by
 * a request to another URL: POST /things makes /things/7, PUT /things/7 makes /things. So each
 * successful unsafe request leaves a mark for its own path and all below it, and one for the
 * collection above it, and a negative answer is over when such a mark is younger than its
 * fetch_seq. The marks are words of the page of invalidations, under a text that no URL can have; a
 * collision of slots only ends more.
 */
#include "polder/cache.h"
#include <string.h>

#define MARK_BELOW '\1' /* behind a path: it and all below it; no URL has such a byte */
#define MARK_ALONE '\2' /* it alone */
#define TEXT_MAX   4096 /* longer paths are not looked up */
#define DEPTH_MAX  64   /* nor deeper ones */

/* "host/a/b" of "host/a/b/?query" */
static size_t path_len(const char *url, size_t len)
{
    const char *query = memchr(url, '?', len);
    size_t n = query ? (size_t)(query - url) : len;
    while (n && url[n - 1] == '/')
        n--;
    return n;
}

/* Behind the last segment but one; 0: it has none. */
static size_t parent_len(const char *url, size_t len)
{
    const char *slash = len ? memrchr(url, '/', len) : NULL;
    return slash ? path_len(url, (size_t)(slash - url)) : 0;
}

static size_t text_of(const char *url, size_t len, char mark, char text[TEXT_MAX])
{
    if (len >= TEXT_MAX)
        return 0;
    memcpy(text, url, len);
    text[len] = mark;
    return len + 1;
}

static unsigned mark(struct inval_page *page, const char *url, size_t len, char which)
{
    char text[TEXT_MAX];
    const size_t n = text_of(url, len, which, text);
    if (n) /* longer: no answer below it is ever taken for good */
        inval_mark_url(page, text, n, false);
    return n != 0;
}

unsigned cache_negative_mark(struct inval_page *page, const char *url, size_t len)
{
    const size_t own = path_len(url, len), parent = parent_len(url, own);
    if (!memchr(url, '/', own)) /* not the whole site, with every form sent to its first page */
        return mark(page, url, own, MARK_ALONE);
    return mark(page, url, own, MARK_BELOW) + (parent ? mark(page, url, parent, MARK_ALONE) : 0);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t marked(const struct inval_page *page, const char *url, size_t len, char which)
{
    char text[TEXT_MAX];
    const size_t n = text_of(url, len, which, text);
    return n ? inval_url_marked(page, inval_url_slot(page, text, n)) : UINT64_MAX;
}

uint64_t cache_negative_ended(const struct inval_page *page, const char *url, size_t len)
{
    const size_t own = path_len(url, len);
    uint64_t latest = marked(page, url, own, MARK_ALONE);
    unsigned depth = 0;
    for (size_t n = own; n; n = parent_len(url, n)) {
        if (++depth > DEPTH_MAX)
            return UINT64_MAX;
        latest = later(latest, marked(page, url, n, MARK_BELOW));
    }
    return latest;
}

unsigned cache_record_causes(const struct inval_page *page, const struct cache_record *record,
                             struct inval_cause out[INVAL_CAUSES_MAX])
{
    const char *url = (const char *)(record + 1);
    unsigned n = inval_explain(page, record->fetch_seq, record->url_slot, record->tag_slot,
                               record->n_tags, url, record->url_len, out);
    const uint64_t ended =
        cache_is_negative(record) ? cache_negative_ended(page, url, record->url_len) : 0;
    if (ended <= record->fetch_seq)
        return n;
    n -= n == INVAL_CAUSES_MAX;
    memmove(out + 1, out, n * sizeof *out); /* a hard one, and those come first */
    out[0] = (struct inval_cause){
        .by = INVAL_BY_CHANGE, .seq = ended, .when_s = inval_when_s(page, ended)};
    return n + 1;
}
