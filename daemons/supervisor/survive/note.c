/* SPDX-License-Identifier: BSD-2-Clause */
/* note: messages between the custodian and its child; see custodian.h. */
#include "daemons/supervisor/survive/custodian.h"
#include "polder/fd_message.h"

#include <errno.h>
#include <string.h>

bool note_send(int channel, const struct note *note, size_t len, int fd)
{
    const struct iovec iov = {(void *)(uintptr_t)note, len};
    return fd_message_send(channel, &iov, 1, &fd, fd >= 0) == (ssize_t)len;
}

int note_receive(int channel, struct note *note, int *fd)
{
    size_t n_fds;
    memset(note, 0, sizeof *note);
    const ssize_t n = fd_message_receive(channel, note, sizeof *note, MSG_DONTWAIT, fd, 1, &n_fds);
    if (n_fds == 0)
        *fd = -1;
    note->text[sizeof note->text - 1] = '\0';
    if (n == -EAGAIN)
        return 0;
    return n > 0 || n == -EMFILE || n == -EMSGSIZE ? 1 : -1;
}
