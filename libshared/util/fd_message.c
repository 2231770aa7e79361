/* SPDX-License-Identifier: BSD-2-Clause */
/* fd_message: see fd_message.h. */
#include "polder/fd_message.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * FD_MESSAGE_MAX)];
};

ssize_t fd_message_send(int to, const struct iovec *iov, size_t n, const int *fds, size_t n_fds)
{
    const size_t len = n_fds * sizeof *fds;
    union control control;
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
    assert(n_fds <= FD_MESSAGE_MAX);
    if (n_fds) {
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(len);
        memset(control.bytes, 0, m.msg_controllen);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(len);
        memcpy(CMSG_DATA(c), fds, len);
    }
    const ssize_t sent = sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

/* Those that came with it; what there is no room for is closed, and makes the message one that is cut. */
static size_t take_fds(struct msghdr *m, int *fds, size_t max)
{
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
            int fd;
            memcpy(&fd, (const char *)c + at, sizeof fd);
            if (n < max) {
                fds[n++] = fd;
            } else {
                close(fd);
                m->msg_flags |= MSG_CTRUNC;
            }
        }
    }
    return n;
}

ssize_t fd_message_receive(int from, void *bytes, size_t size, int flags, int *fds, size_t max,
                           size_t *n_fds)
{
    union control control;
    struct iovec iov = {bytes, size};
    struct msghdr m;
    ssize_t n;
    assert(max <= FD_MESSAGE_MAX);
    *n_fds = 0;
    do {
        m = (struct msghdr){.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_LEN(max * sizeof *fds)};
        n = recvmsg(from, &m, flags | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *n_fds = take_fds(&m, fds, max);
    if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return n;
    fd_message_close(fds, *n_fds);
    *n_fds = 0;
    return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : -EMFILE;
}

void fd_message_close(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}
