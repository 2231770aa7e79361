/* SPDX-License-Identifier: BSD-2-Clause */
/* prefer: see prefer.h. */
#include "daemons/worker/request/prefer.h"
#include "polder/field.h"

#include <string.h>

#define WAIT_MAX_S 86400
#define PREFER_MAX 1024

/* The value of a preference "wait"; 0 where it is no number. */
static uint32_t wait_value(struct str t)
{
    uint32_t n = 0;
    if (t.len > 2 && t.at[0] == '"' && t.at[t.len - 1] == '"')
        t = (struct str){t.at + 1, t.len - 2};
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return 0;
        n = n * 10 + (uint32_t)(t.at[i] - '0');
        if (n > WAIT_MAX_S)
            n = WAIT_MAX_S;
    }
    return n;
}

uint32_t prefer_wait_s(const struct h1_head *head)
{
    char text[PREFER_MAX];
    const size_t n = h1_join(head, H1_PREFER, text, sizeof text);
    struct str rest = {text, n}, element;
    while (n && field_list_next(&rest, &element)) {
        const char *semicolon = memchr(element.at, ';', element.len);
        if (semicolon)
            element.len = (size_t)(semicolon - element.at);
        const char *equals = memchr(element.at, '=', element.len);
        if (!equals)
            continue;
        const size_t at = (size_t)(equals - element.at);
        if (field_is(field_trim((struct str){element.at, at}), "wait")) /* the first one counts */
            return wait_value(field_trim((struct str){equals + 1, element.len - at - 1}));
    }
    return 0;
}
