/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet: see fleet.h. */
#include "daemons/supervisor/fleet.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TURN_MS     2 /* while handshakes wait */
#define WAITERS_MAX 4096
#define OF_SOCKETS  UINT64_C(0x7765627361636b65) /* in keys: apart from those of limits */

struct ws_fleet_waiter {
    TAILQ_ENTRY(ws_fleet_waiter) entry;
    int fd;
    uint64_t until_ms;
    struct handover h;
    char rest[];
};

/* ---- rows ---- */

/* What bounds a WebSocket, where that is counted over the fleet. */
struct bound {
    uint32_t max;
    enum config_limit_cut_off cut_off;
    enum admit why;
    struct fleet_slot_key key;
    uint64_t of; /* the route's id; 0: all routes */
};

static void name_row(const struct supervisor *s, enum ws_fleet_key kind,
                     const struct config_route *route, const struct clientip *ip, struct bound *b)
{
    const bool of_route = kind == WS_FLEET_ROUTE || kind == WS_FLEET_CLIENT,
               of_client = kind == WS_FLEET_CLIENT || kind == WS_FLEET_CLIENT_TOTAL;
    uint8_t who[1 + sizeof ip->addr] = {(uint8_t)kind};
    if (of_client)
        memcpy(who + 1, ip->addr, sizeof ip->addr);
    b->of = of_route ? route->id : 0;
    fleet_grants_hash(s->fleet.secret, OF_SOCKETS ^ b->of, who, of_client ? sizeof who : 1,
                      b->key.hash);
}

/* Bits of the rows that bound it. */
static uint8_t bounds_of(const struct supervisor *s, const struct config_route *route,
                         const struct clientip *ip, struct bound b[WS_FLEET_KEYS])
{
    const struct config_websocket *own = &s->route_values[route->index].ws, *top = &s->values;
    uint8_t rows = 0;
    if (own->scope == CONFIG_SCOPE_FLEET) {
        b[WS_FLEET_ROUTE] = (struct bound){
            .max = own->max_connections, .cut_off = own->cut_off, .why = ADMIT_ROUTE};
        b[WS_FLEET_CLIENT] = (struct bound){
            .max = config_websocket_per_client(own), .cut_off = own->cut_off, .why = ADMIT_CLIENT};
        rows |= 1 << WS_FLEET_ROUTE | 1 << WS_FLEET_CLIENT;
    }
    b[WS_FLEET_TOTAL] = (struct bound){
        .max = top->max_connections_total, .cut_off = top->cut_off, .why = ADMIT_TOTAL};
    b[WS_FLEET_CLIENT_TOTAL] = (struct bound){
        .max = top->max_per_client_total, .cut_off = top->cut_off, .why = ADMIT_CLIENT_TOTAL};
    if (top->scope == CONFIG_SCOPE_FLEET && top->max_connections_total)
        rows |= 1 << WS_FLEET_TOTAL;
    if (top->scope == CONFIG_SCOPE_FLEET && top->max_per_client_total)
        rows |= 1 << WS_FLEET_CLIENT_TOTAL;
    for (enum ws_fleet_key k = 0; k < WS_FLEET_KEYS; k++)
        if (rows >> k & 1)
            name_row(s, k, route, ip, &b[k]);
    return rows;
}

static void wake_control(const struct supervisor *s)
{
    const uint64_t one = 1;
    const ssize_t n = write(s->fleet.event, &one, sizeof one);
    (void)n; /* full: it wakes anyway */
}

static void leave_row(struct supervisor *s, const struct bound *b, bool notes)
{
    struct fleet_slots *p = s->fleet.page;
    struct fleet_slot *row = fleet_slot_find(p, FLEET_SLOT_WEBSOCKET, &b->key);
    if (!row)
        return;
    fleet_slot_end(row);
    if (notes && fleet_slot_left(p, FLEET_SLOT_SUPERVISOR, row))
        wake_control(s);
}

static bool use_alone(struct supervisor *s, struct fleet_slot *row, enum config_limit_cut_off mode)
{
    struct fleet_slots *p = s->fleet.page;
    bool admitted = false;
    if (mode == CONFIG_LIMIT_OPEN) {
        fleet_slot_use_anyway(row);
        admitted = true;
    } else if (mode == CONFIG_LIMIT_SHARE && fleet_slots_last(p, s->now_ms)) {
        admitted = fleet_slot_use(row);
    }
    atomic_fetch_add(admitted ? &p->cut_admitted : &p->cut_refused, 1);
    return admitted;
}

/* Once for each handshake, and again when control has heard of the store: then each that still lacks a
 * slot counts again, those behind the first one too. */
