/* SPDX-License-Identifier: BSD-2-Clause */
/* exempt: see exempt.h. */
#include "polder/exempt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool exempt_is_meant_as_network(const char *item)
{
    const size_t len = strlen(item);
    const char *dot = strchr(item, '.');
    if (strchr(item, '/'))
        return strspn(item, "0123456789abcdefABCDEF.:/") == len;
    return strspn(item, "0123456789.") == len && dot && strchr(dot + 1, '.');
}

int exempt_add(struct exempt *list, const char *item, const char **why)
{
    struct clientip_net net;
    const size_t size = strlen(item) + 1;
    if (clientip_net_parse(item, &net) == 0) {
        *why = "at most 32 networks";
        if (list->n_nets == EXEMPT_NETS_MAX)
            return -ENOSPC;
        list->net[list->n_nets++] = net;
        return 0;
    }
    *why = "a network such as \"10.0.0.0/8\"";
    if (exempt_is_meant_as_network(item))
        return -EINVAL;
    *why = "a network or a value of the key, not an empty item";
    if (size == 1)
        return -EINVAL;
    *why = "at most 1023 bytes of values";
    if (size > sizeof list->text - list->text_len)
        return -ENOSPC;
    memcpy(list->text + list->text_len, item, size);
    list->text_len += (uint32_t)size;
    return 0;
}

/* The next item, without '\' and spaces around it; what is longer than the room is cut. Where it
 * ends in text: at ',' or NUL. */
static const char *read_item(const char *text, char *item, size_t size)
{
    size_t n = 0, keep = 0; /* keep: up to the last byte that is no space around it */
    while (*text == ' ')
        text++;
    for (; *text && *text != ','; text++) {
        const bool literal = *text == '\\' && text[1];
        text += literal;
        if (n + 1 < size)
            item[n++] = *text;
        if (literal || *text != ' ')
            keep = n;
    }
    item[keep] = 0;
    return text;
}

int exempt_parse(struct exempt *list, const char *text, char *wrong, size_t size, const char **why)
{
    char item[EXEMPT_TEXT_BYTES + 1]; /* one that is cut does not fit either */
    memset(list, 0, sizeof *list);
    if (!*text)
        return 0;
    for (;; text++) {
        text = read_item(text, item, sizeof item);
        const int code = exempt_add(list, item, why);
        if (code) {
            snprintf(wrong, size, "%s", item);
            return code;
        }
        if (!*text)
            return 0;
    }
}

const char *exempt_next(const struct exempt *list, const char *value)
{
    const char *next = value ? value + strlen(value) + 1 : list->text;
    return next < list->text + list->text_len ? next : NULL;
}

bool exempt_has(const struct exempt *list, const struct clientip *ip, const void *who, size_t len)
{
    if (list->n_nets && clientip_in(ip, list->net, list->n_nets))
        return true;
    for (const char *v = NULL; (v = exempt_next(list, v));)
        if (strlen(v) == len && !memcmp(v, who, len))
            return true;
    return false;
}
