/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes, unsigned and then signed: a text that is read lies within them. */
#include "daemons/control/model/fleet_entry.h"

#include <nettle/hmac.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct fleet_key key = {{1, 2, 3}};
    static uint8_t bytes[FLEET_ENTRY_MAX * 2];
    struct fleet_entry e;
    struct hmac_sha256_ctx hmac;
    if (fleet_entry_read(data, len, &key, &e) == 0)
        abort(); /* nobody has signed it */
    if (len > sizeof bytes - FLEET_MAC)
        return 0;
    if (len)
        memcpy(bytes, data, len);
    hmac_sha256_set_key(&hmac, sizeof key.bytes, key.bytes);
    hmac_sha256_update(&hmac, len, bytes);
    hmac_sha256_digest(&hmac, FLEET_MAC, bytes + len);
    if (fleet_entry_read(bytes, len + FLEET_MAC, &key, &e) == 0 &&
        (e.text < (const char *)bytes || e.text + e.len != (const char *)bytes + len ||
         !memchr(e.host, 0, sizeof e.host)))
        abort();
    return 0;
}
