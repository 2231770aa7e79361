/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * manager: a stand-in for systemd: it holds the listening sockets of a house, is told of its state,
 * keeps the descriptors that it stores, and passes all of them to each daemon that is started.
 */
#ifndef POLDER_TEST_MANAGER_H
#define POLDER_TEST_MANAGER_H
#include "house.h"
#include "notify.h"

#define MANAGER_SOCKETS 8
#define MANAGER_STORED  16

struct manager {
    unsigned port; /* of the sockets */
    int socket[MANAGER_SOCKETS];
    struct notify notify;
    pthread_mutex_t lock;
    atomic_bool is_ready, stops;
    _Atomic uint64_t ready_ms; /* when READY=1 came */
    unsigned n_stored, stores, removes;
    struct {
        char name[64];
        int fd;
    } stored[MANAGER_STORED];
};
/* From then on daemons of all houses are started by it. */
void manager_open(struct manager *m);
void manager_close(struct manager *m);
/* Gives up what is stored, as at a stop. */
void manager_forget(struct manager *m);
/* Puts a descriptor of the test's own into the store. */
void manager_store(struct manager *m, const char *name, int fd);
/* -1: none of that name. It stays the manager's. */
int manager_stored(struct manager *m, const char *name);
#endif
