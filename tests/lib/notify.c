/* SPDX-License-Identifier: BSD-2-Clause */
/* notify: see notify.h. */
#include "notify.h"
#include "house.h"
#include "polder/fd_message.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void *run(void *arg)
{
    struct notify *n = arg;
    while (!atomic_load(&n->ends)) {
        char text[4096] = "";
        int fd = -1;
        size_t n_fds;
        if (fd_message_receive(n->socket, text, sizeof text - 1, 0, &fd, 1, &n_fds) >= 0)
            n->take(n->arg, text, n_fds ? fd : -1);
    }
    return NULL;
}

void notify_open(struct notify *n, const char *path,
                 void (*take)(void *arg, const char *text, int fd), void *arg)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    const struct timeval soon = {0, 50000};
    assert_true(strlen(path) < sizeof n->path);
    strcpy(n->path, path);
    strcpy(un.sun_path, path);
    n->take = take;
    n->arg = arg;
    atomic_store(&n->ends, false);
    n->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(n->socket >= 0);
    setsockopt(n->socket, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    unlink(path);
    assert_int_equal(bind(n->socket, (const struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(pthread_create(&n->thread, NULL, run, n), 0);
}

void notify_close(struct notify *n)
{
    atomic_store(&n->ends, true);
    pthread_join(n->thread, NULL);
    close(n->socket);
    unlink(n->path);
}
