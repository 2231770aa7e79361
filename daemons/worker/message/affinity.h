/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * affinity: which key keeps a request at a server of its upstream (`sticky`, polder/sticky.h), and
 * what answers say of it. Only for requests that go to a backend.
 */
#ifndef POLDER_WORKER_MESSAGE_AFFINITY_H
#define POLDER_WORKER_MESSAGE_AFFINITY_H
#include "daemons/http/h1.h"
#include "polder/config.h"
#include "polder/sticky.h"

struct request;
struct worker;

/* Also counts it, for keys that have too many requests. */
void affinity_of(const struct request *r, const struct config_upstream *upstream,
                 struct sticky_key *out);
/* The head of an answer: a session that the server has named is its own from now on. */
void affinity_learn(const struct worker *w, const struct config_server *server,
                    const struct h1_head *head);
/* A client that has no key yet gets one with this answer. stored: other clients may get it too. */
void affinity_put_cookie(struct h1_out *o, const struct sticky_key *key, const struct h1_head *head,
                         bool stored);
#endif
