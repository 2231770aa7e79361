/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * exempt: who is not limited, as a list that can change while Polder runs: networks, and values of
 * the limit's key. Bounded and without pointers, so that it can stand in shared memory. What the
 * file says may be longer and is a part of struct config_limit.
 *
 * A list is zeroed at first, and compares with memcmp(). Whoever reads one that another process
 * writes takes a copy first (runtime_exempt_read()).
 */
#ifndef POLDER_EXEMPT_H
#define POLDER_EXEMPT_H
#include "polder/clientip.h"

#define EXEMPT_NETS_MAX   32
#define EXEMPT_TEXT_BYTES 1024 /* all values, with a byte more for each */

struct exempt {
    uint32_t n_nets;
    uint32_t text_len;
    struct clientip_net net[EXEMPT_NETS_MAX];
    char text[EXEMPT_TEXT_BYTES]; /* values, each followed by NUL */
};

/* Whether an item that is no network was meant as one: it is made of the characters of an address,
 * and has a '/', or nothing but digits and at least two dots. The one place that knows; the
 * configuration parser asks too. */
bool exempt_is_meant_as_network(const char *item);
/* 0, or with *why = what would be right: -EINVAL, -ENOSPC. */
int exempt_add(struct exempt *list, const char *item, const char **why);
/* Items with ',' between them; "" is an empty list. Spaces around an item do not count; after '\'
 * any character is itself. As exempt_add(), with the item that is wrong in wrong[size]. */
int exempt_parse(struct exempt *list, const char *text, char *wrong, size_t size, const char **why);
/* who: the bytes that the limit counts by. */
bool exempt_has(const struct exempt *list, const struct clientip *ip, const void *who, size_t len);
/* The first value (after NULL) or the next one; NULL behind the last. */
const char *exempt_next(const struct exempt *list, const char *value);
#endif
