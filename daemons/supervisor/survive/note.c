/* SPDX-License-Identifier: BSD-2-Clause */
/* note: messages between the custodian and its child; see custodian.h. */
#include "daemons/supervisor/survive/custodian.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

bool note_send(int channel, const struct note *note, size_t len, int fd)
{
    union control control;
    struct iovec iov = {(void *)(uintptr_t)note, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(channel, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

int note_receive(int channel, struct note *note, int *fd)
{
    union control control;
    struct iovec iov = {note, sizeof *note};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n;
    *fd = -1;
    memset(note, 0, sizeof *note);
    do
        n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    note->text[sizeof note->text - 1] = '\0';
    return n ? 1 : -1;
}
