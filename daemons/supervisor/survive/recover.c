/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * recover: takes up what a predecessor was killed over: what it held, what it was reading, what it
 * had not written. Killed in the middle of this, the next one finds the same, or what was committed
 * meanwhile.
 *
 * What cannot be taken up without doubt is not: the client gets 1012 where its side is certain,
 * else its connection ends.
 */
#include "daemons/supervisor/carry/record.h"
#include "daemons/supervisor/survive/worker.h"
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIED_MAX 3 /* then what was read seems to be what kills */

/* A leg as it was left. */
struct left_leg {
    int fd;           /* -1: the session goes on without it */
    bool gone;        /* its peer is */
    bool doubted;     /* nothing may be written to it any more */
    uint32_t unseen;  /* bytes in the buffer that no point has */
    uint32_t missing; /* bytes that are to be written still */
};
struct left {
    struct slot *slot;
    struct point then;
    struct left_leg leg[2];
    const char *doubt; /* NULL: it goes on */
};
struct recovery {
    struct supervisor *s;
    struct survivor *v;
    struct left *left; /* of WebSockets */
    uint32_t n;
    uint8_t *live; /* a bit for each block */
    bool twice;    /* one was marked again */
    uint32_t kept, closed, ended, refused, unseen, missing;
    const char *why; /* the last of those closed */
};

/* ---- is it what a process can have left? ---- */

static bool is_bool(const bool *b)
{
    return *(const unsigned char *)b <= 1;
}

static bool frames_are_sound(const struct frames *f, bool from_client)
{
    return is_bool(&f->fin) && is_bool(&f->compressed) && is_bool(&f->from_client) &&
           is_bool(&f->rsv1_allowed) && is_bool(&f->close_seen) && is_bool(&f->started) &&
           frames_sound(f, from_client);
}

static bool leg_is_sound(const struct point_leg *p, bool from_client, uint32_t blocks_used)
{
    const size_t end = sizeof((struct segment *)0)->buffer;
    return frames_are_sound(&p->in, from_client) && is_bool(&p->fin) && is_bool(&p->closed) &&
           p->direct_at <= end && p->direct_len <= end - p->direct_at &&
           p->chain_len <= (uint64_t)blocks_used * SEGMENT_BLOCK &&
           p->stash_len < FRAMES_CONTROL_MAX &&
           (!p->stash_len || (p->stash_block < blocks_used && !p->in.left));
}

/* Nothing later looks again. */
static bool slot_is_sound(struct segment *g, const struct slot *slot)
{
    const uint32_t blocks_used = segment_blocks_used(g), current = atomic_load(&slot->current);
    const struct point *p = &slot->point[current & 1];
    return current <= 1 && is_bool(&slot->probe) && is_bool(&slot->local) && slot->id &&
           memchr(slot->client_id, 0, sizeof slot->client_id) && is_bool(&p->goodbye) &&
           is_bool(&p->untold) && (p->state == SESSION_OPEN || p->state == SESSION_CLOSING) &&
           p->end < END_REASONS && leg_is_sound(&p->leg[0], true, blocks_used) &&
           leg_is_sound(&p->leg[1], false, blocks_used);
}

/* ---- what the kernel says ---- */

static bool was_reading(const struct survivor *v, const struct left *l, unsigned leg, uint64_t n)
{
    const struct reading *r = &v->segment->reading;
    const struct point_leg *p = &l->then.leg[leg];
    return r->slot == segment_slot_index(v->segment, l->slot) && r->leg == leg &&
           r->at == p->read_at && r->have == p->stash_len && n <= SUPERVISOR_READ;
}

static void doubt(struct left *l, unsigned leg, const char *why)
{
    l->doubt = why;
    l->leg[leg].doubted = true;
    l->leg[leg].missing = 0;
}