static bool asks(struct ws_fleet *f, const struct fleet_slot *row, enum ws_fleet_try try)
{
    for (uint32_t i = 0; i < f->n_answered; i++)
        if (f->answered[i] == row)
            return true;
    if (try == WS_FLEET_AGAIN && atomic_load(&row->requested))
        return false;
    if (try == WS_FLEET_AGAIN && f->n_answered < WS_FLEET_ANSWERED)
        f->answered[f->n_answered++] = row;
    return true;
}

static enum ws_fleet_result use_row(struct supervisor *s, const struct bound *b,
                                    enum ws_fleet_try try)
{
    struct fleet_slots *p = s->fleet.page;
    struct fleet_slot *row = fleet_slot_claim(NULL, p, &b->key, b->of, b->max);
    const bool comes = fleet_slots_come(p, s->now_ms);
    if (!row)
        return WS_FLEET_REFUSES;
    if (comes && fleet_slot_use(row))
        return WS_FLEET_ADMITS;
    if (comes && (fleet_slot_is_refused(row, s->now_ms) || fleet_slot_held(row) >= b->max))
        return WS_FLEET_REFUSES;
    if (comes && try != WS_FLEET_LAST) {
        if (asks(&s->fleet, row, try) && fleet_slot_ask(p, FLEET_SLOT_SUPERVISOR, row))
            wake_control(s);
        return WS_FLEET_WAITS;
    }
    if (comes)
        atomic_fetch_add(&p->late, 1);
    return use_alone(s, row, b->cut_off) ? WS_FLEET_ADMITS : WS_FLEET_REFUSES;
}

/* Nothing is known of the store. */
static enum ws_fleet_result without_page(const struct bound b[WS_FLEET_KEYS], uint8_t rows,
                                         enum admit *why)
{
    for (unsigned k = 0; k < WS_FLEET_KEYS; k++)
        if (rows >> k & 1 && b[k].cut_off != CONFIG_LIMIT_OPEN) {
            *why = b[k].why;
            return WS_FLEET_REFUSES;
        }
    return WS_FLEET_ADMITS;
}

enum ws_fleet_result ws_fleet_enter(struct supervisor *s, const struct config_route *route,
                                    const struct clientip *ip, enum ws_fleet_try try, uint8_t *rows,
                                    enum admit *why)
{
    struct bound b[WS_FLEET_KEYS];
    const uint8_t all = bounds_of(s, route, ip, b);
    enum ws_fleet_result result = WS_FLEET_ADMITS;
    *rows = 0;
    if (!all || !s->fleet.page)
        return without_page(b, all, why);
    s->now_ms = clock_mono_ms(); /* what has ended must not be used */
    for (unsigned k = 0; k < WS_FLEET_KEYS && result != WS_FLEET_REFUSES; k++) {
        if (!(all >> k & 1))
            continue;
        const enum ws_fleet_result one = use_row(s, &b[k], try);
        if (one == WS_FLEET_ADMITS)
            *rows |= (uint8_t)(1u << k);
        else
            result = one, *why = b[k].why;
    }
    if (result == WS_FLEET_ADMITS)
        return result;
    for (unsigned k = 0; k < WS_FLEET_KEYS; k++)
        if (*rows >> k & 1)
            leave_row(s, &b[k], result == WS_FLEET_REFUSES);
    *rows = 0;
    return result;
}

void ws_fleet_leave(struct supervisor *s, const struct config_route *route,
                    const struct clientip *ip, uint8_t rows)
{
    struct bound b;
    if (!s->fleet.page)
        return;
    for (enum ws_fleet_key k = 0; k < WS_FLEET_KEYS; k++)
        if (rows >> k & 1) {
            name_row(s, k, route, ip, &b);
            leave_row(s, &b, true);
        }
}

/* ---- counting anew ---- */

struct counted {
    struct fleet_slot_key key;
    uint64_t of;
    uint32_t max;
};

static int by_key(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct fleet_slot_key));
}

/* A key for each row of each session, sorted. NULL: no memory. */
static struct counted *count_all(struct supervisor *s, size_t *n)
{
    size_t room = ((size_t)s->open + 1) * WS_FLEET_KEYS;
    struct counted *all = calloc(room, sizeof *all);
    struct session *x;
    *n = 0;
    if (!all)
        return NULL;
    LIST_FOREACH (x, &s->sessions, entry) {
        struct bound b[WS_FLEET_KEYS];
        x->fleet = x->probe ? 0 : bounds_of(s, x->route, &x->count->ip, b);
        for (unsigned k = 0; k < WS_FLEET_KEYS && *n < room; k++)
            if (x->fleet >> k & 1)
                all[(*n)++] = (struct counted){b[k].key, b[k].of, b[k].max};
    }
    qsort(all, *n, sizeof *all, by_key);
    return all;
}

static bool is_counted(const struct counted *all, size_t n, const struct fleet_slot *row)
{
    const struct counted wanted = {.key = {{atomic_load(&row->id), atomic_load(&row->hash)}}};
    return bsearch(&wanted, all, n, sizeof *all, by_key) != NULL;
}

