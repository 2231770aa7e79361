/* SPDX-License-Identifier: BSD-2-Clause */
/* text: see text.h. */
#include "daemons/control/ops/text.h"
#include "polder/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_FIRST 16384

static bool text_grow(struct text *t)
{
    const size_t size = t->size ? t->size * 2 : SIZE_FIRST;
    char *at = realloc(t->at, size);
    if (!at)
        return false;
    t->at = at;
    t->size = size;
    return true;
}

void text_put(struct text *t, const char *format, ...)
{
    va_list ap;
    while (!t->failed) {
        if (t->size) {
            va_start(ap, format);
            const int n = vsnprintf(t->at + t->len, t->size - t->len, format, ap);
            va_end(ap);
            if (n >= 0 && (size_t)n < t->size - t->len) {
                t->len += (size_t)n;
                return;
            }
        }
        t->failed = !text_grow(t);
    }
}

void text_put_bytes(struct text *t, const char *bytes, size_t len)
{
    while (!t->failed && t->size - t->len <= len)
        t->failed = !text_grow(t);
    if (t->failed)
        return;
    memcpy(t->at + t->len, bytes, len);
    t->len += len;
    t->at[t->len] = 0;
}

static size_t plain_length(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && (unsigned char)text[n] >= ' ' && (unsigned char)text[n] < 0x7f &&
           text[n] != '"' && text[n] != '\\')
        n++;
    return n;
}

void text_put_json(struct text *t, const char *string)
{
    for (size_t len = strlen(string); len;) {
        const size_t plain = plain_length(string, len);
        text_put_bytes(t, string, plain);
        string += plain;
        len -= plain;
        if (!len)
            return;
        const unsigned char c = (unsigned char)*string;
        const size_t good = utf8_length(string, len), used = good ? good : 1;
        if (c == '"' || c == '\\')
            text_put(t, "\\%c", c);
        else if (c < ' ')
            text_put(t, "\\u%04x", c);
        else if (good)
            text_put_bytes(t, string, good);
        else
            text_put(t, "\\ufffd");
        string += used;
        len -= used;
    }
}

void text_free(struct text *t)
{
    free(t->at);
    *t = (struct text){0};
}
