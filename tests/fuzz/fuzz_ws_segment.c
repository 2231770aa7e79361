/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_ws_segment: the shared memory that a killed process leaves, as its successor reads it. The
 * input changes bytes of a state that is sound: three WebSockets, with chains of blocks and half
 * read frames, and two handshakes. Whatever stands there then, nothing is read outside, nothing is
 * given back twice or while it is in use, and each descriptor ends in one place.
 *
 * The first byte says which part; in the other one the segment's file is made by the input.
 */
#include "daemons/supervisor/survive/segment.c"

static int end_of_descriptor(int fd);
#define close end_of_descriptor /* recover.c has numbers that no descriptor has */
#include "daemons/supervisor/survive/recover.c"
#undef close

#include <stdio.h>

#define SLOTS   5
#define OPEN    3
#define BLOCKS  8
#define FD_BASE 1000 /* numbers that no descriptor has */

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct {
    struct segment *g;
    struct supervisor s;
    struct survivor v;
    struct custodian c;
    struct kept kept[SLOTS];
    struct config config;
    struct config_route route;
    struct config_websocket ws;
    struct {
        enum positions_found found;
        struct positions at;
    } kernel[SLOTS][2];
    struct session sessions[SLOTS];
    unsigned n_sessions;
    uint8_t fd_ended[SLOTS * 2];
    uint8_t block_freed[BLOCKS];
} rig;
static uint64_t sum;

static void touch(struct bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        sum += ((const uint8_t *)b.at)[i];
}

static void end_fd(int fd)
{
    if (fd < 0)
        return;
    check(fd >= FD_BASE && fd < FD_BASE + SLOTS * 2);
    check(!rig.fd_ended[fd - FD_BASE]++);
}

/* ---- what it is surrounded by ---- */

static int end_of_descriptor(int fd)
{
    end_fd(fd);
    return 0;
}

enum positions_found positions_of(int fd, struct positions *p)
{
    check(fd >= FD_BASE && !rig.fd_ended[fd - FD_BASE]);
    *p = rig.kernel[(fd - FD_BASE) / 2][(fd - FD_BASE) % 2].at;
    return rig.kernel[(fd - FD_BASE) / 2][(fd - FD_BASE) % 2].found;
}

uint64_t survivor_route_hash(const struct config_route *route)
{
    return route->index + 7;
}

void survivor_free_block(struct survivor *v, struct buffer *b)
{
    const uint32_t i = segment_block_index(v->segment, b);
    check((char *)b >= (char *)v->segment + SEGMENT_BLOCKS_AT && segment_block(v->segment, i) == b);
    check(i < SEGMENT_BLOCKS);
    if (i < BLOCKS)
        check(!rig.block_freed[i]++);
}

bool survivor_tell(struct survivor *v, enum note_kind kind, uint32_t number, int fd)
{
    check(kind == NOTE_LET_BACKEND || kind == NOTE_LET_CLIENT);
    check(number < SEGMENT_SLOTS);
    return true;
}

void survivor_let(struct survivor *v, struct slot *slot)
{
    check(segment_slot_index(v->segment, slot) < SEGMENT_SLOTS);
    atomic_store(&slot->phase, SLOT_GONE);
}

bool ring_put(struct ring *r, uint32_t n)
{
    check(n < SEGMENT_SLOTS);
    return true;
}

struct session *session_resume(struct supervisor *s, const struct config_route *route,
                               const struct session_record *r)
{
    check(route == &rig.route && strlen(r->client_id) <= CLIENT_ID_MAX);
    check(r->state == SESSION_OPEN || r->state == SESSION_CLOSING);
    check(r->client.stash.len < FRAMES_CONTROL_MAX && r->backend.stash.len < FRAMES_CONTROL_MAX);
    touch(r->client.out), touch(r->client.stash), touch(r->backend.out), touch(r->backend.stash);
    end_fd(r->client.fd);
    end_fd(r->backend.fd);
    if (r->moved_ms == 1) /* no memory */
        return NULL;
    check(rig.n_sessions < SLOTS);
    struct session *x = &rig.sessions[rig.n_sessions++];
    *x = (struct session){.state = r->state};
    x->client.session = x->backend.session = x;
    x->client.io.fd = r->client.fd;
    x->backend.io.fd = r->backend.fd;
    x->client.in = r->client.in;
    x->backend.in = r->backend.in;
    if (r->client.stash.len) {
        x->client.stash = calloc(1, SEGMENT_BLOCK);
        x->client.stash->end = (uint32_t)r->client.stash.len;
    }
    if (r->backend.stash.len) {
        x->backend.stash = calloc(1, SEGMENT_BLOCK);
        x->backend.stash->end = (uint32_t)r->backend.stash.len;
    }
    return x;
}

void buffer_put(struct buffer_pool *pool, struct buffer *b)
{
    free(b);
}

