/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proxy_protocol: with proxy_protocol = true every connection starts with a PROXY header (v1 or
 * v2), which says who the client is. One without it is closed: whoever can reach the port otherwise
 * could claim any address.
 */
#include "daemons/worker/client/client.h"

int proxyproto_read(struct client *c, const char *bytes, size_t len)
{
    struct clientip ip = c->peer;
    uint16_t port;
    const int used = clientip_proxy_parse((const uint8_t *)bytes, len, &ip, &port);
    if (used <= 0)
        return used;
    c->peer = ip; /* forwarding headers are then judged by who that is */
    accept_admit(c, &ip);
    return used;
}
