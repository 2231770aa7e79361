/* SPDX-License-Identifier: BSD-2-Clause */
/* parts: a worker and the state of its parts, in one piece of memory. */
#include "daemons/worker/background/budget.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/request/long_poll.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/worker.h"

#include <stdlib.h>

struct parts {
    struct worker worker; /* first */
    struct clients clients;
    struct messages messages;
    struct upstreams upstreams;
    struct fetches fetches;
    struct lookups lookups;
    struct limits limits;
    struct repeats repeats;
    struct long_polls long_polls;
    struct background background;
    struct guard_checks guard_checks;
    struct texts texts;
};

struct worker *worker_alloc(void)
{
    struct parts *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    struct worker *w = &p->worker;
    w->clients = &p->clients;
    w->messages = &p->messages;
    w->upstreams = &p->upstreams;
    w->fetches = &p->fetches;
    w->lookups = &p->lookups;
    w->limits = &p->limits;
    w->repeats = &p->repeats;
    w->long_polls = &p->long_polls;
    w->background = &p->background;
    w->guard_checks = &p->guard_checks;
    w->texts = &p->texts;
    TAILQ_INIT(&w->fetches->dead);
    TAILQ_INIT(&w->fetches->waiters);
    TAILQ_INIT(&w->fetches->askers);
    TAILQ_INIT(&w->fetches->retry_queue);
    TAILQ_INIT(&w->fetches->room_queue);
    TAILQ_INIT(&w->repeats->all);
    TAILQ_INIT(&w->repeats->dead);
    w->supervisor.fd = w->messages->log.fd = -1;
    return w;
}

void worker_free(struct worker *w)
{
    free(w);
}
