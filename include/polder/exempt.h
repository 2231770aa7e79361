/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * exempt: the clients that a limit exempts, as a list that can change while Polder runs: networks,
 * and values of the limit's key. Bounded and without pointers, so it can lie in shared memory. The
 * file's list may be longer and is part of struct config_limit.
 *
 * A list is zeroed at first, and compares with memcmp(). A reader of one that another process
 * writes copies it first (runtime_exempt_read()).
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

/* Was an item that does not parse as a network meant as one? True if it consists of the characters
 * of an address and has a '/', or of digits and at least two dots. Shared with the configuration
 * parser. */
bool exempt_is_meant_as_network(const char *item);
/* 0, -EINVAL or -ENOSPC; on error *why says what is expected. */
int exempt_add(struct exempt *list, const char *item, const char **why);
/* Items separated by ','; "" is an empty list. Spaces around an item are ignored; '\' escapes any
 * character. Errors as for exempt_add(), with the offending item in wrong[size]. */
int exempt_parse(struct exempt *list, const char *text, char *wrong, size_t size, const char **why);
/* who: the key's bytes, as limitkey.h makes them. */
bool exempt_has(const struct exempt *list, const struct clientip *ip, const void *who, size_t len);
/* The first value (after NULL) or the next one; NULL behind the last. */
const char *exempt_next(const struct exempt *list, const char *value);
#endif
