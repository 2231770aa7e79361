/* SPDX-License-Identifier: BSD-2-Clause */
/* messages: state shared by all requests and answers of this worker: the log, names, and buffers
 * for heads and texts of the current request. */
#ifndef POLDER_WORKER_MESSAGE_MESSAGES_H
#define POLDER_WORKER_MESSAGE_MESSAGES_H
#include "daemons/http/h1.h"
#include "daemons/worker/message/recent_note.h"
#include "daemons/worker/message/request_id.h"
#include "polder/access_log.h"
#include "polder/limit_top.h"

#include <ev.h>

struct messages {
    struct access_log log;      /* access.c */
    ev_io channel;              /* from the master, for the log */
    struct recent_notes recent; /* for live views */
    struct request_ids ids;
    char via[72]; /* our name in Via */
    struct limit_top_sampler poll_top;
};

#define WORKER_SCRATCH (40u << 10) /* a head of H1_HEAD_MAX and all that we add to it */
#define WORKER_URL_MAX (H1_TARGET_MAX * 3 + 1024)

/* Valid until overwritten: they belong to one request at a time. */
struct texts {
    char url[WORKER_URL_MAX], partition[4096];
    char target[H1_TARGET_MAX + 1];
    char joined_tags[H1_HEAD_MAX];  /* of an If-None-Match in several lines */
    char reference[WORKER_URL_MAX]; /* that an answer names */
    char scratch[WORKER_SCRATCH];   /* the head that is being written */
};

#endif
