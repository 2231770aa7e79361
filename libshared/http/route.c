/* SPDX-License-Identifier: BSD-2-Clause */
/* route: see route.h. */
#include "polder/route.h"
#include "polder/config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Longer paths do not reach us (414); patterns are shorter than a configuration. */
#define PATH_SIZE 8192

/* ---- spelling ---- */

static int hex_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "%XX" encodes; -1: no escape. */
static int escape_of(const char *at, size_t room)
{
    const int high = room > 2 ? hex_of(at[1]) : -1, low = high >= 0 ? hex_of(at[2]) : -1;
    return low < 0 ? -1 : high << 4 | low;
}

static bool is_unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static int decode_unreserved(const char *path, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (path[i] != '%') {
            out[n++] = path[i];
            continue;
        }
        const int c = escape_of(path + i, len - i);
        if (c <= 0)
            return -EINVAL;
        if (is_unreserved(c)) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = "0123456789ABCDEF"[c >> 4];
            out[n++] = "0123456789ABCDEF"[c & 15];
        }
        i += 2;
    }
    return (int)n;
}

/* RFC 3986 section 5.2.4, in place; the path starts with '/'. */
static size_t remove_dot_segments(char *path, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        const char *slash = memchr(path + i + 1, '/', len - i - 1);
        const size_t end = slash ? (size_t)(slash - path) : len, seg = end - i;
        if ((seg == 2 && path[i + 1] == '.') ||
            (seg == 3 && path[i + 1] == '.' && path[i + 2] == '.')) {
            if (seg == 3)
                while (n && path[--n] != '/')
                    ;
            if (end == len)
                path[n++] = '/';
        } else {
            memmove(path + n, path + i, seg);
            n += seg;
        }
        i = end;
    }
    return n;
}

int route_path_normal(const char *path, size_t len, char *out, size_t size)
{
    if (len > size || len > INT_MAX)
        return -ENOBUFS;
    if (memchr(path, 0, len))
        return -EINVAL;
    if (!memchr(path, '%', len)) {
        memcpy(out, path, len);
        if (!memmem(path, len, "/.", 2))
            return (int)len;
    } else {
        const int n = decode_unreserved(path, len, out);
        if (n < 0)
            return n;
        len = (size_t)n;
    }
    if (len == 0 || out[0] != '/')
        return (int)len; /* "*": nothing to spell */
    return (int)remove_dot_segments(out, len);
}

/* ---- comparing ---- */

/* A path without escapes and double slashes is compared as it stands. */
static bool is_plain(const char *path, size_t len)
{
    char last = 0;
    for (size_t i = 0; i < len; last = path[i++])
        if (path[i] == '%' || (path[i] == '/' && last == '/'))
            return false;
    return true;
}

/* As route.h says that paths are compared. slash: what an escaped slash becomes; 0, which no path
 * holds, keeps it apart from the others. out: len bytes; the path may lie in it. */
static size_t comparable(const char *path, size_t len, char slash, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const int c = path[i] == '%' ? escape_of(path + i, len - i) : -1;
        const char byte = c < 0 ? path[i] : c == '/' ? slash : (char)c;
        i += c < 0 ? 0 : 2;
        if (byte != '/' || n == 0 || out[n - 1] != '/')
            out[n++] = byte;
    }
    return n && out[0] == '/' ? remove_dot_segments(out, n) : n;
}

/* ---- the tree ---- */

struct node {
    const char *text; /* the bytes between the parent and this node */
    uint32_t len, n_children;
    const struct config_route *exact, *prefix; /* route with a pattern that ends here, or NULL */
    const char *first;                         /* [n_children]: their first bytes */
    const struct node *children;
};

struct route_index {
    struct node root;
};

static inline const struct node *child_of(const struct node *node, char first)
{
    const char *at = node->first;
    for (uint32_t i = 0; i < node->n_children; i++)
        if (at[i] == first)
            return &node->children[i];
    return NULL;
}

/* Shared parts are short: a call of memcmp() would cost more than the comparison. */
static inline bool begins_with(const char *path, size_t len, const char *text, size_t text_len)
{
    if (text_len > len)
        return false;
    for (size_t i = 0; i < text_len; i++)
        if (path[i] != text[i])
            return false;
    return true;
}

static const struct config_route *look_up(const struct node *node, const char *path, size_t len)
{
    const struct config_route *best = NULL;
    while (node && begins_with(path, len, node->text, node->len)) {
        path += node->len;
        len -= node->len;
        best = node->prefix ? node->prefix : best;
        if (len == 0)
            return node->exact ? node->exact : best;
        node = child_of(node, *path);
    }
    return best;
}

