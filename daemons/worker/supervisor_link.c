/* SPDX-License-Identifier: BSD-2-Clause */
/* supervisor_link: see supervisor_link.h. */
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
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

#define FDS_MAX 2

/* One message on the connection, with n_fds descriptors. 0 or a negative errno. */
static int send_once(int to, struct iovec *iov, size_t n, const int *fds, size_t n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr m = {.msg_iov = iov,
                       .msg_iovlen = n,
                       .msg_control = control.bytes,
                       .msg_controllen = CMSG_SPACE(n_fds * sizeof *fds)};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(n_fds * sizeof *fds);
    memcpy(CMSG_DATA(cm), fds, n_fds * sizeof *fds);
    if (!n_fds)
        m.msg_control = NULL, m.msg_controllen = 0;
    return sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* What it is to know of servers; it does without where that is lost. */
static void send_table(const struct worker *w)
{
    struct handover h = {
        .magic = HANDOVER_MAGIC, .version = HANDOVER_VERSION, .flags = HANDOVER_SERVERS};
    struct iovec iov = {&h, sizeof h};
    const int fd = shared_servers_fd(w->shared);
    send_once(w->supervisor.fd, &iov, 1, &fd, 1);
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
        const int code = send_once(w->supervisor.fd, iov, n, fds, n_fds);
        if (code == 0 || code == -EAGAIN || code == -EMSGSIZE || code == -ENOBUFS)
            return code;
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
        send_all(w, &iov, 1, fds, FDS_MAX);
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
