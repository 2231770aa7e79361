/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_entry: see fleet_entry.h. */
#include "daemons/control/model/fleet_entry.h"

#include <errno.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <string.h>

#define HEAD   20
#define SOFT   1
#define WAITED 2

void fleet_key_make(struct fleet_key *key, const char *name, const char *secret)
{
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, strlen(secret), (const uint8_t *)secret);
    hmac_sha256_update(&hmac, strlen(name), (const uint8_t *)name);
    hmac_sha256_digest(&hmac, sizeof key->bytes, key->bytes);
}

static void sign(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                 uint8_t mac[FLEET_MAC])
{
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    hmac_sha256_update(&hmac, len, bytes);
    hmac_sha256_digest(&hmac, FLEET_MAC, mac);
}

size_t fleet_entry_write(const struct fleet_entry *e, const struct fleet_key *key,
                         uint8_t out[FLEET_ENTRY_MAX])
{
    const size_t host = strnlen(e->host, FLEET_HOST_SIZE);
    if (host == FLEET_HOST_SIZE || e->len > FLEET_TEXT_MAX)
        return 0;
    out[0] = FLEET_ENTRY_VERSION;
    out[1] = (uint8_t)e->kind;
    out[2] = (uint8_t)((e->soft ? SOFT : 0) | (e->waited ? WAITED : 0));
    out[3] = (uint8_t)host;
    memcpy(out + 4, &e->instance, sizeof e->instance);
    memcpy(out + 12, &e->before, sizeof e->before);
    memcpy(out + HEAD, e->host, host);
    if (e->len)
        memcpy(out + HEAD + host, e->text, e->len);
    const size_t len = HEAD + host + e->len;
    sign(out, len, key, out + len);
    return len + FLEET_MAC;
}

int fleet_entry_read(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                     struct fleet_entry *e)
{
    uint8_t mac[FLEET_MAC];
    if (len < FLEET_MAC)
        return -EPERM;
    len -= FLEET_MAC;
    sign(bytes, len, key, mac);
    if (!memeql_sec(mac, bytes + len, FLEET_MAC))
        return -EPERM;
    if (len < HEAD || bytes[0] != FLEET_ENTRY_VERSION || bytes[1] >= FLEET_KINDS ||
        bytes[2] > (SOFT | WAITED) || bytes[3] >= FLEET_HOST_SIZE ||
        len < (size_t)HEAD + bytes[3] || len - HEAD - bytes[3] > FLEET_TEXT_MAX)
        return -ENOTSUP;
    const size_t host = bytes[3];
    *e = (struct fleet_entry){
        .kind = (enum fleet_kind)bytes[1], .soft = bytes[2] & SOFT, .waited = bytes[2] & WAITED};
    memcpy(&e->instance, bytes + 4, sizeof e->instance);
    memcpy(&e->before, bytes + 12, sizeof e->before);
    memcpy(e->host, bytes + HEAD, host);
    e->text = (const char *)bytes + HEAD + host;
    e->len = len - HEAD - host;
    return 0;
}
