/* SPDX-License-Identifier: BSD-2-Clause */
/* tags: takes the values of fields apart that name tags. */
#include "polder/tags.h"
#include "polder/head_lines.h"

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

void tags_each_of_line(struct str line, void (*each)(void *arg, struct str tag), void *arg)
{
    static const struct {
        const char *name, *separators;
    } fields[] = {
#define FIELD(id, name, separators) {name, separators},
#include "libshared/tables/tag_fields.def"
#undef FIELD
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct str value;
        if (field_is(head_line_name(line, &value), fields[i].name) && value.at)
            tags_each(value, fields[i].separators, each, arg);
    }
}