void relay_take(struct supervisor *s, struct leg *leg, size_t have, size_t n)
{
    struct frames_piece piece;
    check(have + n <= sizeof rig.g->buffer);
    frames_next(&leg->in, s->buffer, have + n, 0, &piece);
}

void survive_commit(struct supervisor *s, struct session *x)
{
    const uint32_t other = 1 - atomic_load(&x->slot->current);
    check(other <= 1);
    x->slot->point[other].leg[0].read_at = x->client.read_at;
    atomic_store(&x->slot->current, other);
}

void session_close_with(struct supervisor *s, struct session *x, struct farewell client,
                        struct farewell backend, enum session_end why)
{
    x->state = SESSION_CLOSING;
}
void session_close(struct supervisor *s, struct session *x, uint16_t code, const char *reason,
                   enum session_end why)
{
    x->state = SESSION_CLOSING;
}
void session_end(struct supervisor *s, struct session *x, enum session_end why)
{
    x->state = SESSION_ENDED;
}
void session_close_due(struct supervisor *s, struct session *x)
{
}
void heartbeat_arm(struct supervisor *s, struct session *x)
{
}
void relay_watch(struct supervisor *s, struct session *x)
{
}
struct access_line ws_line_taken_up(const struct config_route *route, const struct clientip *ip)
{
    return (struct access_line){.client = *ip};
}
size_t refuse(struct supervisor *s, int fd, const struct refusal *r, struct lines limits)
{
    end_fd(fd);
    return 0;
}
void intake_take_link(struct supervisor *s, int fd)
{
}
void servers_take_table(struct supervisor *s, int fd)
{
}

/* ---- the state that it was left in ---- */

static void put_block(uint32_t i, uint32_t next, uint32_t start, uint32_t end)
{
    struct buffer *b = segment_block(rig.g, i);
    STAILQ_NEXT(b, next) = next == NO_BLOCK ? NULL : segment_block(rig.g, next);
    b->start = start;
    b->end = end;
    memset(b->data, 'a' + (int)i, 64);
}

static void put_open(uint32_t i)
{
    struct slot *slot = segment_slot(rig.g, i);
    struct point *p = &slot->point[0];
    atomic_store(&slot->phase, SLOT_OPEN);
    slot->id = i + 1;
    slot->route = 7;
    snprintf(slot->client_id, sizeof slot->client_id, "client-%u", i);
    p->base = (uintptr_t)rig.g;
    p->state = i == 2 ? SESSION_CLOSING : SESSION_OPEN;
    for (unsigned leg = 0; leg < 2; leg++) {
        struct point_leg *l = &p->leg[leg];
        l->in.from_client = leg == 0;
        l->read_at = l->written_at = 1000;
        l->chain_block = l->stash_block = NO_BLOCK;
        rig.kernel[i][leg].at = (struct positions){1000, 1000};
    }
}

/* The first one waits to be written from the buffer and a chain of three, and was being read
 * behind a stash; the second one has a chain and a stash. */
static void put_all(void)
{
    struct segment *g = rig.g;
    for (uint32_t i = 0; i < OPEN; i++)
        put_open(i);
    atomic_store(&segment_slot(g, 3)->phase, SLOT_ASKING);
    atomic_store(&segment_slot(g, 4)->phase, SLOT_ANSWERED);
    struct point_leg *l = &segment_slot(g, 0)->point[0].leg[1];
    l->direct_at = 100, l->direct_len = 50;
    l->chain_block = 0, l->chain_skip = 10, l->chain_len = 54 + 64 + 20;
    l->written_at = 1000 + 188;
    put_block(0, 1, 10, 64), put_block(1, 2, 0, 64), put_block(2, NO_BLOCK, 0, 64);
    l = &segment_slot(g, 0)->point[0].leg[0];
    l->stash_block = 3, l->stash_len = 5;
    put_block(3, NO_BLOCK, 0, 5);
    rig.kernel[0][0].at.read = 1000 + 40;
    g->reading = (struct reading){0, 0, 5, 1000};
    l = &segment_slot(g, 1)->point[0].leg[0];
    l->chain_block = 4, l->chain_len = 100, l->written_at = 1100;
    put_block(4, 5, 0, 64), put_block(5, NO_BLOCK, 0, 64);
    l = &segment_slot(g, 1)->point[0].leg[1];
    l->stash_block = 6, l->stash_len = 3;
    put_block(6, NO_BLOCK, 0, 3);
    put_block(7, NO_BLOCK, 0, 0);
    atomic_store(&g->used, SLOTS);
    g->blocks_used = BLOCKS;
}

