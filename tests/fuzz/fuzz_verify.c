/* SPDX-License-Identifier: BSD-2-Clause */
/* Polder-Verify: whatever stands there, it is a probe only with the token, and then within bounds.
 */
#include "polder/verify.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char token[] = "0123456789abcdef0123456789abcdef";
    struct verify_lease lease = {.until_ms = 2, .run = 7};
    char text[512];
    lease.token[0] = lease.token[1] = UINT64_C(0x0123456789abcdef);
    const size_t n = sizeof token - 1, more = size < sizeof text - n ? size : sizeof text - n;
    memcpy(text, token, n);
    memcpy(text + n, data, more);
    const struct verify_probe p = verify_look(&lease, 1, (struct str){text, n + more});
    if (p.kind && (p.kind > VERIFY_LOCAL || !p.client || p.client > VERIFY_CLIENTS || p.run != 7))
        abort();
    if (!more && p.kind != VERIFY_REQUEST)
        abort();
    const struct verify_probe q = verify_look(&lease, 1, (struct str){(const char *)data, size});
    if (q.kind && (size < n || memcmp(data, token, n)))
        abort();
    if (verify_look(&lease, 2, (struct str){text, n + more}).kind)
        abort();
    verify_is_url((const char *)data, size);
    return 0;
}