static void ask_kernel(const struct survivor *v, struct left *l, unsigned leg)
{
    struct positions k;
    const struct point_leg *p = &l->then.leg[leg];
    struct left_leg *at = &l->leg[leg];
    switch (at->fd < 0 ? POSITIONS_GONE : positions_of(at->fd, &k)) {
    case POSITIONS_GONE:
        at->gone = true;
        return;
    case POSITIONS_NOT_TCP:
        doubt(l, leg, "the backend has a UNIX socket, where nothing tells what was written");
        return;
    default:
        break;
    }
    const uint64_t missing = p->written_at - k.written, unseen = k.read - p->read_at;
    if (missing > (uint64_t)p->direct_len + p->chain_len)
        doubt(l, leg, "the kernel has written what was not committed");
    else if (unseen && !was_reading(v, l, leg, unseen))
        l->doubt = "the kernel has read what is not there";
    else
        at->unseen = (uint32_t)unseen;
    if (!at->doubted)
        at->missing = (uint32_t)missing;
}

/* ---- blocks ---- */

/* The next one of a chain; base: where the process has had this memory that has made the chain.
 * NULL: it leads nowhere. */
static struct buffer *next_of(struct segment *g, uintptr_t base, const struct buffer *b)
{
    const uintptr_t at = (uintptr_t)STAILQ_NEXT(b, next) - base - SEGMENT_BLOCKS_AT;
    return at % SEGMENT_BLOCK || at / SEGMENT_BLOCK >= segment_blocks_used(g)
               ? NULL
               : segment_block(g, (uint32_t)(at / SEGMENT_BLOCK));
}

/* Calls fn with each piece of the chain of a leg; false: it is not what was committed. */
typedef void (*piece_fn)(void *arg, struct buffer *b, const char *bytes, size_t len);
static bool each_piece(struct segment *g, const struct left *l, unsigned leg, piece_fn fn,
                       void *arg)
{
    const struct point_leg *p = &l->then.leg[leg];
    size_t left = p->chain_len, skip = p->chain_skip;
    struct buffer *b =
        left && p->chain_block < segment_blocks_used(g) ? segment_block(g, p->chain_block) : NULL;
    while (left) {
        if (!b || b->end > SEGMENT_BLOCK - sizeof *b || skip >= b->end)
            return false;
        const size_t n = b->end - skip < left ? b->end - skip : left;
        struct buffer *next = n == left ? NULL : next_of(g, l->then.base, b);
        fn(arg, b, b->data + skip, n);
        left -= n;
        skip = 0;
        b = next;
    }
    return true;
}

/* False: it is another's already. */
static bool mark(struct recovery *r, uint32_t block)
{
    const uint8_t bit = (uint8_t)(1u << block % 8);
    const bool first = !(r->live[block / 8] & bit);
    r->live[block / 8] |= bit;
    return first;
}

static void mark_piece(void *arg, struct buffer *b, const char *bytes, size_t len)
{
    struct recovery *r = arg;
    (void)bytes, (void)len;
    r->twice |= !mark(r, segment_block_index(r->v->segment, b));
}

static void mark_blocks(struct recovery *r, struct left *l)
{
    struct segment *g = r->v->segment;
    for (unsigned leg = 0; leg < 2; leg++) {
        struct point_leg *p = &l->then.leg[leg];
        if (p->stash_len && !mark(r, p->stash_block)) {
            p->stash_len = 0;
            doubt(l, leg, "what was read is another's");
        }
        r->twice = false;
        if (l->leg[leg].missing && (!each_piece(g, l, leg, mark_piece, r) || r->twice))
            doubt(l, leg, "what waits to be written is not what was committed");
    }
}

static void free_blocks(struct recovery *r)
{
    struct segment *g = r->v->segment;
    for (uint32_t i = 0; i < segment_blocks_used(g); i++)
        if (!(r->live[i / 8] & 1u << i % 8))
            survivor_free_block(r->v, segment_block(g, i));
}

/* Those of a point that is no longer the current one. */
static void free_piece(void *arg, struct buffer *b, const char *bytes, size_t len)
{
    (void)bytes, (void)len;
    survivor_free_block(arg, b);
}

static void free_old_blocks(struct survivor *v, const struct left *l)
{
    for (unsigned leg = 0; leg < 2; leg++) {
        const struct point_leg *p = &l->then.leg[leg];
        if (p->stash_len)
            survivor_free_block(v, segment_block(v->segment, p->stash_block));
        if (l->leg[leg].missing)
            each_piece(v->segment, l, leg, free_piece, v);
    }
}

/* ---- one WebSocket ---- */

struct gathering {
    uint8_t *at;
    size_t skip;
};

