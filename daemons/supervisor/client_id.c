/* SPDX-License-Identifier: BSD-2-Clause */
/* client_id: the last segment of a URL's path as a name; see supervisor.h. */
#include "daemons/supervisor/supervisor.h"

#include <stdlib.h>
#include <string.h>

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Into out, which has room for len. An escape of a NUL, or none, stays as it is. */
static size_t decode(const char *in, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const int high = in[i] == '%' && i + 2 < len ? hex(in[i + 1]) : -1,
                  low = high >= 0 ? hex(in[i + 2]) : -1;
        if (low >= 0 && high + low > 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = in[i];
        }
    }
    return n;
}

/* Where a character ends, at most at `max`. */
static size_t cut_at(const char *text, size_t max)
{
    while (max && ((unsigned char)text[max] & 0xc0) == 0x80)
        max--;
    return max;
}

char *client_id_make(const char *segment, size_t len)
{
    static const char dots[] = "\xe2\x80\xa6"; /* … */
    char *id = len ? malloc(len + sizeof dots) : NULL;
    if (!id)
        return NULL;
    size_t n = decode(segment, len, id);
    if (memchr(id, 0, n) || !frames_utf8_valid((const uint8_t *)id, n)) {
        memcpy(id, segment, len); /* as it was sent, in ASCII */
        n = len;
    }
    if (memchr(id, 0, n) || !frames_utf8_valid((const uint8_t *)id, n)) {
        free(id);
        return NULL;
    }
    if (n > CLIENT_ID_MAX) {
        n = cut_at(id, CLIENT_ID_MAX - (sizeof dots - 1));
        memcpy(id + n, dots, sizeof dots - 1);
        n += sizeof dots - 1;
    }
    id[n] = '\0';
    char *small = realloc(id, n + 1); /* it stays as long as the connection */
    return small ? small : id;
}
