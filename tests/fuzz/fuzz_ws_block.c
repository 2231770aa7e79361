/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_ws_block: sessions in a state block, as a program finds them that takes WebSockets over. Any
 * values in any order: nothing is read beyond the end of the block, and a record that is taken for
 * sound is written and read again the same.
 *
 * The input is a list of values for one record: a byte that is its kind and, for bytes and texts,
 * its length; then the value. So that deep states are found, they need not be guessed with their
 * headers.
 */
#include "daemons/supervisor/carry/block.c"
#include "daemons/supervisor/carry/record_sound.c"
#include "daemons/supervisor/ws/inflate_count.c"

#include <stdio.h>
#include <unistd.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t sum;

static void touch(struct bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        sum += ((const uint8_t *)b.at)[i];
}

/* All that a session would be made of. */
static void touch_session(const struct session_record *x)
{
    const struct pending_record *p = x->pending;
    touch(x->client.out), touch(x->client.stash), touch(x->backend.out), touch(x->backend.stash);
    sum += strlen(x->route) + strlen(x->client_id);
    check(x->client.stash.len < FRAMES_CONTROL_MAX && x->backend.stash.len < FRAMES_CONTROL_MAX);
    if (p) {
        touch(p->limits), touch(p->head), touch(p->pipelined), touch(p->answer);
        sum += strlen(p->failed_why);
    }
    for (uint32_t i = 0; x->subscription && i < x->subscription->n_tags; i++)
        sum += strlen(x->subscription->tags[i]);
    if (x->line)
        touch((struct bytes){x->line->target.at, x->line->target.len});
    for (int i = 0; i < 2; i++) {
        const struct inflate_packed *e = i ? x->backend.expanded : x->client.expanded;
        struct inflate_count *c = e ? inflate_count_unpack(e) : NULL;
        static const uint8_t more[64] = {0xa5, 0x3c, 0x99, 0x07, 0xff, 0x10, 0x6b},
                             mask[4] = {1, 2, 3, 4};
        check(!e || c);
        if (c)
            sum += inflate_count_feed(c, more, sizeof more, mask, 0, UINT64_MAX);
        inflate_count_free(c);
    }
}

static bool read_one(int fd, struct carry_session *to, struct state_reader *r)
{
    check(state_reader_open(r, fd, STATE_OF_SUPERVISOR, CARRY_HIGHEST) == 0);
    r->copy = true;
    check(state_next(r) != 0);
    return carry_get_session(r, to);
}

static void read_session(int fd)
{
    static struct carry_session a, b;
    struct state_reader r, again;
    struct state_writer w;
    if (!read_one(fd, &a, &r)) {
        check(r.why[0]);
        state_reader_close(&r);
        return;
    }
    touch_session(&a.record);
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    carry_put_session(&w, &a.record);
    const int copy = state_writer_close(&w);
    check(copy >= 0 && read_one(copy, &b, &again));
    check(a.record.id == b.record.id && a.record.state == b.record.state &&
          a.record.client.out.len == b.record.client.out.len &&
          !memcmp(&a.record.client.in, &b.record.client.in, sizeof a.record.client.in));
    state_reader_close(&again);
    state_reader_close(&r);
    close(copy);
}

static void read_leaving(int fd)
{
    struct carry_leaving l;
    struct state_reader r;
    check(state_reader_open(&r, fd, STATE_OF_SUPERVISOR, CARRY_HIGHEST) == 0);
    r.copy = true;
    check(state_next(&r) != 0);
    if (carry_get_leaving(&r, &l))
        for (struct bytes piece; (piece = carry_get_piece(&r, &l)).len;)
            touch(piece);
    state_reader_close(&r);
}

static size_t put_one(struct state_writer *w, const uint8_t *data, size_t size)
{
    uint64_t number = 0;
    char text[64] = "";
    const unsigned kind = data[0] & 3;
    size_t n = data[0] >> 2, head = 1;
    if (n == 63 && size > 3) { /* long ones */
        n = data[1] | (size_t)data[2] << 8;
        head = 3;
    }
    n = n < size - head ? n : size - head;
    data += head;
    switch (kind) {
    case 0:
        memcpy(&number, data, n < 8 ? n : 8);
        state_put_u64(w, number);
        break;
    case 1:
        memcpy(text, data, n < 63 ? n : 63);
        state_put_text(w, text);
        break;
    case 2:
        state_put_bytes(w, data, n);
        break;
    default:
        state_put_fd(w, n ? data[0] : -1, STATE_FD_SOCKET);
        break;
    }
    return n + head;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_writer w;
    if (size < 1)
        return 0;
    const bool leaves = data[0] & 1;
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1");
    state_record(&w, leaves ? CARRY_LEAVING : CARRY_SESSION, 0);
    for (size_t at = 1; at < size;)
        at += put_one(&w, data + at, size - at);
    const int fd = state_writer_close(&w);
    check(fd >= 0);
    (leaves ? read_leaving : read_session)(fd);
    close(fd);
    return 0;
}
