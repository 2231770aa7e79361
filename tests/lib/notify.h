/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * notify: the socket at which a service manager is told of a daemon's state (sd_notify(3)), for those
 * that stand in for one. A thread of its own takes what comes.
 */
#ifndef POLDER_TEST_NOTIFY_H
#define POLDER_TEST_NOTIFY_H
#include <pthread.h>
#include <stdatomic.h>

struct notify {
    char path[108];
    int socket;
    pthread_t thread;
    atomic_bool ends;
    void (*take)(void *arg, const char *text, int fd); /* fd: -1: none; it is taken */
    void *arg;
};

void notify_open(struct notify *n, const char *path,
                 void (*take)(void *arg, const char *text, int fd), void *arg);
void notify_close(struct notify *n);
#endif
