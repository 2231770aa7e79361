/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_rig: three daemons that share a real Redis, and what is seen of them. */
#ifndef POLDER_TEST_FLEET_RIG_H
#define POLDER_TEST_FLEET_RIG_H
#include "harness.h"
#include "redis.h"
#include "relay.h"

#define FLEET_HOSTS  3
#define FLEET_SECRET "a secret of sixteen or more"

struct fleet {
    struct redis redis;
    struct house host[FLEET_HOSTS];
    struct relay *relay; /* in front of the server: fleet_relay(); NULL: none */
    const char *store;   /* of hosts that start from now on; NULL: the server's own socket */
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
/* Until each host is a member and its shared cache is in use. */
void fleet_wait(struct fleet *f, unsigned ms);
void fleet_show(struct fleet *f); /* what each says of it, and the end of its log */
/* Starts the server, and a relay in front of it; the store of hosts that use that. */
const char *fleet_relay(struct fleet *f);
/* Runs the stories of a program with one fleet and one backend for all of them, in *f and *b; what main()
 * returns. begin: starts them when the port is known; NULL: fleet_start(). */
#define run_with_fleet(stories, f, b, fn, begin)                                                   \
    (fleet_share(f, b, fn, begin), cmocka_run_group_tests(stories, fleet_set_up, fleet_tear_down))
void fleet_share(struct fleet *f, struct backend **b, backend_fn fn, void (*begin)(void));
int fleet_set_up(void **state);
int fleet_tear_down(void **state);
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
