/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * positions: how many bytes of a TCP connection were read and written, by the kernel's own
 * counters: written are those that are acknowledged and those that wait to be; read are those that
 * were received, but for what still waits here. Each FIN counts as one byte.
 *
 * A byte of urgent data that is not left in line would be counted too and never read: SO_OOBINLINE
 * is set on all that is counted.
 */
#include "daemons/supervisor/survive/segment.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define LOOKS_MAX 10000 /* until nothing has moved meanwhile */

enum { /* of TCP, which linux/tcp.h does not name */
       STATE_ESTABLISHED = 1,
       STATE_FIN_WAIT1 = 4,
       STATE_FIN_WAIT2 = 5,
       STATE_CLOSE_WAIT = 8,
       STATE_LAST_ACK = 9,
       STATE_CLOSING = 11
};

static bool ask(int fd, struct tcp_info *info)
{
    socklen_t len = sizeof *info;
    memset(info, 0, sizeof *info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0 &&
           len >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info->tcpi_bytes_received;
}

static bool alike(const struct tcp_info *a, const struct tcp_info *b)
{
    return a->tcpi_bytes_acked == b->tcpi_bytes_acked &&
           a->tcpi_bytes_received == b->tcpi_bytes_received && a->tcpi_state == b->tcpi_state;
}

enum positions_found positions_of(int fd, struct positions *p)
{
    struct tcp_info before, after;
    int unread, unacknowledged;
    if (!ask(fd, &before))
        return POSITIONS_NOT_TCP;
    for (int i = 0;; i++) {
        if (i == LOOKS_MAX || ioctl(fd, SIOCINQ, &unread) || ioctl(fd, SIOCOUTQ, &unacknowledged) ||
            !ask(fd, &after))
            return POSITIONS_GONE;
        if (alike(&before, &after))
            break;
        before = after;
    }
    const unsigned state = after.tcpi_state;
    const bool fin_heard =
                   state == STATE_CLOSE_WAIT || state == STATE_LAST_ACK || state == STATE_CLOSING,
               fin_said = state == STATE_FIN_WAIT1 || state == STATE_FIN_WAIT2 ||
                          state == STATE_LAST_ACK || state == STATE_CLOSING;
    p->read = (uint64_t)after.tcpi_bytes_received - (uint64_t)unread - fin_heard;
    p->written = (uint64_t)after.tcpi_bytes_acked + (uint64_t)unacknowledged - fin_said;
    return fin_said || state == STATE_ESTABLISHED || state == STATE_CLOSE_WAIT ? POSITIONS_FOUND
                                                                               : POSITIONS_GONE;
}
