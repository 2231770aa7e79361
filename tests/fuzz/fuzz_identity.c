/* SPDX-License-Identifier: BSD-2-Clause */
/* A Cookie field of any bytes: its parts are all of it, in order, and one that is ignored has
 * nothing in it that any backend could take for another cookie. */
#include "polder/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const usual[] = {"_ga*", "_gid", "a"};
    static const struct config config;
    const struct config_cache cache = {.ignore_cookies = usual, .n_ignore_cookies = 3};
    struct str rest = {(const char *)data, size};
    struct identity_cookie c;
    const char *at = rest.at;
    while (identity_cookie_next(&rest, &c)) {
        must(c.part.len && c.part.at >= at && c.part.at + c.part.len <= (const char *)data + size);
        must(!memchr(c.part.at, ';', c.part.len));
        for (; at < c.part.at; at++) /* nothing is passed over but what separates */
            must(*at == ';' || *at == ' ' || *at == '\t');
        at = c.part.at + c.part.len;
        must(!c.name.len || (c.name.at == c.part.at && c.name.len < c.part.len));
        must(!c.readable || c.name.len);
        if (!identity_ignores_cookie(&config, &cache, &c))
            continue;
        must(c.readable && (c.name.at[0] == '_' || c.name.at[0] == 'a'));
        for (size_t i = 0; i < c.part.len; i++)
            must(c.part.at[i] > ' ' && c.part.at[i] <= '~' && !strchr("\",\\;", c.part.at[i]));
    }
    for (; at < (const char *)data + size; at++)
        must(*at == ';' || *at == ' ' || *at == '\t');
    identity_names_header(&config, &cache, (struct str){(const char *)data, size});
    return 0;
}
