/* SPDX-License-Identifier: BSD-2-Clause */
/* supervisor_link: see supervisor_link.h. */
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
#include "polder/fd_message.h"
#include "polder/handover.h"
#include "polder/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RECONNECT_MS 250
#define WARN_MS      60000

void supervisor_link_close(struct worker *w)
{
    if (w->supervisor.fd >= 0)
        close(w->supervisor.fd);
    w->supervisor.fd = -1;
}

/* What it is to know of servers; it does without where that is lost. */
static void send_table(const struct worker *w)
{
    struct handover h = {
        .magic = HANDOVER_MAGIC, .version = HANDOVER_VERSION, .flags = HANDOVER_SERVERS};
    struct iovec iov = {&h, sizeof h};
    const int fd = shared_servers_fd(w->shared);
    fd_message_send(w->supervisor.fd, &iov, 1, &fd, 1);
}

static bool supervisor_link_connect(struct worker *w)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (w->supervisor.fd >= 0)
        return true;
    if (w->mono_ms < w->supervisor.again_ms)
        return false;
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s/supervisor.sock", w->config->runtime_dir);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const int room = HANDOVER_MAX * 4;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
        if (w->mono_ms >= w->supervisor.warn_ms) {
            log_warning("handover: no polder-supervisor at %s: %s; upgrades get 503", sa.sun_path,
                        strerror(errno));
            w->supervisor.warn_ms = w->mono_ms + WARN_MS;
        }
        close(fd);
        w->supervisor.again_ms = w->mono_ms + RECONNECT_MS;
        return false;
    }
    w->supervisor.fd = fd;
    send_table(w);
    return true;
}

static int send_all(struct worker *w, struct iovec *iov, size_t n, const int *fds, size_t n_fds)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        if (!supervisor_link_connect(w))
            return -ECONNREFUSED;
        const ssize_t code = fd_message_send(w->supervisor.fd, iov, n, fds, n_fds);
        if (code >= 0)
            return 0;
        if (code == -EAGAIN || code == -EMSGSIZE || code == -ENOBUFS)
            return (int)code;
        supervisor_link_close(w); /* it was restarted: once more on a new connection */
    }
    return -EPIPE;
}

int supervisor_link_send(struct worker *w, struct iovec *iov, size_t n, int fd)
{
    return send_all(w, iov, n, &fd, fd >= 0);
}

void supervisor_link_send_slots(struct worker *w)
{
    struct handover h = {
        .magic = HANDOVER_MAGIC, .version = HANDOVER_VERSION, .flags = HANDOVER_SLOTS};
    struct iovec iov = {&h, sizeof h};
    const int fds[] = {shared_slots_fd(w->shared), w->shared->control_event};
    if (config_has_fleet_websockets(w->config))
        send_all(w, &iov, 1, fds, sizeof fds / sizeof *fds);
}

static int tell(struct worker *w, struct str url, struct str tag)
{
    struct handover h = {.magic = HANDOVER_MAGIC,
                         .version = HANDOVER_VERSION,
                         .flags = HANDOVER_TELLS,
                         .id_len = (uint32_t)tag.len,
                         .head_len = (uint32_t)url.len};
    struct iovec iov[3] = {{&h, sizeof h}, {(void *)tag.at, tag.len}, {(void *)url.at, url.len}};
    return supervisor_link_send(w, iov, 3, -1);
}

void supervisor_link_tell(struct worker *w, struct str url, struct str tag)
{
    if (w->supervisor.any_subscribers && !w->supervisor.resync && tell(w, url, tag) == -EAGAIN)
        w->supervisor.resync = true; /* too many at once: then it may be anything */
}

void supervisor_link_catch_up(struct worker *w)
{
    static const struct str none = {"", 0};
    if (w->supervisor.resync && tell(w, none, none) != -EAGAIN)
        w->supervisor.resync = false;
}
