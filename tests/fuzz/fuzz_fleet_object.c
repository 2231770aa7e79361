/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes, unsigned and then signed: an object that is read lies within the space, and is written as
 * something that reads the same. */
#include "daemons/control/model/fleet_object.h"

#include <nettle/hmac.h>
#include <stdlib.h>
#include <string.h>

static const struct fleet_key key = {{1, 2, 3}};
static const struct fleet_object_name name = {"0123456789abcdef0123456789abcdef"};

static void check(const struct fleet_object *o, const char *space)
{
    static _Alignas(8) char again_space[FLEET_OBJECT_PLAIN];
    static uint8_t again[FLEET_OBJECT_MAX];
    struct fleet_object b;
    const char *end = space + FLEET_OBJECT_PLAIN;
    if ((const char *)o->record != space || o->origin + o->origin_len > end ||
        o->body + o->body_len > end)
        abort();
    const size_t n = fleet_object_write(o, &key, &name, again);
    if (!n || fleet_object_read(again, n, &key, &name, again_space, &b) ||
        b.record_len != o->record_len || memcmp(b.record, o->record, b.record_len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t bytes[FLEET_OBJECT_MAX + FLEET_MAC];
    static _Alignas(8) char space[FLEET_OBJECT_PLAIN];
    struct fleet_object o;
    struct hmac_sha256_ctx hmac;
    if (fleet_object_read(data, len, &key, &name, space, &o) == 0)
        abort(); /* nobody has signed it */
    if (len > sizeof bytes - FLEET_MAC)
        return 0;
    if (len)
        memcpy(bytes, data, len);
    hmac_sha256_set_key(&hmac, sizeof key.bytes, key.bytes);
    hmac_sha256_update(&hmac, sizeof name.hex, (const uint8_t *)name.hex);
    hmac_sha256_update(&hmac, len, bytes);
    hmac_sha256_digest(&hmac, FLEET_MAC, bytes + len);
    if (fleet_object_read(bytes, len + FLEET_MAC, &key, &name, space, &o) == 0)
        check(&o, space);
    return 0;
}
