/* SPDX-License-Identifier: BSD-2-Clause */
/* leg: one end of a session: what is written to it, what waits until it takes more, its end. */
#include "daemons/supervisor/supervisor.h"
#include "daemons/net/transport.h"
#include "daemons/supervisor/survive/survive.h"
#include "daemons/supervisor/ws/inflate_count.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHAIN_AT_ONCE 64 /* pieces of a chain in one write */

/* What waits for it is given back only when no point has it any more. */
void leg_close(struct supervisor *s, struct leg *leg)
{
    const int fd = leg->io.fd;
    struct chain out = leg->out;
    struct buffer *stash = leg->stash;
    ev_io_stop(s->loop, &leg->io);
    leg->io.fd = -1;
    leg->direct_len = leg->spent = 0;
    leg->out = (struct chain){0};
    leg->stash = NULL;
    if (fd >= 0) {
        survive_leg_closed(s, leg, fd);
        survive_close(s, fd);
        s->held--;
    }
    chain_free(&s->buffers, &out);
    if (stash)
        buffer_put(&s->buffers, stash);
    inflate_count_free(leg->expanded);
    leg->expanded = NULL;
}

/* ---- writing ---- */

static void wrote(struct supervisor *s, struct leg *to, size_t n)
{
    struct session *x = to->session;
    if (to != &x->client)
        return;
    const size_t head = n < x->head_left ? n : x->head_left;
    x->to_client_ms = s->now_ms;
    x->head_left -= (uint32_t)head;
    x->bytes += n - head;
}

/* Bytes taken, none for now, or -1: the peer is gone. */
static ssize_t write_some(struct supervisor *s, struct leg *to, struct iovec *iov, unsigned n)
{
    n = (unsigned)die_fewer(n);
    iov[n - 1].iov_len = die_fewer(iov[n - 1].iov_len);
    const ssize_t sent = socket_send(to->io.fd, iov, n);
    die_here(DIE_AFTER_SEND);
    if (sent > 0)
        wrote(s, to, (size_t)sent);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        to->cut = true;
        return -1;
    }
    return sent < 0 ? 0 : sent;
}

/* What was not taken of the bytes where they were read; before those of the chain. */
static void keep_direct(struct supervisor *s, struct leg *to, size_t taken)
{
    struct chain rest = {0};
    const size_t left = to->direct_len - taken;
    to->direct_len = 0;
    if (!chain_append(&s->buffers, &rest, to->direct + taken, left)) {
        chain_free(&s->buffers, &rest);
        to->cut = true; /* no memory: half a frame is worse than none */
        return;
    }
    if (to->out.len) {
        STAILQ_CONCAT(&rest.list, &to->out.list);
        rest.last = to->out.last;
        rest.len += to->out.len;
    }
    to->out = rest;
    to->blocked = true;
}

static bool write_direct(struct supervisor *s, struct leg *to)
{
    struct iovec iov = {(void *)(uintptr_t)to->direct, to->direct_len};
    const ssize_t n = write_some(s, to, &iov, 1);
    if (n == (ssize_t)to->direct_len || n < 0)
        to->direct_len = 0;
    else
        keep_direct(s, to, (size_t)n);
    return to->blocked || to->cut;
}

static bool write_chain(struct supervisor *s, struct leg *to)
{
    struct iovec iov[CHAIN_AT_ONCE];
    const ssize_t n = write_some(s, to, iov, chain_iov(&to->out, iov, CHAIN_AT_ONCE));
    to->spent = n > 0 ? (uint32_t)n : 0;
    to->blocked = to->spent < to->out.len;
    return to->cut || (to->blocked && to->spent);
}

/* True: what waits lies elsewhere now, which is to be committed. */
static bool write_out(struct supervisor *s, struct leg *to)
{
    if (to->io.fd < 0 || to->cut || to->blocked)
        return false;
    const bool moved = to->direct_len && write_direct(s, to);
    return to->out.len && !to->blocked && !to->cut ? write_chain(s, to) : moved;
}

/* What was written is given back only when no point has it any more. */
static void drop_spent(struct supervisor *s, struct leg *leg)
{
    if (leg->spent)
        chain_drop(&s->buffers, &leg->out, leg->spent);
    leg->spent = 0;
}

void turn_settle(struct supervisor *s, struct session *x)
{
    survive_commit(s, x);
    const bool client = write_out(s, &x->client), backend = write_out(s, &x->backend);
    if (client || backend) {
        die_here(DIE_BEFORE_SECOND_COMMIT);
        survive_commit(s, x);
    }
    die_here(DIE_BEFORE_DROP);
    drop_spent(s, &x->client);
    drop_spent(s, &x->backend);
    die_here(DIE_AFTER_TURN);
}

void turn_begin(struct session *x)
{
    x->turn++;
}

void turn_end(struct supervisor *s, struct session *x)
{
    if (--x->turn == 0 && x->state != SESSION_ENDED)
        turn_settle(s, x);
}

static bool is_read_there(const struct supervisor *s, const uint8_t *bytes)
{
    return bytes >= s->buffer && bytes < s->buffer + SUPERVISOR_READ + FRAMES_CONTROL_MAX;
}

/* Behind what waits already. */
static bool stage(struct supervisor *s, struct leg *to, const uint8_t *bytes, size_t len)
{
    if (!to->out.len && is_read_there(s, bytes) &&
        (!to->direct_len || bytes == to->direct + to->direct_len)) {
        if (!to->direct_len)
            to->direct = bytes;
        to->direct_len += (uint32_t)len;
    } else if (!chain_append(&s->buffers, &to->out, bytes, len)) {
        to->cut = true; /* no memory: half a frame is worse than none */
        return false;
    }
    to->written_at += len;
    return true;
}

bool leg_put(struct supervisor *s, struct leg *to, const uint8_t *bytes, size_t len)
{
    struct session *x = to->session;
    if (to->io.fd < 0 || to->cut || !stage(s, to, bytes, len))
        return false;
    if (!x->turn)
        turn_settle(s, x);
    return !to->cut;
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
    to->blocked = false;
    if (write_out(s, to))
        survive_commit(s, to->session);
    drop_spent(s, to);
}