static void gather_bytes(struct gathering *to, const void *bytes, size_t len)
{
    const size_t skip = to->skip < len ? to->skip : len;
    memcpy(to->at, (const uint8_t *)bytes + skip, len - skip);
    to->at += len - skip;
    to->skip -= skip;
}

static void gather_piece(void *arg, struct buffer *b, const char *bytes, size_t len)
{
    (void)b;
    gather_bytes(arg, bytes, len);
}

/* What is missing of a leg, in one piece. False: no memory. */
static bool gather(struct segment *g, const struct left *l, unsigned leg, struct bytes *out)
{
    const struct point_leg *p = &l->then.leg[leg];
    const size_t n = l->leg[leg].missing;
    uint8_t *at = n ? malloc(n) : NULL;
    if (!at)
        return n == 0;
    struct gathering to = {at, (size_t)p->direct_len + p->chain_len - n};
    if (p->direct_len)
        gather_bytes(&to, g->buffer + p->direct_at, p->direct_len);
    each_piece(g, l, leg, gather_piece, &to);
    *out = (struct bytes){at, n};
    return true;
}

static void describe_leg(const struct survivor *v, const struct left *l, unsigned leg,
                         struct leg_record *r)
{
    const struct point_leg *p = &l->then.leg[leg];
    *r = (struct leg_record){.fd = l->leg[leg].fd,
                             .in = p->in,
                             .pinged_ms = l->slot->pinged_ms[leg],
                             .pings_out = p->pings_out,
                             .fin = p->fin};
    if (p->stash_len)
        r->stash = (struct bytes){segment_block(v->segment, p->stash_block)->data, p->stash_len};
}

static void describe(const struct survivor *v, const struct left *l, struct session_record *r)
{
    const struct slot *slot = l->slot;
    *r = (struct session_record){.ip = slot->ip,
                                 .id = slot->id,
                                 .opened_ms = slot->opened_ms,
                                 .to_client_ms = slot->to_client_ms,
                                 .from_client_ms = slot->from_client_ms,
                                 .deadline_ms = slot->deadline_ms,
                                 .moved_ms = slot->moved_ms,
                                 .bytes = slot->bytes,
                                 .messages_in = slot->messages_in,
                                 .messages_out = slot->messages_out,
                                 .close_code = l->then.close_code,
                                 .state = l->then.state,
                                 .end = l->then.end,
                                 .probe = slot->probe,
                                 .goodbye = l->then.goodbye,
                                 .untold = l->then.untold,
                                 .client_id = slot->client_id};
    describe_leg(v, l, 0, &r->client);
    describe_leg(v, l, 1, &r->backend);
}

static const struct config_route *find_route(const struct supervisor *s, uint64_t hash)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket && survivor_route_hash(&s->config->routes[i]) == hash)
            return &s->config->routes[i];
    return NULL;
}

static struct session *resume(struct recovery *r, struct left *l)
{
    struct session_record record;
    const struct config_route *route = find_route(r->s, l->slot->route);
    struct session *x = NULL;
    describe(r->v, l, &record);
    const struct subscription_record none = {0};
    struct access_line line;
    if (l->slot->local)
        record.subscription = &none;
    if (route && access_log_is_on(&r->s->log)) {
        line = ws_line_taken_up(route, &l->slot->ip);
        record.line = &line;
    }
    if (route && gather(r->v->segment, l, 0, &record.client.out) &&
        gather(r->v->segment, l, 1, &record.backend.out))
        x = session_resume(r->s, route, &record);
    else
        for (unsigned leg = 0; leg < 2; leg++)
            if (l->leg[leg].fd >= 0)
                close(l->leg[leg].fd);
    free((void *)(uintptr_t)record.client.out.at);
    free((void *)(uintptr_t)record.backend.out.at);
    return x;
}

/* Bytes that were read, and of which nothing is known. */
static void take_unseen(struct supervisor *s, struct leg *leg, uint32_t n)
{
    struct buffer *old = leg->stash;
    const size_t have = old ? old->end : 0;
    if (old)
        memcpy(s->buffer, old->data, have);
    leg->stash = NULL;
    relay_take(s, leg, have, n);
    if (old)
        buffer_put(&s->buffers, old);
}

