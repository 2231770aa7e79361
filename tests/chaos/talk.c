/* SPDX-License-Identifier: BSD-2-Clause */
/* talk: see talk.h. */
#include "tests/chaos/talk.h"
#include "ws_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_MAX   70000
#define ROOM        (FRAME_MAX + 14 + 256)
#define SERVED_MAX  4096
#define PATIENCE_MS 60000

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* ---- frames ---- */

struct frame_at {
    unsigned opcode;
    bool fin, masked;
    size_t head, len;
    uint8_t mask[4];
};

/* False: it is not whole. */
static bool frame_read(const uint8_t *at, size_t have, struct frame_at *f)
{
    if (have < 2)
        return false;
    const unsigned small = at[1] & 127, extra = small == 126 ? 2 : small == 127 ? 8 : 0;
    f->opcode = at[0] & 15;
    f->fin = at[0] & 128;
    f->masked = at[1] & 128;
    f->head = 2 + extra + (f->masked ? 4 : 0);
    if (have < f->head)
        return false;
    f->len = extra ? 0 : small;
    for (unsigned i = 0; i < extra; i++)
        f->len = f->len << 8 | at[2 + i];
    memset(f->mask, 0, 4);
    if (f->masked)
        memcpy(f->mask, at + 2 + extra, 4);
    return have - f->head >= f->len;
}

static size_t frame_head(uint8_t *out, unsigned opcode, bool fin, size_t len, const uint8_t *mask)
{
    const unsigned extra = len < 126 ? 0 : len < 65536 ? 2 : 8;
    size_t n = 2;
    out[0] = (uint8_t)(opcode | (fin ? 128u : 0));
    out[1] = (uint8_t)((mask ? 128u : 0) | (extra == 0 ? len : extra == 2 ? 126 : 127));
    for (unsigned i = extra; i-- > 0;)
        out[n++] = (uint8_t)((uint64_t)len >> 8 * i);
    if (mask)
        memcpy(out + n, mask, 4), n += 4;
    return n;
}

/* ---- bytes that wait ---- */

struct pipe_of_bytes {
    uint8_t *at;
    size_t from, to, size;
};

static uint8_t *pipe_room(struct pipe_of_bytes *p, size_t n)
{
    if (p->from) {
        memmove(p->at, p->at + p->from, p->to - p->from);
        p->to -= p->from;
        p->from = 0;
    }
    if (p->to + n > p->size) {
        p->size = p->to + n;
        p->at = realloc(p->at, p->size);
    }
    return p->at + p->to;
}

/* -1: the connection has ended. */
static int pipe_write(struct pipe_of_bytes *p, int fd)
{
    const ssize_t n = send(fd, p->at + p->from, p->to - p->from, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    p->from += (size_t)n;
    return 0;
}

static int pipe_read(struct pipe_of_bytes *p, int fd, size_t most)
{
    uint8_t *room = pipe_room(p, most);
    const ssize_t n = recv(fd, room, most, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    p->to += (size_t)n;
    return n ? 0 : -1;
}

static size_t waiting(const struct pipe_of_bytes *p)
{
    return p->to - p->from;
}

/* ---- the server ---- */

struct served {
    struct pipe_of_bytes in, out;
    bool open;
};

/* What it says back; false: nothing more follows. */
static bool say_back(struct served *c)
{
    static const char hello[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";
    struct frame_at f;
    if (!c->open) {
        const uint8_t *end = memmem(c->in.at + c->in.from, waiting(&c->in), "\r\n\r\n", 4);
        if (!end)
            return true;
        c->in.from = (size_t)(end - c->in.at) + 4;
        c->open = true;
        memcpy(pipe_room(&c->out, sizeof hello), hello, sizeof hello - 1);
        c->out.to += sizeof hello - 1;
    }
    while (frame_read(c->in.at + c->in.from, waiting(&c->in), &f)) {
        const uint8_t *payload = c->in.at + c->in.from + f.head;
        uint8_t *out = pipe_room(&c->out, f.len + 14);
        const size_t head = frame_head(out, f.opcode == PING ? PONG : f.opcode, f.fin, f.len, NULL);
        for (size_t i = 0; i < f.len; i++)
            out[head + i] = (uint8_t)(payload[i] ^ f.mask[i & 3]);
        c->in.from += f.head + f.len;
        if (f.opcode != PONG)
            c->out.to += head + f.len;
        if (f.opcode == CLOSE)
            return false;
    }
    return true;
}

static void end_served(struct pollfd *p, struct served *c)
{
    close(p->fd);
    p->fd = -1;
    free(c->in.at);
    free(c->out.at);
    *c = (struct served){0};
}

static void serve_one(struct pollfd *p, struct served *c)
{
    if ((p->revents & POLLOUT) && pipe_write(&c->out, p->fd) < 0) {
        end_served(p, c);
        return;
    }
    if (p->revents & (POLLIN | POLLHUP | POLLERR)) {
        if (pipe_read(&c->in, p->fd, 65536) < 0) {
            end_served(p, c);
            return;
        }
        if (!say_back(c))
            c->in.from = c->in.to;
        pipe_write(&c->out, p->fd);
    }
    p->events =
        (short)((waiting(&c->out) < 200000 ? POLLIN : 0) | (waiting(&c->out) ? POLLOUT : 0));
}

static void serve(int listener)
{
    static struct pollfd p[SERVED_MAX];
    static struct served c[SERVED_MAX];
    unsigned n = 1;
    p[0] = (struct pollfd){listener, POLLIN, 0};
    for (;;) {
        poll(p, n, -1);
        for (unsigned i = 1; i < n; i++)
            if (p[i].fd >= 0 && p[i].revents)
                serve_one(&p[i], &c[i]);
        for (int fd; p[0].revents && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
            unsigned i = 1;
            while (i < n && p[i].fd >= 0)
                i++;
            if (i == SERVED_MAX)
                _exit(3);
            p[i] = (struct pollfd){fd, POLLIN, 0};
            n = i == n ? n + 1 : n;
        }
    }
}

pid_t talk_server(unsigned port)
{
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(0x7f000001)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 512) < 0)
        fail_msg("port %u: %s", port, strerror(errno));
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(fd);
    }
    close(fd);
    return pid;
}

