/* SPDX-License-Identifier: BSD-2-Clause */
/* The origin of whatever a trusted proxy sends: bounded, in lower case, the same when asked again.
 */
#include "daemons/worker/message/origin.c"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct h1_head head;
    enum problem problem;
    size_t scanned = 0;
    char out[ORIGIN_MAX], again[ORIGIN_MAX];
    if (h1_parse_request((const char *)data, size, &scanned, &head, &problem) != H1_DONE)
        return 0;
    const struct request r = {.head = &head, .url = "h:80/x", .url_len = 6, .trusted_peer = true};
    const size_t n = origin_text(&r, out);
    if (n < 3 || n > sizeof out || origin_text(&r, again) != n || memcmp(out, again, n))
        abort();
    for (size_t i = 0; i < n; i++)
        if ((out[i] >= 'A' && out[i] <= 'Z') || out[i] == '\n')
            abort();
    return 0;
}
