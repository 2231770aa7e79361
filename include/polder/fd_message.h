/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fd_message: messages over a UNIX socket with descriptors beside their bytes (SCM_RIGHTS). All that
 * pass descriptors to each other do it by these two calls: the master, workers, polder-supervisor and
 * its custodian, and what a restart leaves in a queue.
 *
 * A descriptor that is under way belongs to the kernel: where the sender dies it arrives all the same,
 * and where the receiver dies before it has read the message it is closed.
 */
#ifndef POLDER_FD_MESSAGE_H
#define POLDER_FD_MESSAGE_H
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define FD_MESSAGE_MAX 253 /* descriptors in one message: the kernel's SCM_MAX_FD */

/* The n parts of iov as one message, with n_fds descriptors, which stay the caller's. Never blocks.
 * Returns how many bytes went, or a negative errno. */
ssize_t fd_message_send(int to, const struct iovec *iov, size_t n, const int *fds, size_t n_fds);
/* The next message; flags: MSG_DONTWAIT, MSG_PEEK. Returns its length, 0 at the end of the connection,
 * or a negative errno. The *n_fds descriptors in fds, of which there is room for max, are the
 * caller's, and close on exec. A message that has not come whole leaves no descriptor open:
 * -EMSGSIZE: it is longer than size; -EMFILE: more descriptors came than max, or than this process
 * may open, and its bytes are there without them. */
ssize_t fd_message_receive(int from, void *bytes, size_t size, int flags, int *fds, size_t max,
                           size_t *n_fds);
/* Closes n of them. */
void fd_message_close(const int *fds, size_t n);
#endif