static void go_on(struct recovery *r, struct left *l, struct session *x)
{
    struct leg *const leg[2] = {&x->client, &x->backend};
    for (unsigned i = 0; i < 2; i++)
        if (l->leg[i].unseen && x->state != SESSION_ENDED) {
            r->unseen++;
            atomic_fetch_add(&l->slot->tried, 1);
            take_unseen(r->s, leg[i], l->leg[i].unseen);
        }
    if (x->state == SESSION_OPEN)
        heartbeat_arm(r->s, x);
    else if (x->state == SESSION_CLOSING)
        session_close_due(r->s, x);
}

static void tell_and_close(struct recovery *r, const struct left *l, struct session *x)
{
    static const struct farewell word = {1012, "the service was interrupted"};
    x->client.cut = l->leg[0].doubted;
    x->backend.cut = l->leg[1].doubted;
    r->closed++;
    r->why = l->doubt;
    if (x->state == SESSION_OPEN)
        session_close_with(r->s, x, word, word, END_FAILED);
    else
        session_end(r->s, x, END_FAILED);
}

static void take_up(struct recovery *r, struct left *l)
{
    struct session *x = resume(r, l);
    if (!x) {
        r->ended++;
        survivor_let(r->v, l->slot);
        free_old_blocks(r->v, l);
        return;
    }
    r->missing += l->leg[0].missing || l->leg[1].missing;
    x->slot = l->slot;
    x->client.read_at = l->then.leg[0].read_at;
    x->client.written_at = l->then.leg[0].written_at;
    x->backend.read_at = l->then.leg[1].read_at;
    x->backend.written_at = l->then.leg[1].written_at;
    die_here(DIE_RECOVERING);
    survive_commit(r->s, x);
    free_old_blocks(r->v, l);
    die_here(DIE_RECOVERING);
    if (l->doubt) {
        tell_and_close(r, l, x);
    } else {
        r->kept++;
        go_on(r, l, x);
    }
    x->client.cut |= l->leg[0].gone && x->client.io.fd >= 0;
    x->backend.cut |= l->leg[1].gone && x->backend.io.fd >= 0;
    if (x->state == SESSION_OPEN && x->client.io.fd < 0)
        session_close(r->s, x, 1001, "the client has gone", END_CLIENT_LOST);
    if (x->state == SESSION_OPEN && !l->slot->local && x->backend.io.fd < 0)
        session_close(r->s, x, 1011, "the backend has gone", END_BACKEND_LOST);
    relay_watch(r->s, x);
}

/* ---- all of them ---- */

/* -1: there is none, or its session goes on without it, of which the custodian has not heard. */
static int take_kept(struct survivor *v, const struct left *l, unsigned leg,
                     const struct kept *kept)
{
    if (!kept || kept->fd[leg] < 0 || !l->then.leg[leg].closed)
        return kept ? kept->fd[leg] : -1;
    close(kept->fd[leg]);
    survivor_tell(v, leg ? NOTE_LET_BACKEND : NOTE_LET_CLIENT,
                  segment_slot_index(v->segment, l->slot), -1);
    return -1;
}

static void end_slot(struct recovery *r, struct slot *slot, const struct kept *kept)
{
    r->ended++;
    survivor_let(r->v, slot);
    for (unsigned leg = 0; kept && leg < 2; leg++)
        if (kept->fd[leg] >= 0)
            close(kept->fd[leg]);
}

static void look_at_open(struct recovery *r, struct slot *slot, const struct kept *kept)
{
    if (!slot_is_sound(r->v->segment, slot)) {
        end_slot(r, slot, kept);
        return;
    }
    struct left *l = &r->left[r->n++];
    *l = (struct left){.slot = slot, .then = slot->point[atomic_load(&slot->current)]};
    for (unsigned leg = 0; leg < 2; leg++) {
        l->leg[leg].fd = take_kept(r->v, l, leg, kept);
        l->leg[leg].gone = l->leg[leg].fd < 0;
        if (l->leg[leg].fd >= 0)
            ask_kernel(r->v, l, leg);
    }
    if (atomic_load(&slot->tried) >= TRIED_MAX)
        l->doubt = "what it has sent has killed this process again and again";
    if (slot->local)
        l->doubt = "nothing is kept yet of what it has subscribed to";
    mark_blocks(r, l);
}

