/* SPDX-License-Identifier: BSD-2-Clause */
/* tags: takes the values of fields apart that name tags. */
#include "polder/tags.h"

#include <string.h>

void tags_each(struct str value, const char *separators, void (*each)(void *arg, struct str tag),
               void *arg)
{
    if (!separators) {
        field_sf_strings(value, each, arg);
        return;
    }
    const char *at = value.at, *end = at + value.len;
    while (at < end) {
        const char *start = at;
        while (at < end && !strchr(separators, *at))
            at++;
        each(arg, (struct str){start, (size_t)(at - start)});
        at++;
    }
}
