/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proxy_protocol: with proxy_protocol = true every connection starts with a PROXY header (v1 or
 * v2), which has the client's address. A connection without it is closed: otherwise any peer that
 * reaches the port could claim any address.
 */
#include "daemons/worker/client/client.h"

int proxyproto_read(struct client *c, const char *bytes, size_t len)
{
    struct clientip ip = c->peer;
    uint16_t port;
    const int used = clientip_proxy_parse((const uint8_t *)bytes, len, &ip, &port);
    if (used <= 0)
        return used;
    c->peer = ip; /* forwarding headers are then trusted by that address */
    accept_admit(c, &ip);
    return used;
}