/* ---- what is said ---- */

/* The same for who says it and who hears it. */
struct script {
    uint64_t random, number;
    unsigned fragments; /* of the message under way, still to come */
    bool text;
    size_t offset; /* in that message */
};
struct line {
    unsigned opcode;
    bool fin, text;
    size_t len, offset;
    uint64_t key;
};

static uint64_t next_random(struct script *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

static size_t next_len(struct script *s)
{
    const uint64_t r = next_random(s);
    const unsigned kind = (unsigned)(r >> 32) % 64;
    return (size_t)(r & 0xffffff) % (kind < 40   ? 200
                                     : kind < 58 ? 4000
                                     : kind < 63 ? 20000
                                                 : FRAME_MAX - 10);
}

static void next_line(struct script *s, struct line *l)
{
    *l = (struct line){.key = next_random(s) ^ s->number++};
    if (next_random(s) % 8 == 0) {
        l->opcode = PING;
        l->fin = true;
        l->len = (size_t)(next_random(s) % 126);
        return;
    }
    l->opcode = CONTINUATION;
    if (!s->fragments) {
        s->fragments = next_random(s) % 4 ? 1 : 2 + (unsigned)(next_random(s) % 4);
        s->text = next_random(s) % 3 == 0;
        s->offset = 0;
        l->opcode = s->text ? TEXT : BINARY;
    }
    l->text = s->text;
    l->fin = --s->fragments == 0;
    l->len = next_len(s);
    l->offset = s->offset;
    if (l->fin && s->text) /* ends where a character does */
        l->len += (10 - (s->offset + l->len) % 10) % 10;
    s->offset += l->len;
}

static uint8_t byte_of(const struct line *l, size_t i)
{
    static const char pattern[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e";
    if (l->text)
        return (uint8_t)pattern[(l->offset + i) % 10];
    return (uint8_t)((l->key >> (i & 7) * 8) + i / 8);
}

/* ---- a talker ---- */

struct talker {
    int fd;
    struct script says, hears;
    struct pipe_of_bytes in, out;
    uint64_t said, heard; /* bytes of payloads */
    size_t window, at_once;
    bool closing, closed;
};
struct talk {
    unsigned n;
    bool ending;
    struct talker *talker;
    struct pollfd *p;
    struct talk_count count;
};

static void put_line(struct talker *t, const struct line *l)
{
    uint8_t mask[4];
    memcpy(mask, &t->said, 4);
    mask[3] = 0x5a;
    uint8_t *out = pipe_room(&t->out, l->len + 14);
    const size_t head = frame_head(out, l->opcode, l->fin, l->len, mask);
    for (size_t i = 0; i < l->len; i++)
        out[head + i] = (uint8_t)(byte_of(l, i) ^ mask[i & 3]);
    t->out.to += head + l->len;
    t->said += l->len;
}

static void put_control(struct talker *t, unsigned opcode, const uint8_t *payload, size_t len)
{
    static const uint8_t mask[4] = {1, 2, 3, 4};
    uint8_t *out = pipe_room(&t->out, len + 14);
    const size_t head = frame_head(out, opcode, true, len, mask);
    for (size_t i = 0; i < len; i++)
        out[head + i] = (uint8_t)(payload[i] ^ mask[i & 3]);
    t->out.to += head + len;
}

static void say_more(struct talk *all, struct talker *t)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 255};
    struct line l;
    while (!all->ending && waiting(&t->out) < 30000 && t->said - t->heard < t->window) {
        next_line(&t->says, &l);
        put_line(t, &l);
    }
    while (all->ending && t->says.fragments) { /* whole messages */
        next_line(&t->says, &l);
        put_line(t, &l);
    }
    if (all->ending && !t->closing && t->says.number == t->hears.number) {
        t->closing = true;
        put_control(t, CLOSE, normal, 2);
    }
}

