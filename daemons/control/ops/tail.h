/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tail: the last requests and events of polder/recent.h as JSON, for the stream of the dashboard.
 * A reader is a watcher: workers record requests until some seconds after the last one.
 */
#ifndef POLDER_CONTROL_OPS_TAIL_H
#define POLDER_CONTROL_OPS_TAIL_H
#include "daemons/control/ops/text.h"
#include "polder/recent.h"

#define TAIL_REQUESTS 50
#define TAIL_EVENTS   20

struct tail {                    /* {0}: it begins with the last ones */
    uint64_t request, event;     /* numbers to go on with */
    size_t n_requests, n_events; /* new ones, oldest first */
    struct recent_request requests[TAIL_REQUESTS];
    struct recent_event events[TAIL_EVENTS];
};

/* Reads what is new since the last call. */
void tail_follow(struct tail *tail, struct recent_page *page);
/* ,"requests":[...],"events":[...]; what is new, or the last ones. */
void tail_put_new(struct text *t, const struct tail *tail);
void tail_put_last(struct text *t, struct recent_page *page);
#endif
