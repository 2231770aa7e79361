/* SPDX-License-Identifier: BSD-2-Clause */
/* probe: see probe.h. */
#include "daemons/worker/request/probe.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/request/limits.h"
#include "polder/proc.h"
#include "polder/verify.h"

#include <errno.h>
#include <string.h>

/* 192.0.2.0/24 is reserved for documentation (RFC 5737). */
static struct clientip probe_client(uint8_t n)
{
    struct clientip ip = {.addr = {[10] = 0xff, 0xff, 192, 0, 2}};
    ip.addr[15] = n;
    return ip;
}

void probe_recognise(struct worker *w, struct request *r)
{
    const struct h1_field *f = h1_only(r->head, H1_POLDER_VERIFY);
    if (!f || !r->head->is_get)
        return;
    const struct verify_probe p = verify_look(&w->shared->proc->verify, w->mono_ms, f->value);
    if (p.kind == VERIFY_NONE)
        return;
    r->probe = (uint8_t)p.kind;
    r->probe_run = p.run;
    r->ip = probe_client(p.client);
    if (r->client)
        r->client->note.is_probe = true;
}

int probe_url(struct worker *w, const struct request *r, int len)
{
    char host[VERIFY_HOST_SIZE];
    const char *path = memchr(w->texts->url, '/', (size_t)len);
    const size_t host_len = verify_host(r->probe_run, host);
    const size_t rest = path ? (size_t)(w->texts->url + len - path) : 0;
    if (!path || host_len + rest > sizeof w->texts->url)
        return -ENOBUFS;
    memmove(w->texts->url + host_len, path, rest);
    memcpy(w->texts->url, host, host_len);
    return (int)(host_len + rest);
}

void probe_admitted(const struct request *r)
{
    char lines[sizeof r->worker->limits->text + 1];
    memcpy(lines, r->limit_lines, r->limit_len);
    lines[r->limit_len] = 0;
    response_simple(r, 204, lines);
}
