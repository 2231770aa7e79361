/* SPDX-License-Identifier: BSD-2-Clause */
/* manager: see manager.h. */
#include "manager.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HIGH 200 /* above all that a daemon gets */

/* ---- what it is told ---- */

static void store(struct manager *m, const char *name, int fd)
{
    pthread_mutex_lock(&m->lock);
    m->stores++;
    if (m->n_stored < MANAGER_STORED) {
        snprintf(m->stored[m->n_stored].name, sizeof m->stored[0].name, "%s", name);
        m->stored[m->n_stored++].fd = fd;
    }
    pthread_mutex_unlock(&m->lock);
}

static void unstore(struct manager *m, const char *name)
{
    pthread_mutex_lock(&m->lock);
    m->removes++;
    for (unsigned i = m->n_stored; i-- > 0;)
        if (!name || !strcmp(m->stored[i].name, name)) {
            close(m->stored[i].fd);
            m->stored[i] = m->stored[--m->n_stored];
        }
    pthread_mutex_unlock(&m->lock);
}

static void take(void *arg, const char *text, int fd)
{
    struct manager *m = arg;
    char name[64] = "";
    const char *at = strstr(text, "FDNAME=");
    if (at)
        sscanf(at, "FDNAME=%63[^\n]", name);
    if (strstr(text, "READY=1")) {
        atomic_store(&m->ready_ms, mono_ms());
        atomic_store(&m->is_ready, true);
    }
    if (strstr(text, "STOPPING=1"))
        atomic_store(&m->stops, true);
    if (strstr(text, "FDSTOREREMOVE=1"))
        unstore(m, name);
    else if (strstr(text, "FDSTORE=1") && fd >= 0)
        store(m, name, fd);
    else if (fd >= 0)
        close(fd);
}

/* ---- what it passes ---- */

/* In the child that becomes the daemon. */
static void pass_all(void *arg)
{
    struct manager *m = arg;
    char names[1024] = "", text[16];
    int fd[MANAGER_SOCKETS + MANAGER_STORED];
    unsigned n = 0;
    for (unsigned i = 0; i < MANAGER_SOCKETS; i++, n++) {
        fd[n] = fcntl(m->socket[i], F_DUPFD_CLOEXEC, HIGH);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%spolder.socket",
                 n ? ":" : "");
    }
    for (unsigned i = 0; i < m->n_stored; i++, n++) {
        fd[n] = fcntl(m->stored[i].fd, F_DUPFD_CLOEXEC, HIGH);
        snprintf(names + strlen(names), sizeof names - strlen(names), ":%s", m->stored[i].name);
    }
    for (unsigned i = 0; i < n; i++)
        dup2(fd[i], 3 + (int)i);
    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof text, "%u", n);
    setenv("LISTEN_FDS", text, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    setenv("NOTIFY_SOCKET", m->notify.path, 1);
}

static void listen_all(struct manager *m)
{
    const int on = 1;
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)m->port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (unsigned i = 0; i < MANAGER_SOCKETS; i++) {
        m->socket[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(m->socket[i], SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        setsockopt(m->socket[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
        assert_int_equal(bind(m->socket[i], (const struct sockaddr *)&sa, sizeof sa), 0);
        assert_int_equal(listen(m->socket[i], 4096), 0);
    }
}

void manager_open(struct manager *m)
{
    char path[64];
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
    m->port = free_port();
    listen_all(m);
    snprintf(path, sizeof path, "/tmp/polder-manager-%d-%u", (int)getpid(), m->port);
    notify_open(&m->notify, path, take, m);
    house_spawned_by(pass_all, m);
}

void manager_close(struct manager *m)
{
    house_spawned_by(NULL, NULL);
    notify_close(&m->notify);
    manager_forget(m);
    for (unsigned i = 0; i < MANAGER_SOCKETS; i++)
        close(m->socket[i]);
}

void manager_forget(struct manager *m)
{
    unstore(m, NULL);
}

void manager_store(struct manager *m, const char *name, int fd)
{
    store(m, name, fd);
}

int manager_stored(struct manager *m, const char *name)
{
    int fd = -1;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->n_stored; i++)
        if (!strcmp(m->stored[i].name, name))
            fd = m->stored[i].fd;
    pthread_mutex_unlock(&m->lock);
    return fd;
}
