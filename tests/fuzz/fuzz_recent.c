/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as target and key: what is shown is printable, bounded, and has no value of a query. */
#include "polder/recent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_text(const char *out, size_t size)
{
    check(memchr(out, 0, size));
    for (; *out; out++)
        check(*out >= ' ' && *out < 0x7f);
}

/* Behind each '=' of the query stands "*", or the end of what had room. */
static void check_masked(const char *out)
{
    for (const char *at = strchr(out, '?'); at && (at = strchr(at, '=')); at++)
        check(at[1] == '*' || at[1] == 0 || !strncmp(at + 1, "...", 3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char out[160], key[16];
    const struct str text = {(const char *)data, len};
    for (size_t size = 1; size <= sizeof out; size += 53) {
        recent_mask_target(out, size, text);
        check_text(out, size);
    }
    recent_mask_target(out, sizeof out, text);
    if (!memchr(data, 0, len) && !memchr(data, '\x7f', len))
        check(strlen(out) < sizeof out);
    const uint8_t *query = memchr(data, '?', len);
    bool plain = query != NULL;
    for (const uint8_t *at = data; plain && at < query; at++)
        plain = *at >= ' ' && *at < 0x7f;
    if (plain)
        check_masked(out);
    recent_mask_key(key, sizeof key, text, len);
    check_text(key, sizeof key);
    return 0;
}
