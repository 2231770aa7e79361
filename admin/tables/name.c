/* SPDX-License-Identifier: BSD-2-Clause */
/* name: keys as headings, and text in columns. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "window_ms" is shown as "window", "maxConnections" as "max connections"; an address as it is. */
void table_name(const char *key, char *out)
{
    static const char *const units[] = {"_ms", "_seconds"};
    size_t len = strlen(key), n = 0;
    if (strchr(key, ':')) {
        snprintf(out, TABLE_NAME, "%s", key);
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (table_ends(key, units[i]))
            len -= strlen(units[i]);
    for (size_t i = 0; i < len && n + 2 < TABLE_NAME; i++) {
        const bool starts =
            isupper((unsigned char)key[i]) && i && islower((unsigned char)key[i - 1]);
        if (starts)
            out[n++] = ' ';
        out[n++] = key[i] == '_' || key[i] == '.' ? ' '
                   : starts                       ? (char)tolower((unsigned char)key[i])
                                                  : key[i];
    }
    out[n] = 0;
}

void table_heading(const char *key, char *out)
{
    table_name(key, out);
    for (char *c = out; *c; c++)
        *c = (char)toupper((unsigned char)*c);
}

bool table_key(const msgpack_object_kv *kv, char *out)
{
    return rpc_in_object_text(&kv->key, out, 64) >= 0;
}

/* Characters, not bytes. */
int table_width(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void table_pad(FILE *to, const char *text, int width, bool right, bool last)
{
    const int fill = width - table_width(text);
    if (right)
        fprintf(to, "%*s%s", fill > 0 ? fill : 0, "", text);
    else
        fprintf(to, "%s%*s", text, last || fill < 0 ? 0 : fill, "");
    fputs(last ? "\n" : "  ", to);
}