const struct config_route *route_find(const struct config *config, const char *path, size_t len)
{
    char space[PATH_SIZE];
    if (!is_plain(path, len)) {
        if (len > sizeof space)
            return NULL;
        len = comparable(path, len, '/', space);
        path = space;
    }
    return look_up(&config->route_index->root, path, len);
}

static bool has_escaped_slash(const char *path, size_t len)
{
    for (const char *at = path; (at = memmem(at, len - (size_t)(at - path), "%2", 2)); at += 2)
        if ((size_t)(path + len - at) > 2 && (at[2] | 0x20) == 'f')
            return true;
    return false;
}

bool route_is_ambiguous(const struct config *config, const char *path, size_t len,
                        const struct config_route *found)
{
    char space[PATH_SIZE];
    if (!has_escaped_slash(path, len) || len > sizeof space)
        return false;
    return look_up(&config->route_index->root, space, comparable(path, len, 0, space)) != found;
}

const struct config_route *route_find_as_sent(const struct config *config, const char *path,
                                              size_t len)
{
    return look_up(&config->route_index->root, path, len);
}

/* ---- building it ---- */

struct pattern {
    const char *text;
    size_t len;
    const struct config_route *route;
};

static int by_text(const void *a, const void *b)
{
    const struct pattern *x = a, *y = b;
    const int order = memcmp(x->text, y->text, x->len < y->len ? x->len : y->len);
    if (order || x->len != y->len)
        return order ? order : x->len < y->len ? -1 : 1;
    return x->route->exact != y->route->exact ? x->route->exact - y->route->exact
                                              : x->route->line - y->route->line;
}

static size_t shared_length(const struct pattern *a, const struct pattern *b)
{
    size_t n = 0;
    while (n < a->len && n < b->len && a->text[n] == b->text[n])
        n++;
    return n;
}

static bool grow(struct config_arena *arena, struct node *node, const struct pattern *at,
                 const struct pattern *end, size_t depth);

/* What is left of the patterns behind a node, a child for each first byte. */
static bool grow_children(struct config_arena *arena, struct node *node, const struct pattern *at,
                          const struct pattern *end, size_t depth)
{
    for (const struct pattern *p = at; p < end; p++)
        node->n_children += p == at || p->text[depth] != p[-1].text[depth];
    char *first = config_arena_alloc(arena, node->n_children + 1);
    struct node *child = config_arena_alloc(arena, (node->n_children + 1) * sizeof *child);
    if (!first || !child)
        return false;
    node->first = first;
    node->children = child;
    while (at < end) {
        const struct pattern *next = at;
        while (next < end && next->text[depth] == at->text[depth])
            next++;
        *first++ = at->text[depth];
        if (!grow(arena, child++, at, next, depth))
            return false;
        at = next;
    }
    return true;
}

/* The node of patterns that share their first depth bytes; sorted, so the first and the last share
 * least. */
static bool grow(struct config_arena *arena, struct node *node, const struct pattern *at,
                 const struct pattern *end, size_t depth)
{
    if (at == end)
        return true;
    const size_t shared = shared_length(at, end - 1);
    node->text = at->text + depth;
    node->len = (uint32_t)(shared - depth);
    for (; at < end && at->len == shared; at++)
        *(at->route->exact ? &node->exact : &node->prefix) = at->route;
    return grow_children(arena, node, at, end, shared);
}

const struct route_index *route_index_build(struct config_arena *arena, const struct config *config,
                                            const struct config_route *twins[2])
{
    const uint32_t n = config->n_routes;
    struct route_index *index = config_arena_alloc(arena, sizeof *index);
    struct pattern *patterns = calloc(n + 1, sizeof *patterns);
    bool grown = index && patterns;
    twins[0] = twins[1] = NULL;
    for (uint32_t i = 0; grown && i < n; i++) {
        const struct config_route *r = &config->routes[i];
        char *text = config_arena_alloc(arena, r->prefix_len + 1);
        if (text)
            patterns[i] =
                (struct pattern){text, comparable(r->prefix, r->prefix_len, '/', text), r};
        grown = text;
    }
    if (grown) {
        qsort(patterns, n, sizeof *patterns, by_text);
        for (uint32_t i = 1; i < n && !twins[0]; i++)
            if (patterns[i].len == patterns[i - 1].len &&
                patterns[i].route->exact == patterns[i - 1].route->exact &&
                !memcmp(patterns[i].text, patterns[i - 1].text, patterns[i].len)) {
                twins[0] = patterns[i - 1].route;
                twins[1] = patterns[i].route;
            }
        grown = grow(arena, &index->root, patterns, patterns + n, 0);
    }
    free(patterns);
    return grown ? index : NULL;
}
