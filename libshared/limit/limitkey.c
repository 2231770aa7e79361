/* SPDX-License-Identifier: BSD-2-Clause */
/* limitkey: see limitkey.h. */
#include "polder/limitkey.h"
#include "polder/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int client_bytes(const char *text, size_t len, char *out, size_t size)
{
    struct clientip ip, group;
    if (clientip_parse(text, len, &ip) != 0)
        return -EINVAL;
    if (size < sizeof group.addr)
        return -ENOBUFS;
    clientip_group(&ip, &group);
    memcpy(out, group.addr, sizeof group.addr);
    return sizeof group.addr;
}

int limitkey_client(const char *address, char *out, size_t size)
{
    return client_bytes(address, strlen(address), out, size);
}

int limitkey_from_text(const struct config_limit *limit, const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (uint32_t i = 0; i < limit->n_key; i++) {
        const bool last = i + 1 == limit->n_key;
        const size_t len = last ? strlen(text) : strcspn(text, "+");
        if (i) {
            if (n == size)
                return -ENOBUFS;
            out[n++] = LIMITKEY_SEPARATOR;
        }
        int wrote = (int)len;
        if (limit->key[i].kind == CONFIG_KEY_CLIENT)
            wrote = client_bytes(text, len, out + n, size - n);
        else if (len > size - n)
            wrote = -ENOBUFS;
        else
            memcpy(out + n, text, len);
        if (wrote < 0)
            return wrote;
        n += (size_t)wrote;
        text += len;
        if (!last && *text++ != '+')
            return -EINVAL;
    }
    return (int)n;
}

void limitkey_describe(const struct config_limit *limit, char *out, size_t size)
{
    static const char *const kind[] = {
        [CONFIG_KEY_NONE] = "?",
        [CONFIG_KEY_CLIENT] = "client",
        [CONFIG_KEY_HEADER] = "header:",
        [CONFIG_KEY_COOKIE] = "cookie:",
        [CONFIG_KEY_QUERY] = "query:",
        [CONFIG_KEY_JWT] = "jwt:",
        [CONFIG_KEY_ROUTE] = "route",
        [CONFIG_KEY_GLOBAL] = "global",
        [CONFIG_KEY_IDENTITY] = "identity",
    };
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < limit->n_key && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s%s", i ? "+" : "", kind[limit->key[i].kind],
                              limit->key[i].name);
}

/* ---- to text ---- */

struct text {
    char *at, *end;
};

static void put(struct text *t, const char *bytes, size_t len)
{
    for (size_t i = 0; bytes && i < len && t->at < t->end; i++)
        *t->at++ = (unsigned char)bytes[i] < 0x20 || bytes[i] == 0x7f ? '?' : bytes[i];
}

static void put_address(struct text *t, const char *bytes)
{
    struct clientip ip;
    char text[46];
    memcpy(ip.addr, bytes, sizeof ip.addr);
    put(t, text, clientip_format(&ip, text));
}

/* A client stood in for a missing part: 16 bytes that are no text. */
static bool is_stand_in(const struct config_limit *limit, const char *who, size_t len)
{
    bool binary = false;
    for (size_t i = 0; i < len; i++)
        binary |= (unsigned char)who[i] < 0x20;
    return len == 16 && binary && !(limit->n_key == 1 && limit->key[0].kind == CONFIG_KEY_CLIENT);
}

size_t limitkey_to_text(const struct config_limit *limit, const char *who, size_t given, size_t len,
                        char *out, size_t size)
{
    struct text t = {out, out + size - 1};
    const char *at = who, *end = who + (len < given ? len : given);
    if (is_stand_in(limit, who, (size_t)(end - who))) {
        put_address(&t, who);
        at = end;
    }
    for (uint32_t i = 0; i < limit->n_key && at < end; i++) {
        const char *stop = end;
        if (i)
            put(&t, "+", 1);
        if (limit->key[i].kind == CONFIG_KEY_CLIENT && end - at >= 16) {
            put_address(&t, at);
            stop = at + 16;
        } else {
            if (i + 1 < limit->n_key) /* the last one may have any byte in it */
                stop = memchr(at, LIMITKEY_SEPARATOR, (size_t)(end - at));
            stop = stop ? stop : end;
            put(&t, at, (size_t)(stop - at));
        }
        at = stop < end ? stop + 1 : end;
    }
    if (len > given)
        put(&t, "...", 3);
    *t.at = 0;
    return (size_t)(t.at - out);
}
