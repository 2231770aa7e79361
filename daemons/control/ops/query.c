/* SPDX-License-Identifier: BSD-2-Clause */
/* query: see query.h. */
#include "daemons/control/ops/query.h"

#include <errno.h>
#include <string.h>

/* Up to the mark, which is passed over, or all. */
static struct str cut(struct str *rest, char mark)
{
    const char *end = rest->len ? memchr(rest->at, mark, rest->len) : NULL;
    const struct str part = {rest->at, end ? (size_t)(end - rest->at) : rest->len};
    const size_t used = part.len + (end != NULL);
    rest->at = rest->len ? rest->at + used : rest->at;
    rest->len -= used;
    return part;
}

bool query_next(struct str *rest, struct str *name, struct str *value)
{
    while (rest->len) {
        struct str pair = cut(rest, '&');
        if (!pair.len)
            continue;
        *name = cut(&pair, '=');
        *value = pair;
        return true;
    }
    return false;
}

bool query_element(struct str *list, struct str *element)
{
    if (!list->at)
        return false;
    const bool last = !list->len || !memchr(list->at, ',', list->len);
    *element = cut(list, ',');
    if (last)
        list->at = NULL;
    return true;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte at i, which moves on; -1: a malformed escape. */
static int byte_at(struct str text, size_t *i)
{
    const char c = text.at[(*i)++];
    if (c != '%')
        return c == '+' ? ' ' : (unsigned char)c;
    const int high = text.len - *i >= 2 ? digit_of(text.at[*i]) : -1,
              low = high >= 0 ? digit_of(text.at[*i + 1]) : -1;
    *i += 2;
    return low < 0 ? -1 : high * 16 + low;
}

int query_decode(struct str text, char *out, size_t size)
{
    size_t n = 0;
    if (!size)
        return -ENOBUFS;
    for (size_t i = 0; i < text.len;) {
        const int c = byte_at(text, &i);
        if (c < ' ' || c == 0x7f)
            return -EINVAL;
        if (n + 1 >= size)
            return -ENOBUFS;
        out[n++] = (char)c;
    }
    out[n] = 0;
    return (int)n;
}
