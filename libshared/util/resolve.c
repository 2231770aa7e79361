/* SPDX-License-Identifier: BSD-2-Clause */
/* resolve: see resolve.h; getaddrinfo_a() of the C library asks for all names side by side. */
#include "polder/resolve.h"
#include "polder/clock.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct request {
    struct gaicb cb;
    struct addrinfo hints;
    char host[256];
};

static void request_init(struct request *r, const char *text)
{
    const char *colon = strrchr(text, ':');
    r->hints = (struct addrinfo){.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    snprintf(r->host, sizeof r->host, "%.*s", (int)(colon - text), text);
    r->cb = (struct gaicb){.ar_name = r->host, .ar_service = colon + 1, .ar_request = &r->hints};
}

static void add_address(struct server_addresses *list, const struct sockaddr *sa)
{
    struct server_address a;
    if (list->n == SERVER_ADDRESSES_MAX || !server_address_from(sa, &a))
        return;
    for (uint32_t i = 0; i < list->n; i++)
        if (!memcmp(&list->at[i], &a, sizeof a))
            return;
    list->at[list->n++] = a;
}

static void take(struct resolve_name *name, struct request *r)
{
    const int code = gai_error(&r->cb);
    if (code == EAI_INPROGRESS)
        snprintf(name->why, sizeof name->why, "the resolver does not answer in time");
    else if (code)
        snprintf(name->why, sizeof name->why, "%s", gai_strerror(code));
    for (const struct addrinfo *a = code ? NULL : r->cb.ar_result; a; a = a->ai_next)
        add_address(&name->list, a->ai_addr);
    if (!code && !name->list.n)
        snprintf(name->why, sizeof name->why, "it has no address");
    if (!code)
        freeaddrinfo(r->cb.ar_result);
}

static bool all_done(struct gaicb *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (gai_error(list[i]) == EAI_INPROGRESS)
            return false;
    return true;
}

static void wait_for(struct gaicb *const *list, size_t n, unsigned timeout_ms)
{
    const uint64_t until_ms = clock_mono_ms() + timeout_ms;
    for (uint64_t now_ms; !all_done(list, n) && (now_ms = clock_mono_ms()) < until_ms;) {
        const uint64_t left = until_ms - now_ms;
        const struct timespec t = {(time_t)(left / 1000), (long)(left % 1000) * 1000000};
        gai_suspend((const struct gaicb *const *)list, (int)n, &t);
    }
}

void resolve_all(struct resolve_name *names, size_t n, unsigned timeout_ms)
{
    /* not freed: threads may still write there */
    struct request *requests = calloc(n + 1, sizeof *requests);
    struct gaicb **list = calloc(n + 1, sizeof *list);
    if (!n || !requests || !list) {
        free(requests);
        free(list);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        names[i].list = (struct server_addresses){0};
        names[i].why[0] = 0;
        request_init(&requests[i], names[i].text);
        list[i] = &requests[i].cb;
    }
    const int code = getaddrinfo_a(GAI_NOWAIT, list, (int)n, NULL);
    if (code == 0)
        wait_for(list, n, timeout_ms);
    for (size_t i = 0; i < n; i++) {
        if (code == 0)
            take(&names[i], &requests[i]);
        else
            snprintf(names[i].why, sizeof names[i].why, "%s", gai_strerror(code));
    }
    if (code || all_done(list, n)) {
        free(requests);
        free(list);
    }
}
