/* SPDX-License-Identifier: BSD-2-Clause */
/* h1_write: messages written from what was understood, into a fixed buffer. */
#include "daemons/http/h1.h"
#include <string.h>

void h1_put_u64(struct h1_out *o, uint64_t n)
{
    char digits[20], *at = digits + sizeof digits;
    do
        *--at = (char)('0' + n % 10);
    while (n /= 10);
    h1_put(o, at, (size_t)(digits + sizeof digits - at));
}

void h1_put_field(struct h1_out *o, const char *name, struct str value)
{
    h1_puts(o, name);
    h1_put(o, ": ", 2);
    h1_put(o, value.at, value.len);
    h1_put(o, "\r\n", 2);
}

void h1_copy_field(struct h1_out *o, const struct h1_field *f)
{
    h1_put(o, f->name.at, f->name.len);
    h1_put(o, ": ", 2);
    h1_put(o, f->value.at, f->value.len);
    h1_put(o, "\r\n", 2);
}

void h1_put_status_line(struct h1_out *o, unsigned status, struct str reason)
{
    h1_put(o, "HTTP/1.1 ", 9);
    h1_put_u64(o, status);
    h1_put(o, " ", 1);
    if (reason.len)
        h1_put(o, reason.at, reason.len);
    else
        h1_puts(o, problem_reason(status));
    h1_put(o, "\r\n", 2);
}

size_t h1_chunk_head(char out[18], uint64_t len)
{
    char digits[16];
    size_t n = 0;
    do
        digits[n++] = "0123456789abcdef"[len & 15];
    while (len >>= 4);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}

unsigned h1_last_chunk(struct iovec iov[3], const char *trailer, size_t len)
{
    iov[0] = (struct iovec){(void *)"0\r\n", 3};
    iov[1] = (struct iovec){(void *)(uintptr_t)trailer, len};
    iov[2] = (struct iovec){(void *)"\r\n", 2};
    return 3;
}
