/* SPDX-License-Identifier: BSD-2-Clause */
/* url: see url.h. */
#include "polder/url.h"
#include "polder/config.h"
#include "polder/route.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define SORT_MAX 64

static size_t put_host(struct str host, char *out)
{
    size_t n = host.len;
    if (n > 3 && !memcmp(host.at + n - 3, ":80", 3))
        n -= 3;
    else if (n > 1 && host.at[n - 1] == ':') /* RFC 3986 6.2.3 */
        n--;
    for (size_t i = 0; i < n; i++) {
        const char c = host.at[i];
        out[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return n;
}

static bool is_listed(const char *const *list, uint32_t n_list, const char *name, size_t len)
{
    for (uint32_t i = 0; i < n_list; i++) {
        const char *pattern = list[i];
        const size_t n = strlen(pattern);
        if (n && pattern[n - 1] == '*' ? len >= n - 1 && !memcmp(name, pattern, n - 1)
                                       : len == n && !memcmp(name, pattern, n))
            return true;
    }
    return false;
}

static size_t name_len(struct str parameter)
{
    const char *equals = memchr(parameter.at, '=', parameter.len);
    return equals ? (size_t)(equals - parameter.at) : parameter.len;
}

static bool matters(const struct config_cache *cache, struct str parameter)
{
    const size_t n = name_len(parameter);
    /* some backends begin another parameter at ';': what they would see there counts */
    if (memchr(parameter.at, ';', parameter.len))
        return true;
    return !is_listed(cache->ignore_query, cache->n_ignore_query, parameter.at, n) &&
           (!cache->n_only_query ||
            is_listed(cache->only_query, cache->n_only_query, parameter.at, n));
}

/* By name; equal names keep their order, which may mean something. */
static void sort_parameters(struct str *p, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const struct str one = p[i];
        const size_t len = name_len(one);
        size_t at = i;
        while (at) {
            const size_t other = name_len(p[at - 1]), min = len < other ? len : other;
            const int order = memcmp(p[at - 1].at, one.at, min);
            if (order < 0 || (order == 0 && other <= len))
                break;
            p[at] = p[at - 1];
            at--;
        }
        p[at] = one;
    }
}

/* The query's parameters that matter, '?' before them if there are any. out has room. A query with
 * more than SORT_MAX keeps its order. */
static size_t put_query(const struct config_cache *cache, struct str query, char *out)
{
    struct str kept[SORT_MAX];
    size_t n = 0, many = 0;
    const char *at = query.at, *end = at ? at + query.len : at;
    if (!cache->n_ignore_query && !cache->n_only_query && !cache->sort_query) {
        if (!query.len)
            return 0;
        out[0] = '?';
        memcpy(out + 1, query.at, query.len);
        return query.len + 1;
    }
    while (at && at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        if (!stop)
            stop = end;
        const struct str parameter = {at, (size_t)(stop - at)};
        if (matters(cache, parameter)) {
            if (many < SORT_MAX)
                kept[many] = parameter;
            many++;
            out[n] = n ? '&' : '?';
            memcpy(out + n + 1, at, parameter.len);
            n += parameter.len + 1;
        }
        at = stop + 1;
    }
    if (!cache->sort_query || many < 2 || many > SORT_MAX)
        return n;
    sort_parameters(kept, many);
    n = 0;
    for (size_t i = 0; i < many; i++) {
        out[n] = n ? '&' : '?';
        memcpy(out + n + 1, kept[i].at, kept[i].len);
        n += kept[i].len + 1;
    }
    return n;
}

int url_normalise(const struct config *config, struct str host, struct str path, struct str query,
                  char *out, size_t size, const struct config_route **route)
{
    *route = NULL;
    if (host.len + query.len + 2 > size)
        return -ENOBUFS;
    size_t n = put_host(host, out);
    const int path_len = route_path_normal(path.at, path.len, out + n, size - n);
    if (path_len < 0)
        return path_len;
    *route = route_find(config, out + n, (size_t)path_len);
    if (route_is_ambiguous(config, out + n, (size_t)path_len, *route))
        return -EINVAL;
    n += (size_t)path_len;
    if (n + query.len + 1 > size)
        return -ENOBUFS;
    const struct config_cache *cache = *route && (*route)->cache ? (*route)->cache : &config->cache;
    return (int)(n + put_query(cache, query, out + n));
}

int url_normalise_text(const struct config *config, const char *text, size_t len, char *out,
                       size_t size, const struct config_route **route)
{
    if (len > 7 && !strncasecmp(text, "http://", 7)) {
        text += 7;
        len -= 7;
    } else if (len > 8 && !strncasecmp(text, "https://", 8)) {
        text += 8;
        len -= 8;
    }
    const char *fragment = memchr(text, '#', len);
    if (fragment)
        len = (size_t)(fragment - text);
    const char *slash = memchr(text, '/', len);
    if (!slash || slash == text)
        return -EINVAL;
    if (slash[-1] == ':' && slash + 1 < text + len && slash[1] == '/')
        return -EINVAL; /* "ftp://": nothing of ours */
    const char *mark = memchr(slash, '?', (size_t)(text + len - slash));
    const char *end = text + len;
    const struct str host = {text, (size_t)(slash - text)};
    const struct str path = {slash, (size_t)((mark ? mark : end) - slash)};
    const struct str query = {mark ? mark + 1 : NULL, mark ? (size_t)(end - mark) - 1 : 0};
    return url_normalise(config, host, path, query, out, size, route);
}