/* Rows of this kind are claimed by this process alone. First what there is, so that no row is ever
 * below it. */
static void count_anew(struct supervisor *s)
{
    struct fleet_slots *p = s->fleet.page;
    size_t n;
    struct counted *all = p ? count_all(s, &n) : NULL;
    if (!all)
        return;
    for (size_t i = 0, same; i < n; i += same) {
        for (same = 1; i + same < n && !by_key(&all[i], &all[i + same]);)
            same++;
        struct fleet_slot *row = fleet_slot_claim(NULL, p, &all[i].key, all[i].of, all[i].max);
        if (row)
            fleet_slot_count(row, (uint32_t)same);
    }
    for (uint32_t row = FLEET_SLOT_ROWS; fleet_slot_each(p, &row); row++)
        if (!is_counted(all, n, &p->row[row]))
            fleet_slot_count(&p->row[row], 0);
    free(all);
    atomic_fetch_add(&p->counts, 1);
    wake_control(s);
}

static struct fleet_slots *page_map(int fd)
{
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size < sizeof(struct fleet_slots))
        return NULL;
    void *base = mmap(NULL, sizeof(struct fleet_slots), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const struct shm_segment seg = {base, sizeof(struct fleet_slots), fd};
    if (base == MAP_FAILED)
        return NULL;
    if (shm_check(&seg, SHM_FLEET_SLOTS, SHARED_ABI, fleet_slots_layout()) == 0)
        return base;
    munmap(base, sizeof(struct fleet_slots));
    return NULL;
}

static bool is_same_file(int a, int b)
{
    struct stat sa, sb;
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

void ws_fleet_take_page(struct supervisor *s, int fd, int event)
{
    struct ws_fleet *f = &s->fleet;
    if (f->page && is_same_file(fd, f->fd)) {
        close(fd);
        close(f->event);
        f->event = event;
        return;
    }
    struct fleet_slots *page = page_map(fd);
    if (!page) {
        close(fd);
        close(event);
        return;
    }
    if (f->page) {
        munmap(f->page, sizeof *f->page);
        close(f->fd);
        close(f->event);
    }
    f->page = page;
    f->fd = fd;
    f->event = event;
    count_anew(s);
    ev_timer_again(s->loop, &f->look);
}

void ws_fleet_read_config(struct supervisor *s)
{
    const struct config_fleet *c = &s->config->fleet;
    if (c->n_store)
        fleet_grants_secret(c->name, c->secret, s->fleet.secret);
    count_anew(s);
}

/* ---- handshakes that wait ---- */

bool ws_fleet_wait(struct supervisor *s, const struct handover *h, const char *rest, size_t len,
                   int fd)
{
    struct ws_fleet *f = &s->fleet;
    struct ws_fleet_waiter *p = f->n_waiters < WAITERS_MAX ? malloc(sizeof *p + len) : NULL;
    if (!p)
        return false;
    *p = (struct ws_fleet_waiter){
        .fd = fd, .h = *h, .until_ms = s->now_ms + s->config->fleet.limit_timeout_ms};
    memcpy(p->rest, rest, len);
    TAILQ_INSERT_TAIL(&f->waiters, p, entry);
    f->n_waiters++;
    atomic_fetch_add(&f->page->waited, 1);
    if (!ev_is_active(&f->turn))
        ev_timer_again(s->loop, &f->turn);
    return true;
}

static void take_again(struct supervisor *s, bool all)
{
    struct ws_fleet *f = &s->fleet;
    struct ws_fleet_waiter *next;
    f->n_answered = 0;
    for (struct ws_fleet_waiter *p = TAILQ_FIRST(&f->waiters); p; p = next) {
        next = TAILQ_NEXT(p, entry);
        const bool last = all || s->now_ms >= p->until_ms;
        if (!f->take(s, &p->h, p->rest, p->fd, last ? WS_FLEET_LAST : WS_FLEET_AGAIN))
            continue;
        TAILQ_REMOVE(&f->waiters, p, entry);
        f->n_waiters--;
        free(p);
    }
    f->n_answered = 0;
    if (TAILQ_EMPTY(&f->waiters))
        ev_timer_stop(s->loop, &f->turn);
}

static void on_turn(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)w, (void)revents;
    take_again(ev_userdata(loop), false);
}

void ws_fleet_flush(struct supervisor *s)
{
    take_again(s, true);
}

/* ---- life ---- */

void ws_fleet_begin(struct supervisor *s,
                    bool (*take)(struct supervisor *s, const struct handover *h, const char *rest,
                                 int fd, enum ws_fleet_try try))
{
    struct ws_fleet *f = &s->fleet;
    f->take = take;
    f->fd = f->event = -1;
    TAILQ_INIT(&f->waiters);
    ev_init(&f->turn, on_turn);
    f->turn.repeat = TURN_MS / 1000.;
    ws_fleet_read_config(s);
}
