/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_rig: three daemons that share a real Redis, and what is seen of them. */
#ifndef POLDER_TEST_FLEET_RIG_H
#define POLDER_TEST_FLEET_RIG_H
#include "harness.h"
#include "redis.h"

#define FLEET_HOSTS  3
#define FLEET_SECRET "a secret of sixteen or more"

struct fleet {
    struct redis redis;
    struct house host[FLEET_HOSTS];
    const char *store;   /* NULL: the server's own socket */
    const char *sharing; /* of the section cache: shared and more */
    const char *routes;  /* before the route of all paths; "" */
    const char *section; /* more keys of the section fleet; "" */
    unsigned port;       /* of the backend, upstream "u" */
    unsigned names_from; /* the first is called h0, or so: a name is taken as long as a lease */
};
/* Hosts h0, h1...; waits until each is a member and its shared cache is in use. */
void fleet_start(struct fleet *f);
/* What fleet_start() does, without the waits. */
void fleet_start_host(struct fleet *f, int i, const char *secret);
void fleet_stop(struct fleet *f);
bool fleet_says(struct house *h, const char *text); /* polderctl fleet */

/* A number in its lines: "puts", "hits"... */
unsigned fleet_number(struct house *h, const char *name);
/* A counter of its metrics, all series together. */
unsigned fleet_metric(struct house *h, const char *name);

/* One GET of example.org with these fields; its status. */
int fleet_get(struct house *h, const char *path, const char *fields, struct message *m);
/* Is it answered with that status, and does Cache-Status contain that? */
bool fleet_answers(struct house *h, const char *path, const char *fields, int status,
                   const char *cache_status);
void fleet_post(struct house *h, const char *path);
/* Keys in the store that begin so: "o" objects, "f" claims, "v" variants. */
unsigned fleet_keys(struct fleet *f, char kind);
#endif
