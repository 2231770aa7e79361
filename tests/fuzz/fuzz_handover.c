/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_handover: what a worker may send to the supervisor, over a real socket and with descriptors.
 * Whatever comes, every descriptor is closed or has gone to one session, and a session gets just
 * the parts of the message that its lengths say.
 *
 * Byte 0: bits 0 and 1 are how many descriptors come; bit 2: no streams but datagrams; bit 3: the
 * lengths are made to add up; bit 4: there is no room; bit 5: no memory for a session; bit 6: what
 * stands behind the header is as long as the text that take_news() has no room for; bit 7: the store
 * of a fleet is to be asked, which takes those of even length. The rest is the message.
 */
#include "daemons/supervisor/intake.c"
#include "daemons/supervisor/handshake.c"
#include "daemons/supervisor/client_id.c"

#include <fcntl.h>

#define NEWS_MAX (2 * 8192)

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct config_websocket websocket;
static struct config_upstream upstream;
static struct config_route routes[] = {
    {.pattern = "/ws/*", .websocket = &websocket, .upstream = &upstream, .index = 0},
    {.pattern = "/live", .websocket = &websocket, .index = 1},
    {.pattern = "/api/*", .upstream = &upstream, .index = 2},
};

/* The message under way, and what became of it. */
static struct {
    struct handover h;
    const uint8_t *rest;
    bool sound, full, no_memory, asks;
    unsigned sessions, refused, waiting, told;
} now;
static struct session session;

/* ---- the rest of the supervisor, as far as intake.c calls it ---- */

enum admit admit_check(struct supervisor *s, const struct config_route *route,
                       const struct clientip *ip, bool probe)
{
    (void)s, (void)probe;
    must(route >= routes && route < routes + 2);
    must(ip != NULL);
    return now.full ? ADMIT_TOTAL : ADMIT_YES;
}

void admit_again(struct supervisor *s, const struct config_route *route)
{
    (void)s;
    must(now.asks && route >= routes && route < routes + 2);
}

void ws_fleet_begin(struct supervisor *s,
                    bool (*take)(struct supervisor *s, const struct handover *h, const char *rest,
                                 int fd, enum ws_fleet_try try))
{
    (void)s, (void)take;
}

void ws_fleet_end_begin(struct supervisor *s)
{
    (void)s;
}

enum ws_fleet_result ws_fleet_enter(struct supervisor *s, const struct config_route *route,
                                    const struct clientip *ip, enum ws_fleet_try try, uint8_t *rows,
                                    enum admit *why)
{
    (void)s;
    must(route >= routes && route < routes + 2 && ip && !now.full);
    *rows = 0;
    if (!now.asks)
        return WS_FLEET_ADMITS;
    *why = ADMIT_TOTAL;
    return try == WS_FLEET_FIRST ? WS_FLEET_WAITS : WS_FLEET_REFUSES;
}

void ws_fleet_leave(struct supervisor *s, const struct config_route *route,
                    const struct clientip *ip, uint8_t rows)
{
    (void)s, (void)ip, (void)rows;
    must(now.no_memory && route >= routes && route < routes + 2);
}

bool ws_fleet_wait(struct supervisor *s, const struct handover *h, const char *rest, size_t len,
                   int fd)
{
    (void)s;
    must(now.asks && !memcmp(h, &now.h, sizeof *h) && !memcmp(rest, now.rest, len));
    if (len & 1)
        return false;
    now.waiting++;
    close(fd);
    return true;
}

void ws_fleet_take_page(struct supervisor *s, int fd, int event)
{
    (void)s;
    must(now.sound && now.h.flags & HANDOVER_SLOTS);
    close(fd), close(event);
}

void manager_remove(const char *name)
{
    (void)name;
}

const char *admit_reason(enum admit why)
{
    must(why == ADMIT_TOTAL);
    return "there is no room";
}

void admit_log(struct supervisor *s, const struct config_route *route, const struct clientip *ip,
               enum admit why)
{
    (void)s, (void)route, (void)ip, (void)why;
}

