/* SPDX-License-Identifier: BSD-2-Clause */
/* leg: one end of a session: what is written to it, what waits until it takes more, its end. */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/ws/inflate_count.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void leg_close(struct supervisor *s, struct leg *leg)
{
    ev_io_stop(s->loop, &leg->io);
    if (leg->io.fd >= 0) {
        close(leg->io.fd);
        s->held--;
    }
    leg->io.fd = -1;
    chain_free(&s->buffers, &leg->out);
    if (leg->stash)
        buffer_put(&s->buffers, leg->stash);
    leg->stash = NULL;
    inflate_count_free(leg->expanded);
    leg->expanded = NULL;
}

static void wrote(struct supervisor *s, struct leg *to, size_t n)
{
    struct session *x = to->session;
    if (to != &x->client)
        return;
    x->to_client_ms = s->now_ms;
    x->bytes += n;
}

bool leg_put(struct supervisor *s, struct leg *to, const uint8_t *bytes, size_t len)
{
    if (to->io.fd < 0 || to->cut)
        return false;
    if (!to->out.len) {
        const ssize_t n = send(to->io.fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            to->cut = true;
            return false;
        }
        if (n > 0) {
            wrote(s, to, (size_t)n);
            bytes += n, len -= (size_t)n;
        }
    }
    if (len && !chain_append(&s->buffers, &to->out, bytes, len)) {
        to->cut = true; /* no memory: half a frame is worse than none */
        return false;
    }
    return true;
}

bool leg_put_frame(struct supervisor *s, struct leg *to, enum frames_opcode opcode,
                   const void *payload, size_t len)
{
    uint8_t small[FRAMES_HEADER_MAX + 2048], mask[4];
    uint8_t *frame = len <= 2048 ? small : malloc(FRAMES_HEADER_MAX + len);
    if (!frame)
        return false;
    const uint32_t random = (uint32_t)random_next(&s->random);
    memcpy(mask, &random, 4);
    const bool to_client = to == &to->session->client;
    const bool done =
        leg_put(s, to, frame, frames_write(frame, opcode, payload, len, to_client ? NULL : mask));
    if (frame != small)
        free(frame);
    return done;
}

void leg_flush(struct supervisor *s, struct leg *to)
{
    const ssize_t n = chain_flush_socket(&s->buffers, &to->out, to->io.fd);
    if (n > 0)
        wrote(s, to, (size_t)n);
    to->cut = n < 0;
}