static void rig_begin(void)
{
    static int fd = -1;
    struct segment *const g = rig.g;
    memset(&rig, 0, sizeof rig);
    rig.g = g ? g : segment_new_fd(&fd);
    check(rig.g);
    memset((char *)rig.g + offsetof(struct segment, heartbeats), 0,
           offsetof(struct segment, buffer) - offsetof(struct segment, heartbeats) + 512);
    memset(segment_slot(rig.g, 0), 0, SLOTS * sizeof(struct slot));
    put_all();
    for (int i = 0; i < SLOTS; i++) {
        rig.kept[i] = (struct kept){{FD_BASE + 2 * i, FD_BASE + 2 * i + 1}};
        rig.route.websocket = &rig.ws;
    }
    rig.kept[3].fd[1] = rig.kept[4].fd[1] = -1;
    rig.config.routes = &rig.route;
    rig.config.n_routes = 1;
    rig.c.segment = rig.v.segment = rig.g;
    rig.c.kept = rig.kept;
    rig.c.n_kept = SLOTS;
    rig.c.deaths = 1;
    rig.c.servers = -1;
    for (int i = 0; i < CUSTODIAN_LINKS; i++)
        rig.c.link[i] = -1;
    rig.v.custodian = &rig.c;
    rig.s.config = &rig.config;
    rig.s.survivor = &rig.v;
    rig.s.buffer = rig.g->buffer;
}

/* Where it is changed; NULL: nowhere. */
static uint8_t *place(unsigned target, size_t at, size_t *room)
{
    const size_t header = offsetof(struct segment, buffer) - offsetof(struct segment, heartbeats);
    struct {
        void *at;
        size_t len;
    } places[3 + SLOTS + BLOCKS] = {
        {&rig.g->heartbeats, header}, {rig.kernel, sizeof rig.kernel}, {&rig.c.give_up, 1}};
    for (unsigned i = 0; i < SLOTS; i++)
        places[3 + i].at = segment_slot(rig.g, i), places[3 + i].len = sizeof(struct slot);
    for (unsigned i = 0; i < BLOCKS; i++)
        places[3 + SLOTS + i].at = segment_block(rig.g, i),
                           places[3 + SLOTS + i].len = sizeof(struct buffer);
    target %= 3 + SLOTS + BLOCKS;
    at %= places[target].len;
    *room = places[target].len - at;
    return (uint8_t *)places[target].at + at;
}

static void change(const uint8_t *data, size_t size)
{
    while (size > 4) {
        size_t room, n = data[3] % 9;
        uint8_t *to = place(data[0], data[1] | (size_t)data[2] << 8, &room);
        data += 4, size -= 4;
        n = n < size ? n : size;
        memcpy(to, data, n < room ? n : room);
        data += n, size -= n;
    }
    check(segment_used(rig.g) <= SEGMENT_SLOTS);
    /* these are no part of it; and numbers that cost time */
    *(uint8_t *)&rig.c.give_up &= 1;
    for (int i = 0; i < SLOTS * 2; i++)
        rig.kernel[i / 2][i % 2].found = *(uint8_t *)&rig.kernel[i / 2][i % 2].found % 3;
    if (rig.g->blocks_used > 10000 && rig.g->blocks_used != UINT32_MAX)
        rig.g->blocks_used = 10000;
    if (atomic_load(&rig.g->used) > 10000)
        atomic_store(&rig.g->used, 10000);
}

static void recover(const uint8_t *data, size_t size)
{
    rig_begin();
    change(data, size);
    survive_recover(&rig.s);
    for (unsigned i = 0; i < SLOTS && atomic_load(&rig.g->used) >= SLOTS; i++) {
        const uint32_t phase = atomic_load(&segment_slot(rig.g, i)->phase);
        check(phase <= SLOT_GONE);
        check(phase != SLOT_ASKING && phase != SLOT_ANSWERED);
    }
    for (unsigned i = 0; i < rig.n_sessions; i++) {
        free(rig.sessions[i].client.stash);
        free(rig.sessions[i].backend.stash);
    }
}

/* A file of any size and beginning is mapped if it is what this version makes, and else not. */
static void map_file(const uint8_t *data, size_t size)
{
    static const size_t sizes[] = {0,
                                   1,
                                   4096,
                                   sizeof(struct segment),
                                   SEGMENT_SIZE - 1,
                                   SEGMENT_SIZE + 4096,
                                   SEGMENT_SIZE,
                                   SEGMENT_SIZE};
    struct segment head = {
        .layout = SEGMENT_LAYOUT, .slot_size = sizeof(struct slot), .size = SEGMENT_SIZE};
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (size < 1 || fd < 0)
        return;
    const size_t len = sizes[data[0] % 8], n = size - 1 < 16 ? size - 1 : 16;
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)&head)[i] ^= data[1 + i];
    check(ftruncate(fd, (off_t)len) == 0);
    check(pwrite(fd, &head, len < 16 ? len : 16, 0) >= 0);
    struct segment *g = segment_map(fd);
    check(!g || (len == SEGMENT_SIZE && g->layout == SEGMENT_LAYOUT && g->size == SEGMENT_SIZE));
    if (g)
        sum += atomic_load(&segment_slot(g, SEGMENT_SLOTS - 1)->phase);
    segment_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_set_level(LOG_LEVEL_ERROR);
    if (size && data[0] & 1)
        recover(data + 1, size - 1);
    else if (size)
        map_file(data + 1, size - 1);
    return 0;
}
