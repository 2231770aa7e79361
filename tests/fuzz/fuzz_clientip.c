/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as PROXY header, as Forwarded and X-Forwarded-For, as network. */
#include "polder/clientip.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct clientip ip = {{0}}, out;
    struct clientip_net any = {{0}, 0};
    uint16_t port = 0;
    const int used = clientip_proxy_parse(data, size, &ip, &port);
    if (used > 0 && ((size_t)used > size || used > CLIENTIP_PROXY_MAX))
        abort();
    clientip_forwarded(&ip, &any, 1, (const char *)data, size, NULL, 0, &out);
    clientip_forwarded(&ip, &any, 1, NULL, 0, (const char *)data, size, &out);
    char chain[512];
    struct clientip_origin origin;
    if (clientip_forwarded_chain((const char *)data, size, chain, sizeof chain) > sizeof chain)
        abort();
    clientip_forwarded_origin((const char *)data, size, &any, 1, &origin);
    const char *end = (const char *)data + size;
    if ((origin.proto.len && origin.proto.at + origin.proto.len > end) ||
        (origin.host.len &&
         (origin.host.at + origin.host.len > end || memchr(origin.host.at, '\n', origin.host.len))))
        abort();
    char text[256];
    const size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = 0;
    struct clientip_net net;
    if (clientip_net_parse(text, &net) == 0 && net.bits > 128)
        abort();
    return 0;
}