const char *admit_limit(enum admit why)
{
    must(why == ADMIT_TOTAL);
    return "websocket.max_connections_total";
}

void ws_line_begin(const struct supervisor *s, struct session *x, const uint8_t peer[16])
{
    (void)s;
    must(x == &session && x->pending && peer);
}

void survive_link(struct supervisor *s, int fd)
{
    (void)s, (void)fd;
}

void survive_link_closed(struct supervisor *s, int fd)
{
    (void)s, (void)fd;
}

void survive_close(struct supervisor *s, int fd)
{
    (void)s;
    close(fd);
}

void survive_asking(struct supervisor *s, struct session *x)
{
    (void)s;
    must(x == &session && !x->pending);
}

void ws_line_refused(struct supervisor *s, const struct ws_refused *r)
{
    (void)s;
    must(r->head_len == now.h.head_len && r->status >= 400);
}

size_t refuse(struct supervisor *s, int fd, const struct refusal *r, struct lines limits)
{
    (void)s;
    must(r && *r->why);
    must(limits.len == now.h.limit_len && lines_sound(limits.at, limits.len));
    now.refused++;
    close(fd);
    return 0;
}

struct session *session_new(struct supervisor *s, int fd, const struct config_route *route,
                            const struct clientip *ip, bool probe)
{
    (void)s, (void)ip, (void)probe;
    must(now.sound && !now.full && is_stream(fd));
    must(strlen(route->pattern) == now.h.route_len &&
         !memcmp(route->pattern, now.rest, now.h.route_len));
    if (now.no_memory)
        return NULL;
    memset(&session, 0, sizeof session);
    session.client.io.fd = fd;
    now.sessions++;
    return &session;
}

void session_end(struct supervisor *s, struct session *x, enum session_end why)
{
    (void)s, (void)why;
    close(x->client.io.fd);
    free(x->pending);
    free(x->client_id);
}

void refuse_session(struct supervisor *s, struct session *x, const struct refusal *r,
                    enum session_end why)
{
    (void)r;
    session_end(s, x, why);
}

static void begin(struct supervisor *s, struct session *x)
{
    const struct handover *h = &now.h;
    const struct pending *p = x->pending;
    const uint8_t *id = now.rest + h->route_len;
    must(p && p->head_len == h->head_len && p->pipelined_len == h->pipelined_len && p->head_len);
    must(p->limit_len == h->limit_len);
    must(p->sticky.hash == h->sticky_hash && p->sticky.server == h->sticky_server);
    must(!memcmp(p->bytes, id + h->id_len, (size_t)p->limit_len + p->head_len + p->pipelined_len));
    must(!memcmp(p->accept_key, h->accept_key, sizeof p->accept_key));
    if (x->client_id) {
        const size_t len = strlen(x->client_id);
        must(len <= h->id_len && len <= CLIENT_ID_MAX);
        must(frames_utf8_valid((const uint8_t *)x->client_id, len));
    }
    session_end(s, x, END_CLIENT_CLOSED);
}

void backend_begin(struct supervisor *s, struct session *x)
{
    begin(s, x);
}

void local_begin(struct supervisor *s, struct session *x)
{
    begin(s, x);
}

void servers_take_table(struct supervisor *s, int fd)
{
    (void)s;
    must(now.sound && now.h.flags & HANDOVER_SERVERS);
    close(fd);
}

unsigned local_invalidated(struct supervisor *s, const char *const *tags, size_t n,
                           const char *prefix)
{
    (void)s;
    must(now.sound && n <= 1 && !(n && prefix));
    const char *text = n ? tags[0] : prefix;
    must(text && frames_utf8_valid((const uint8_t *)text, strlen(text)));
    must(strlen(text) <= (n ? now.h.id_len : now.h.head_len) || !strcmp(text, "/"));
    now.told++;
    return 0;
}

/* ---- one message ---- */

