/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unit: a stand-in for systemd with polder-supervisor as a unit: it holds the socket for handshakes,
 * keeps the descriptors that the daemon stores, passes them to the next process, and answers on a
 * bus of its own what job the unit has.
 */
#ifndef POLDER_TEST_UNIT_H
#define POLDER_TEST_UNIT_H
#include "house.h"
#include "notify.h"

enum unit_bus { UNIT_ANSWERS, UNIT_IS_SILENT, UNIT_HAS_NO_BUS };

struct unit {
    struct house *house;
    char dir[64];
    int socket; /* -1: the daemon makes its own */
    int bus;
    struct notify notify;
    pthread_t bus_thread;
    pid_t pid;
    atomic_bool is_ready, ends;
    atomic_uint stored, n_removed; /* "websockets" is there; FDSTOREREMOVE= */
    atomic_int store_max;          /* FileDescriptorStoreMax= */
    _Atomic(const char *) job;     /* "": none */
    _Atomic enum unit_bus answers;
    pthread_mutex_t lock;
    int box; /* what is stored; -1 */
};

void unit_open(struct unit *u, struct house *h, bool has_socket);
void unit_close(struct unit *u);
/* Starts the daemon and waits until it is ready. */
void unit_start(struct unit *u);
/* Only starts it, with a program of another path: NULL: its own. */
void unit_spawn(struct unit *u, const char *program);
void unit_wait_ready(struct unit *u);
/* As systemctl does it: tells it to stop, with that job, and waits for its end. The exit status. */
int unit_stop(struct unit *u, const char *job);
void unit_restart(struct unit *u);
/* What a stop does to the store. */
void unit_forget(struct unit *u);
/* Puts that descriptor (a copy) into the store in place of what is there. */
void unit_keep(struct unit *u, int fd);
#endif
