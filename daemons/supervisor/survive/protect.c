/* SPDX-License-Identifier: BSD-2-Clause */
/* protect: see survive.h. */
#include "daemons/supervisor/survive/worker.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define TELL_MS 200 /* so long the custodian may be busy */

/* ---- numbers that are free ---- */

static bool ring_init(struct ring *r, uint32_t size)
{
    r->size = size;
    r->at = mmap(NULL, size * sizeof *r->at, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return r->at != MAP_FAILED;
}

bool ring_put(struct ring *r, uint32_t n)
{
    if (r->n == r->size)
        return false;
    r->at[(r->first + r->n++) % r->size] = n;
    return true;
}

static bool ring_take(struct ring *r, uint32_t *n)
{
    if (!r->n)
        return false;
    *n = r->at[r->first];
    r->first = (r->first + 1) % r->size;
    r->n--;
    return true;
}

/* ---- notes ---- */

/* It has been waited for once: until it takes a message again, nothing waits any more. */
static bool wait_for_custodian(struct survivor *v)
{
    struct pollfd p = {.fd = v->channel, .events = POLLOUT};
    if (v->deaf)
        return false;
    v->deaf = poll(&p, 1, TELL_MS) != 1;
    if (v->deaf)
        log_error("custodian: it takes no messages: WebSockets that begin would not survive this "
                  "process");
    return !v->deaf;
}

bool survivor_tell(struct survivor *v, enum note_kind kind, uint32_t number, int fd)
{
    const struct note note = {.kind = kind, .number = number};
    const size_t len = offsetof(struct note, text);
    const bool sent = note_send(v->channel, &note, len, fd) ||
                      (errno == EAGAIN && (fd >= 0 || kind == NOTE_READY) &&
                       wait_for_custodian(v) && note_send(v->channel, &note, len, fd));
    if (sent && v->deaf)
        log_info("custodian: it takes messages again");
    v->deaf &= !sent;
    return sent;
}

void survive_say(const struct supervisor *s, const char *text)
{
    struct note note = {.kind = NOTE_SAY};
    const size_t len = strlen(text);
    if (!s->survivor) {
        sd_notify(0, text);
        return;
    }
    memcpy(note.text, text, len < sizeof note.text ? len : sizeof note.text - 1);
    note_send(s->survivor->channel, &note, sizeof note, -1);
}

/* Until the custodian has heard it: without it what is here would be another's. */
static void say_ready(struct survivor *v)
{
    v->unready = !survivor_tell(v, NOTE_READY, 0, -1);
}

void survive_heartbeat(const struct supervisor *s)
{
    struct survivor *v = s->survivor;
    if (!v)
        return;
    atomic_fetch_add(&v->segment->heartbeats, 1);
    if (v->unready)
        say_ready(v);
}

void survive_read_again(const struct supervisor *s)
{
    if (s->survivor)
        survivor_tell(s->survivor, NOTE_READ_AGAIN, 0, -1);
}

void survive_ready(struct supervisor *s)
{
    survive_heartbeat(s);
    if (s->survivor)
        say_ready(s->survivor);
    else
        sd_notify(0, "READY=1");
}

void survive_signals(const struct supervisor *s)
{
    static const int others[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; s->survivor && i < sizeof others / sizeof *others; i++)
        signal(others[i], SIG_IGN);
}

static void custodian_says(struct supervisor *s, uint32_t what, const char *text)
{
    s->survived = s->survivor->segment->survived; /* has come over */
    s->on_custodian_says(s, what, text);
}

/* Takes fd. */
static void custodian_wants(struct supervisor *s, const struct note *note, int fd)
{
    if (note->kind == NOTE_HAND_OVER) {
        s->on_hand_over(s, fd);
        return;
    }
    if (fd >= 0)
        close(fd);
    s->on_pack(s);
}

static void answer(const struct supervisor *s, enum note_kind kind, uint32_t number,
                   const char *text, int fd)
{
    struct note note = {.kind = kind, .number = number};
    struct pollfd room = {.fd = s->survivor->channel, .events = POLLOUT};
    snprintf(note.text, sizeof note.text, "%s", text);
    if (note_send(room.fd, &note, sizeof note, fd))
        return;
    poll(&room, 1, TELL_MS); /* where it hears nothing, it waits in vain, and goes on without */
    note_send(room.fd, &note, sizeof note, fd);
}

void survive_packed(const struct supervisor *s, int block, const char *why)
{
    answer(s, NOTE_PACKED, 0, why, block);
}

void survive_handed_over(const struct supervisor *s, const char *why)
{
    answer(s, NOTE_HANDED_OVER, *why != 0, why, -1);
}

static void on_note(struct ev_loop *loop, ev_io *w, int revents)
{
    struct note note;
    int fd, code;
    (void)revents;
    while ((code = note_receive(w->fd, &note, &fd)) > 0) {
        if (note.kind == NOTE_PACK || note.kind == NOTE_HAND_OVER) {
            custodian_wants(ev_userdata(loop), &note, fd);
            continue;
        }
        if (fd >= 0)
            close(fd);
        if (note.kind == NOTE_SIGNAL && note.number < NSIG)
            ev_feed_signal_event(loop, (int)note.number);
        else if (note.kind == NOTE_CUSTODIAN)
            custodian_says(ev_userdata(loop), note.number, note.text);
    }
    if (code < 0)
        ev_io_stop(loop, w); /* the kernel kills us for it */
}

/* ---- blocks ---- */

static struct buffer *block_make(void *arg)
{
    struct survivor *v = arg;
    uint32_t i;
    if (!ring_take(&v->blocks, &i)) {
        if (v->segment->blocks_used >= SEGMENT_BLOCKS)
            return NULL;
        i = v->segment->blocks_used++;
    }
    return segment_block(v->segment, i);
}

void survivor_free_block(struct survivor *v, struct buffer *b)
{
    const uint32_t i = segment_block_index(v->segment, b);
    madvise(b, SEGMENT_BLOCK, MADV_REMOVE);
    ring_put(&v->blocks, i);
}

static void block_unmake(void *arg, struct buffer *b)
{
    survivor_free_block(arg, b);
}

/* ---- the loop's own descriptor ---- */

/* The number by which the kernel knows the loop: of a descriptor that another process holds too,
 * close() leaves it events. Asked whether it knows one that it cannot, only an epoll says so. */
static int find_epoll(int other)
{
    for (int fd = 0; fd < 1024; fd++)
        if (epoll_ctl(fd, EPOLL_CTL_DEL, other, NULL) == 0 || errno == ENOENT)
            return fd;
    return -1;
}

void survive_close(struct supervisor *s, int fd)
{
    struct survivor *v = s->survivor;
    if (v && epoll_ctl(v->epoll, EPOLL_CTL_DEL, fd, NULL) < 0 && errno != ENOENT && errno != EPERM)
        v->epoll = find_epoll(fd);
    close(fd);
}

/* ---- slots ---- */

uint64_t survivor_route_hash(const struct config_route *route)
{
    return XXH3_64bits(route->pattern, strlen(route->pattern));
}

static struct slot *take_slot(struct survivor *v)
{
    struct segment *g = v->segment;
    uint32_t i;
    if (v->slots.n) {
        struct slot *first = segment_slot(g, v->slots.at[v->slots.first]);
        if (atomic_load_explicit(&first->phase, memory_order_acquire) == SLOT_FREE) {
            ring_take(&v->slots, &i);
            return first;
        }
    }
    i = atomic_load(&g->used);
    if (i >= SEGMENT_SLOTS)
        return NULL;
    atomic_store(&g->used, i + 1);
    return segment_slot(g, i);
}

void survivor_let(struct survivor *v, struct slot *slot)
{
    const uint32_t i = segment_slot_index(v->segment, slot);
    die_here(DIE_GOING);
    atomic_store_explicit(&slot->phase, SLOT_GONE, memory_order_release);
    die_here(DIE_GONE);
    if (!survivor_tell(v, NOTE_LET, i, -1))
        atomic_store(&v->segment->missed, 1);
    ring_put(&v->slots, i);
}

void survive_asking(struct supervisor *s, struct session *x)
{
    struct survivor *v = s->survivor;
    struct slot *slot = v ? take_slot(v) : NULL;
    if (!slot)
        return;
    memset((char *)slot + sizeof slot->phase, 0, sizeof *slot - sizeof slot->phase);
    slot->probe = x->probe;
    slot->ip = x->count->ip;
    slot->id = x->id;
    slot->route = survivor_route_hash(x->route);
    if (x->client_id)
        snprintf(slot->client_id, sizeof slot->client_id, "%s", x->client_id);
    v->segment->next_id = s->next_id;
    atomic_store_explicit(&slot->phase, SLOT_ASKING, memory_order_release);
    if (x->client.io.fd < 0 ||
        survivor_tell(v, NOTE_KEEP_CLIENT, segment_slot_index(v->segment, slot), x->client.io.fd))
        x->slot = slot;
    else
        survivor_let(v, slot);
}

void survive_answered(struct session *x)
{
    if (x->slot)
        atomic_store_explicit(&x->slot->phase, SLOT_ANSWERED, memory_order_release);
}

void survive_taken(const struct session *x)
{
    if (x->slot && atomic_load_explicit(&x->slot->tried, memory_order_relaxed))
        atomic_store_explicit(&x->slot->tried, 0, memory_order_relaxed);
}

void survive_ended(struct supervisor *s, struct session *x)
{
    if (!x->slot)
        return;
    survivor_let(s->survivor, x->slot);
    x->slot = NULL;
}

/* ---- points ---- */

/* What waits, behind the bytes of the chain that are out already. */
static void fill_chain(const struct segment *g, const struct leg *leg, struct point_leg *p)
{
    size_t spent = leg->spent;
    const struct buffer *b = leg->out.len > spent ? STAILQ_FIRST(&leg->out.list) : NULL;
    p->chain_len = (uint32_t)(leg->out.len - spent);
    while (b && spent >= b->end - b->start) {
        spent -= b->end - b->start;
        b = STAILQ_NEXT(b, next);
    }
    p->chain_block = segment_block_index(g, b);
    p->chain_skip = b ? b->start + (uint32_t)spent : 0;
}

static void fill_leg(const struct supervisor *s, const struct leg *leg, struct point_leg *p)
{
    const struct segment *g = s->survivor->segment;
    p->read_at = leg->read_at;
    p->written_at = leg->written_at;
    p->in = leg->in;
    p->direct_len = leg->direct_len;
    p->direct_at = leg->direct_len ? (uint32_t)(leg->direct - g->buffer) : 0;
    fill_chain(g, leg, p);
    p->stash_block = segment_block_index(g, leg->stash);
    p->stash_len = leg->stash ? (uint8_t)leg->stash->end : 0;
    p->pings_out = leg->pings_out;
    p->fin = leg->fin;
    p->closed = leg->io.fd < 0;
}

static void fill_numbers(const struct session *x, struct slot *slot)
{
    slot->opened_ms = x->opened_ms;
    slot->to_client_ms = x->to_client_ms;
    slot->from_client_ms = x->from_client_ms;
    slot->moved_ms = x->moved_ms;
    slot->deadline_ms = x->deadline_ms;
    slot->pinged_ms[0] = x->client.pinged_ms;
    slot->pinged_ms[1] = x->backend.pinged_ms;
    slot->bytes = x->bytes;
    slot->messages_in = x->messages_in;
    slot->messages_out = x->messages_out;
}

void survive_commit(struct supervisor *s, struct session *x)
{
    struct slot *slot = x->slot;
    if (!slot || atomic_load_explicit(&slot->phase, memory_order_relaxed) == SLOT_ANSWERED)
        return;
    const uint32_t other = 1 - atomic_load_explicit(&slot->current, memory_order_relaxed);
    struct point *p = &slot->point[other];
    fill_leg(s, &x->client, &p->leg[0]);
    fill_leg(s, &x->backend, &p->leg[1]);
    p->base = (uintptr_t)s->survivor->segment;
    p->close_code = x->close_code;
    p->state = x->state;
    p->end = x->end;
    p->goodbye = x->goodbye;
    p->untold = x->untold;
    die_here(DIE_BEFORE_COMMIT);
    atomic_store_explicit(&slot->current, other, memory_order_release);
    die_here(DIE_AFTER_COMMIT);
    fill_numbers(x, slot);
    if (atomic_load_explicit(&slot->phase, memory_order_relaxed) == SLOT_ASKING)
        atomic_store_explicit(&slot->phase, SLOT_OPEN, memory_order_release);
}

/* First no successor wants it any more. */
void survive_leg_closed(struct supervisor *s, const struct leg *leg, int fd)
{
    struct survivor *v = s->survivor;
    struct session *x = leg->session;
    const bool client = leg == &x->client;
    if (!x->slot)
        return;
    const bool is_open = atomic_load(&x->slot->phase) == SLOT_OPEN;
    if (is_open)
        survive_commit(s, x);
    if ((client || is_open) && !survivor_tell(v, client ? NOTE_LET_CLIENT : NOTE_LET_BACKEND,
                                              segment_slot_index(v->segment, x->slot), -1))
        shutdown(fd, SHUT_RDWR);
}

/* Its counts are the kernel's from here on. */
static bool begin_leg(struct leg *leg)
{
    struct positions p = {0};
    const int one = 1;
    if (leg->io.fd < 0)
        return true;
    setsockopt(leg->io.fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
    const enum positions_found found = positions_of(leg->io.fd, &p);
    leg->read_at = p.read;
    leg->written_at = p.written + leg->out.len;
    return found != POSITIONS_GONE;
}

void survive_opened(struct supervisor *s, struct session *x)
{
    struct survivor *v = s->survivor;
    if (!x->slot)
        return;
    x->slot->local = x->subscription != NULL;
    if (!begin_leg(&x->client) || !begin_leg(&x->backend) ||
        (x->backend.io.fd >= 0 &&
         !survivor_tell(v, NOTE_KEEP_BACKEND, segment_slot_index(v->segment, x->slot),
                        x->backend.io.fd)))
        survive_ended(s, x);
}

void survive_adopt(struct supervisor *s, struct session *x)
{
    survive_asking(s, x);
    if (x->state == SESSION_REFUSING)
        survive_answered(x);
    if (x->state != SESSION_OPEN && x->state != SESSION_CLOSING)
        return;
    survive_opened(s, x);
    survive_commit(s, x);
}

void survive_reading(struct supervisor *s, const struct leg *leg, size_t have)
{
    const struct slot *slot = leg->session->slot;
    if (!slot)
        return;
    struct segment *g = s->survivor->segment;
    g->reading = (struct reading){segment_slot_index(g, slot), leg == &leg->session->backend,
                                  (uint32_t)have, leg->read_at};
    atomic_signal_fence(memory_order_seq_cst);
}

/* ---- links ---- */

void survive_link(struct supervisor *s, int fd)
{
    struct survivor *v = s->survivor;
    for (uint32_t i = 0; v && i < CUSTODIAN_LINKS; i++)
        if (v->link[i] == fd)
            return; /* is known from a predecessor */
    for (uint32_t i = 0; v && i < CUSTODIAN_LINKS; i++)
        if (v->link[i] < 0) {
            v->link[i] = survivor_tell(v, NOTE_KEEP_LINK, i, fd) ? fd : -1;
            return;
        }
}

void survive_link_closed(struct supervisor *s, int fd)
{
    struct survivor *v = s->survivor;
    for (uint32_t i = 0; v && i < CUSTODIAN_LINKS; i++)
        if (v->link[i] == fd) {
            v->link[i] = -1;
            if (!survivor_tell(v, NOTE_LET_LINK, i, -1))
                shutdown(fd, SHUT_RDWR);
            return;
        }
}

void survive_servers(struct supervisor *s, int fd)
{
    if (s->survivor)
        survivor_tell(s->survivor, NOTE_SERVERS, 0, fd);
}

/* ---- begin and end ---- */

bool survive_begin(struct supervisor *s, struct custodian *c)
{
    struct survivor *v = s->survivor = calloc(1, sizeof *v);
    if (!v || !ring_init(&v->slots, SEGMENT_SLOTS) || !ring_init(&v->blocks, SEGMENT_BLOCKS))
        return false;
    v->custodian = c;
    v->segment = c->segment;
    v->channel = c->channel;
    v->epoll = find_epoll(v->channel);
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        v->link[i] = -1;
    buffer_pool_init(&s->buffers, SEGMENT_BLOCK - sizeof(struct buffer), SUPERVISOR_CHUNKS);
    s->buffers.make = block_make;
    s->buffers.unmake = block_unmake;
    s->buffers.arg = v;
    s->buffer = v->segment->buffer;
    while (!v->segment->ping_secret)
        v->segment->ping_secret = random_next(&s->random);
    s->ping_secret = v->segment->ping_secret;
    ev_io_init(&v->io, on_note, v->channel, EV_READ);
    ev_io_start(s->loop, &v->io);
    return true;
}

void survive_end(struct supervisor *s)
{
    struct survivor *v = s->survivor;
    if (!v)
        return;
    ev_io_stop(s->loop, &v->io);
    s->survivor = NULL;
    free(v);
}
