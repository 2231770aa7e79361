/* SPDX-License-Identifier: BSD-2-Clause */
/* head_lines: see head_lines.h. */
#include "polder/head_lines.h"

#include <strings.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct str trimmed(struct str s)
{
    while (s.len && is_blank(s.at[s.len - 1]))
        s.len--;
    while (s.len && is_blank(*s.at))
        s = (struct str){s.at + 1, s.len - 1};
    return s;
}

struct str head_line_name(struct str line, struct str *value)
{
    const char *colon = memchr(line.at, ':', line.len);
    const size_t len = colon ? (size_t)(colon - line.at) : line.len;
    *value = (struct str){NULL, 0};
    if (!colon)
        return trimmed(line);
    *value = trimmed((struct str){colon + 1, line.len - len - 1});
    return (struct str){line.at, len};
}

bool head_lines_find(struct str lines, struct str name, struct str *value)
{
    struct str line, found;
    while (head_line_next(&lines, &line)) {
        if (line.len < name.len || strncasecmp(line.at, name.at, name.len) ||
            head_line_name(line, &found).len != name.len)
            continue;
        if (value)
            *value = found;
        return true;
    }
    return false;
}