static bool adds_up(const struct handover *h, size_t len)
{
    const uint32_t parts[] = {h->route_len, h->id_len, h->limit_len, h->head_len, h->pipelined_len};
    size_t left = len - sizeof *h;
    for (int i = 0; i < 5; i++) {
        if (parts[i] > left)
            return false;
        left -= parts[i];
    }
    return left == 0 && h->magic == HANDOVER_MAGIC && h->version == HANDOVER_VERSION;
}

static void add_up(uint8_t *bytes, size_t len)
{
    struct handover h;
    memcpy(&h, bytes, sizeof h);
    const uint32_t room = (uint32_t)(len - sizeof h);
    h.magic = HANDOVER_MAGIC;
    h.version = HANDOVER_VERSION;
    h.route_len %= room + 1;
    h.id_len %= room + 1 - h.route_len;
    h.limit_len %= room + 1 - h.route_len - h.id_len;
    h.head_len %= room + 1 - h.route_len - h.id_len - h.limit_len;
    h.pipelined_len = room - h.route_len - h.id_len - h.limit_len - h.head_len;
    memcpy(bytes, &h, sizeof h);
}

static void send_all(int to, const uint8_t *bytes, size_t len, size_t n_fds, int type)
{
    int pairs[3][2], fds[3];
    const struct iovec iov = {(void *)(uintptr_t)bytes, len};
    for (size_t i = 0; i < n_fds; i++) {
        must(socketpair(AF_UNIX, type, 0, pairs[i]) == 0);
        fds[i] = pairs[i][0];
    }
    must(fd_message_send(to, &iov, 1, fds, n_fds) == (ssize_t)len);
    for (size_t i = 0; i < n_fds; i++)
        close(pairs[i][0]), close(pairs[i][1]);
}

static int lowest_free(void)
{
    const int fd = fcntl(0, F_DUPFD, 0);
    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config = {.routes = routes, .n_routes = 3};
    static struct supervisor s = {.config = &config};
    static int link[2] = {-1, -1};
    if (link[0] < 0)
        must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, link) == 0);
    log_set_level(LOG_LEVEL_ERROR);
    if (size < 2 || size > HANDOVER_MAX)
        return 0;
    const size_t have = size - 1, long_one = sizeof now.h + NEWS_MAX;
    const size_t len = (data[0] & 64) && have < long_one ? long_one : have;
    uint8_t *bytes = malloc(len);
    memset(bytes, 'u', len);
    memcpy(bytes, data + 1, have);
    if ((data[0] & 8) && len >= sizeof now.h)
        add_up(bytes, len);
    memset(&now, 0, sizeof now);
    now.full = data[0] & 16;
    now.no_memory = data[0] & 32;
    now.asks = data[0] & 128;
    if (len >= sizeof now.h) {
        memcpy(&now.h, bytes, sizeof now.h);
        now.rest = bytes + sizeof now.h;
        now.sound =
            adds_up(&now.h, len) && now.h.limit_len <= HANDOVER_LINES_MAX &&
            lines_sound((const char *)now.rest + now.h.route_len + now.h.id_len, now.h.limit_len);
    }
    const size_t n_fds = data[0] & 3;
    const int free_fd = lowest_free();
    const uint64_t refused = s.refused;
    send_all(link[0], bytes, len, n_fds, data[0] & 4 ? SOCK_DGRAM : SOCK_STREAM);
    must(take_message(&s, link[1]) == 1);
    must(take_message(&s, link[1]) == 0);
    must(lowest_free() == free_fd);
    const bool client = now.sound && n_fds == 1 && !(data[0] & 4) && now.h.head_len &&
                        !(now.h.flags & (HANDOVER_TELLS | HANDOVER_SERVERS | HANDOVER_SLOTS));
    must(now.sessions + now.refused + now.waiting == (client ? 1 : 0));
    must(s.refused - refused == (now.h.flags & HANDOVER_PROBE ? 0 : now.refused));
    must(!now.told || (now.sound && n_fds == 0 && (now.h.flags & HANDOVER_TELLS)));
    free(bytes);
    return 0;
}
