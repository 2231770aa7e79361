/* SPDX-License-Identifier: BSD-2-Clause */
/* forwarded: see forwarded.h. */
#include "polder/forwarded.h"

#include <string.h>
#include <strings.h>

bool forwarded_is_closed(struct str list)
{
    bool quoted = false;
    for (size_t i = 0; i < list.len; i++)
        quoted ^= list.at[i] == '"';
    return !quoted;
}

/* Takes what stands before the mark, and the mark with it. */
static bool take_until(struct str *rest, char mark, struct str *out)
{
    size_t n = 0;
    if (!rest->len)
        return false;
    for (bool quoted = false; n < rest->len && (quoted || rest->at[n] != mark); n++)
        quoted ^= rest->at[n] == '"';
    *out = field_trim((struct str){rest->at, n});
    n += n < rest->len;
    rest->at += n;
    rest->len -= n;
    return true;
}

bool forwarded_next(struct str *list, struct str *member)
{
    return take_until(list, ',', member);
}

bool forwarded_last(struct str *list, struct str *member)
{
    size_t from = list->len;
    if (!list->len)
        return false;
    for (bool quoted = false; from && (quoted || list->at[from - 1] != ','); from--)
        quoted ^= list->at[from - 1] == '"';
    *member = field_trim((struct str){list->at + from, list->len - from});
    list->len = from ? from - 1 : 0;
    return true;
}

bool forwarded_pair_next(struct str *member, struct str *pair)
{
    return take_until(member, ';', pair);
}

bool forwarded_value(struct str member, const char *name, struct str *value)
{
    const size_t len = strlen(name);
    struct str pair;
    while (forwarded_pair_next(&member, &pair)) {
        if (pair.len <= len || strncasecmp(pair.at, name, len))
            continue;
        *value = (struct str){pair.at + len, pair.len - len};
        if (value->len >= 2 && *value->at == '"' && value->at[value->len - 1] == '"')
            *value = (struct str){value->at + 1, value->len - 2};
        return true;
    }
    return false;
}