/* A client that has no answer yet gets one; the backend was asked in vain. */
static void refuse_asking(struct recovery *r, struct slot *slot, int fd)
{
    const struct refusal no = {PROBLEM_UNAVAILABLE, 1, "the service was interrupted", NULL};
    survivor_let(r->v, slot);
    if (fd < 0)
        return;
    refuse(r->s, fd, &no, (struct lines){"", 0});
    r->s->refused += !(is_bool(&slot->probe) && slot->probe);
    r->refused++;
}

static const struct kept *kept_at(const struct survivor *v, uint32_t i)
{
    const struct custodian *c = v->custodian;
    return i < c->n_kept ? &c->kept[i] : NULL;
}

static void look_at_slots(struct recovery *r)
{
    struct segment *g = r->v->segment;
    const uint32_t used = segment_used(g);
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = segment_slot(g, i);
        if (atomic_load(&slot->phase) == SLOT_OPEN && !r->v->custodian->give_up)
            look_at_open(r, slot, kept_at(r->v, i));
        else if (atomic_load(&slot->phase) == SLOT_FREE)
            ring_put(&r->v->slots, i);
    }
}

static void end_others(struct recovery *r)
{
    struct segment *g = r->v->segment;
    const uint32_t used = segment_used(g);
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = segment_slot(g, i);
        const struct kept *k = kept_at(r->v, i);
        const uint32_t phase = atomic_load(&slot->phase);
        if (phase == SLOT_ASKING)
            refuse_asking(r, slot, k ? k->fd[0] : -1);
        else if (phase == SLOT_ANSWERED || phase > SLOT_GONE ||
                 (phase == SLOT_OPEN && r->v->custodian->give_up))
            end_slot(r, slot, k);
    }
}

static bool is_urgent(const struct left *l)
{
    return l->leg[0].unseen || l->leg[1].unseen ||
           (l->leg[0].missing && l->then.leg[0].direct_len) ||
           (l->leg[1].missing && l->then.leg[1].direct_len);
}

/* Those first that need the buffer as it was left. */
static void take_up_all(struct recovery *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (is_urgent(&r->left[i]))
            take_up(r, &r->left[i]);
    for (uint32_t i = 0; i < r->n; i++)
        if (!is_urgent(&r->left[i]))
            take_up(r, &r->left[i]);
}

static void count(const struct recovery *r)
{
    struct survived *all = &r->v->segment->survived;
    all->deaths++;
    all->kept += r->kept;
    all->closed += r->closed + r->ended;
    all->refused += r->refused;
    r->s->survived = *all;
}

static void tell(const struct recovery *r)
{
    const struct custodian *c = r->v->custodian;
    log_warning("custodian: taken up %llu ms after the last one's death: %u WebSockets go on (%u "
                "with bytes to write, %u with bytes just read), %u were closed%s%s, %u had ended, "
                "%u handshakes get 503",
                (unsigned long long)(clock_mono_ms() - c->died_ms), r->kept, r->missing, r->unseen,
                r->closed, r->why ? ": " : "", r->why ? r->why : "", r->ended, r->refused);
}

static void take_up_links(struct supervisor *s, struct survivor *v)
{
    const struct custodian *c = v->custodian;
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        if ((v->link[i] = c->link[i]) >= 0)
            intake_take_link(s, v->link[i]);
    if (c->servers >= 0)
        servers_take_table(s, c->servers);
}

void survive_recover(struct supervisor *s)
{
    struct survivor *v = s->survivor;
    struct recovery r = {.s = s, .v = v};
    if (!v || !v->custodian->deaths)
        return;
    const uint32_t used = segment_used(v->segment);
    r.left = calloc(used + 1, sizeof *r.left);
    r.live = calloc(1, segment_blocks_used(v->segment) / 8 + 1);
    if (r.left && r.live) {
        s->next_id = v->segment->next_id;
        look_at_slots(&r);
        free_blocks(&r);
        take_up_all(&r);
        end_others(&r);
        die_here(DIE_RECOVERED);
        take_up_links(s, v);
        count(&r);
        tell(&r);
    } else {
        log_error("custodian: no memory to take up what there is");
        abort();
    }
    free(r.left);
    free(r.live);
}