static void complain(struct talk *all, const struct talker *t, const char *what, uint64_t number)
{
    if (!all->count.what[0])
        snprintf(all->count.what, sizeof all->count.what, "talker %d, frame %llu: %s",
                 (int)(t - all->talker), (unsigned long long)number, what);
}

static void drop(struct talk *all, struct talker *t, const char *what)
{
    if (!t->closed) {
        complain(all, t, what, t->hears.number);
        all->count.lost++;
    }
    close(t->fd);
    t->fd = -1;
}

static void hear_frame(struct talk *all, struct talker *t, const struct frame_at *f,
                       const uint8_t *payload)
{
    struct line l;
    if (f->opcode == PING) {
        put_control(t, PONG, payload, f->len);
        return;
    }
    if (f->opcode == CLOSE) {
        if (t->closing && f->len >= 2 && payload[0] == 1000 >> 8 && payload[1] == (1000 & 255))
            t->closed = true;
        else
            complain(all, t, f->len > 2 ? (const char *)payload + 2 : "a close frame",
                     t->hears.number);
        return;
    }
    next_line(&t->hears, &l);
    bool good = f->opcode == (l.opcode == PING ? PONG : l.opcode) && f->fin == l.fin &&
                f->len == l.len && t->hears.number <= t->says.number;
    for (size_t i = 0; good && i < l.len; i++)
        good = payload[i] == byte_of(&l, i);
    if (!good) {
        complain(all, t, "is not the next one", l.key);
        all->count.wrong++;
        return;
    }
    t->heard += l.len;
    all->count.frames++;
    all->count.messages += l.fin && l.opcode != PING;
    all->count.bytes += l.len;
}

static void hear(struct talk *all, struct talker *t)
{
    struct frame_at f;
    while (frame_read(t->in.at + t->in.from, waiting(&t->in), &f)) {
        hear_frame(all, t, &f, t->in.at + t->in.from + f.head);
        t->in.from += f.head + f.len;
    }
}

static void turn(struct talk *all, struct talker *t, short revents)
{
    if ((revents & (POLLIN | POLLHUP | POLLERR)) && pipe_read(&t->in, t->fd, t->at_once) < 0) {
        drop(all, t, "the connection has ended");
        return;
    }
    hear(all, t);
    say_more(all, t);
    if (waiting(&t->out) && pipe_write(&t->out, t->fd) < 0)
        drop(all, t, "the connection takes nothing more");
}

static bool talk_once(struct talk *t, int ms)
{
    bool any = false;
    for (unsigned i = 0; i < t->n; i++) {
        struct talker *k = &t->talker[i];
        t->p[i] = (struct pollfd){k->fd, (short)(POLLIN | (waiting(&k->out) ? POLLOUT : 0)), 0};
        any |= k->fd >= 0;
    }
    if (any && poll(t->p, t->n, ms) > 0)
        for (unsigned i = 0; i < t->n; i++)
            if (t->talker[i].fd >= 0 && t->p[i].revents)
                turn(t, &t->talker[i], t->p[i].revents);
    return any;
}

void talk_step(struct talk *t, int ms)
{
    const uint64_t end = mono_ms() + (uint64_t)ms;
    for (unsigned i = 0; i < t->n; i++)
        if (t->talker[i].fd >= 0)
            turn(t, &t->talker[i], 0);
    do
        talk_once(t, 1);
    while (mono_ms() < end);
}

struct talk *talk_open(unsigned port, const char *target, unsigned n, uint64_t seed)
{
    struct talk *t = calloc(1, sizeof *t);
    t->n = n;
    t->talker = calloc(n, sizeof *t->talker);
    t->p = calloc(n, sizeof *t->p);
    for (unsigned i = 0; i < n; i++) {
        struct talker *k = &t->talker[i];
        const int small = 4096, one = 1;
        k->fd = open_ws(port, target);
        k->says.random = k->hears.random = seed * 0x9e3779b97f4a7c15u + i + 1;
        k->window = i % 3 == 0 ? 2000 : i % 3 == 1 ? 60000 : 900000;
        k->at_once = i % 5 == 4 ? 3000 : 65536; /* a slow reader */
        if (i % 5 == 4 && k->window > 100000)
            k->window = 100000; /* all of it has to come back in the end */
        if (i % 5 == 4)
            setsockopt(k->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(k->fd, F_SETFL, O_NONBLOCK);
    }
    return t;
}

void talk_end(struct talk *t, struct talk_count *count)
{
    const uint64_t end = mono_ms() + harness_patience(PATIENCE_MS);
    t->ending = true;
    talk_step(t, 0);
    while (mono_ms() < end && talk_once(t, 10))
        talk_step(t, 0);
    for (unsigned i = 0; i < t->n; i++) {
        struct talker *k = &t->talker[i];
        if (k->fd >= 0)
            drop(t, k, "not all has come back");
        free(k->in.at);
        free(k->out.at);
    }
    *count = t->count;
    free(t->talker);
    free(t->p);
    free(t);
}

const struct talk_count *talk_counted(const struct talk *t)
{
    return &t->count;
}
