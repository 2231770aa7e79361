/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loadtest: a hundred users of the demo, first against its backend, then through Polder.
 *
 *   40 poll every 3 seconds, 20 of them logged in; 10 of those ask for their own page
 *   40 read items, two a second each, 20 of them logged in; now and then one is changed
 *   19 hold three WebSockets each, 10 of them logged in: seven more than the limit is
 *    1 asks for its quota a hundred times a second
 *
 * Each has an address of its own, 127.1.N.1, so that limits count them apart. All is paced by the
 * clock: a slow answer makes nobody ask less often, but each user has one request under way at
 * most. How late the generator itself is, is measured too.
 *
 * usage: loadtest SECONDS BACKEND_PORT PORT
 */
#include "tests/bench/ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <llhttp.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLLERS     40
#define READERS     40
#define HOLDERS     19
#define HOLDS       3 /* WebSockets of each */
#define USERS       100
#define SOCKETS     (USERS + HOLDERS * (HOLDS - 1))
#define POLL_S      3.0
#define READ_S      0.5
#define ABUSE_S     0.01
#define SAY_S       5.0
#define ITEMS       50
#define CHANGE_EACH 160 /* reads */
#define LATE_MS     50.0
#define CALLS_LESS  80.0 /* targets, in percent and ms */
#define P95_MS      500.0
#define SAMPLES     (1 << 20)
#define MONTH_S     (30 * 86400.0)

enum role { POLLER, READER, HOLDER, ABUSER };

struct phase {
    const char *name;
    unsigned port;
    double seconds;
    bool limited;                 /* 429 and 503 are meant to come */
    double calls, cpu_s, ws_held; /* held: as Polder counts them in the end */
    unsigned asked, answered, refused, errors, ws_refused, ws_most, ws_open, ws_cut;
    float *ms; /* of answers to all but the abuser */
    unsigned n_ms;
    char first_error[160];
};

struct user {
    ev_io io;
    ev_timer timer;
    enum role role;
    unsigned number, turn;
    char cookie[96]; /* "" : not logged in */
    int fd;
    bool busy, open, again; /* open: a WebSocket; again: its one retry on a new connection */
    double sent;            /* when it should have been */
    llhttp_t parser;
    size_t have;
    uint8_t in[4096];
    char request[512];
};

static struct user users[SOCKETS];
static struct phase *now_on;
static struct ev_loop *loop;
static float *late;
static unsigned n_late;
static double ends;

/* ---- figures ---- */

static void note_error(const char *format, ...)
{
    va_list args;
    if (now_on->errors++)
        return;
    va_start(args, format);
    vsnprintf(now_on->first_error, sizeof now_on->first_error, format, args);
    va_end(args);
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(float *ms, unsigned n, double share)
{
    qsort(ms, n, sizeof *ms, by_size);
    return n ? (double)ms[(unsigned)(share * (n - 1))] : 0;
}

/* ---- one question, waiting: what the demo and Polder count ---- */

static int dial(unsigned port, unsigned number)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)},
                       from = {.sin_family = AF_INET};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(0x7f010001u + (number << 8));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (number)
        bind(fd, (struct sockaddr *)&from, sizeof from);
    fcntl(fd, F_SETFL, number ? O_NONBLOCK : 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)) {
        fprintf(stderr, "loadtest: cannot connect to port %u: %s\n", port, strerror(errno));
        exit(2);
    }
    return fd;
}

static const char *fetch(unsigned port, const char *method, const char *path)
{
    static char answer[65536];
    const int fd = dial(port, 0);
    const struct timeval most = {10, 0};
    size_t n = 0;
    ssize_t got;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    dprintf(fd,
            "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Length: 0\r\nConnection: close"
            "\r\n\r\n",
            method, path, port);
    while (n < sizeof answer - 1 && (got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0)
        n += (size_t)got;
    answer[n] = 0;
    close(fd);
    return answer;
}

static double number_in(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtod(at + strlen(key), NULL) : 0;
}

/* "Cookie: ..." of that user. */
static void log_in(unsigned number, unsigned port, char cookie[96])
{
    char path[64];
    snprintf(path, sizeof path, "/api/login/user%u", number);
    const char *answer = fetch(port, "POST", path), *at = strcasestr(answer, "set-cookie: ");
    if (!at) {
        fprintf(stderr, "loadtest: the demo backend lets nobody log in\n");
        exit(2);
    }
    snprintf(cookie, 96, "Cookie: %.*s\r\n", (int)strcspn(at + 12, ";\r\n"), at + 12);
}

/* ---- a user ---- */

static const char *path_of(struct user *u)
{
    static char path[64];
    if (u->role == ABUSER)
        return "/api/quota/status";
    if (u->role == POLLER)
        return u->number >= 30 && u->number < 40 ? "/api/me" : "/api/goals/preview";
    snprintf(path, sizeof path, "/api/items/%u", (u->number * 7 + u->turn) % ITEMS + 1);
    return path;
}

static void hang_up(struct user *u)
{
    ev_io_stop(loop, &u->io);
    if (u->fd >= 0)
        close(u->fd);
    u->fd = -1;
    if (u->open)
        now_on->ws_open--;
    u->busy = u->open = false;
    u->have = 0;
}

/* The socket takes all of it: requests are short, and at most one is under way. */
static void say(struct user *u)
{
    const size_t len = strlen(u->request);
    if (send(u->fd, u->request, len, MSG_NOSIGNAL) == (ssize_t)len)
        ev_io_set(&u->io, u->fd, EV_READ);
    else
        ev_io_set(&u->io, u->fd, EV_READ | EV_WRITE); /* not connected yet */
    ev_io_start(loop, &u->io);
}

static void write_request(struct user *u)
{
    const bool changes = u->role == READER && u->turn % CHANGE_EACH == CHANGE_EACH - 1;
    if (u->role == HOLDER)
        snprintf(u->request, sizeof u->request,
                 "GET /ws/user%u HTTP/1.1\r\nHost: demo\r\n%sUpgrade: websocket\r\nConnection: "
                 "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
                 u->number, u->cookie);
    else
        snprintf(u->request, sizeof u->request, "%s %s HTTP/1.1\r\nHost: demo\r\n%s%s\r\n",
                 changes ? "POST" : "GET", path_of(u), changes ? "Content-Length: 0\r\n" : "",
                 u->cookie);
}

static void begin(struct user *u)
{
    u->busy = true;
    if (u->fd < 0) {
        u->fd = dial(now_on->port, u->number + 1);
        ev_io_set(&u->io, u->fd, EV_WRITE);
        ev_io_start(loop, &u->io); /* says it when it is connected */
        return;
    }
    ev_io_stop(loop, &u->io);
    say(u);
}

static void answered(struct user *u, unsigned status)
{
    const double ms = (ev_now(loop) - u->sent) * 1000;
    u->busy = u->again = false;
    now_on->answered++;
    if (u->role != ABUSER && now_on->n_ms < SAMPLES)
        now_on->ms[now_on->n_ms++] = (float)ms;
    if (status == 429 && u->role == ABUSER && now_on->limited)
        now_on->refused++;
    else if (status != 200)
        note_error("%.200s: %u", strtok(u->request, "\r"), status);
}

static int on_whole(llhttp_t *p)
{
    struct user *u = p->data;
    answered(u, p->status_code);
    return 0;
}

static void read_http(struct user *u, size_t n)
{
    const enum llhttp_errno code = llhttp_execute(&u->parser, (const char *)u->in, n);
    if (code != HPE_OK) {
        note_error("%.200s: the answer is no HTTP", strtok(u->request, "\r"));
        hang_up(u);
    } else if (!u->busy && !llhttp_should_keep_alive(&u->parser)) {
        hang_up(u);
    }
}

/* ---- a WebSocket ---- */

static void ws_say(struct user *u, unsigned opcode, const void *payload, size_t len)
{
    uint8_t frame[6 + 125] = {(uint8_t)(0x80 | opcode), (uint8_t)(0x80 | len)}; /* mask: zeros */
    memcpy(frame + 6, payload, len);
    if (send(u->fd, frame, 6 + len, MSG_NOSIGNAL) < 0)
        now_on->ws_cut++;
}

/* True: the handshake is answered. */
static bool ws_head(struct user *u)
{
    const uint8_t *end = memmem(u->in, u->have, "\r\n\r\n", 4);
    unsigned status = 0;
    if (!end)
        return false;
    sscanf((const char *)u->in, "HTTP/1.1 %3u", &status);
    u->busy = false;
    now_on->answered++;
    if (status != 101) {
        if (status == 503 && now_on->limited)
            now_on->ws_refused++;
        else
            note_error("WebSocket: %u", status);
        hang_up(u);
        return false;
    }
    u->have -= (size_t)(end + 4 - u->in);
    memmove(u->in, end + 4, u->have);
    u->open = true;
    if (++now_on->ws_open > now_on->ws_most)
        now_on->ws_most = now_on->ws_open;
    return true;
}

static void read_ws(struct user *u, size_t n)
{
    struct ws_frame f;
    u->have += n;
    if (!u->open && !ws_head(u))
        return;
    while (u->have && ws_read(u->in, u->have, &f) && u->have >= f.head + f.payload) {
        if (f.opcode == WS_PING && f.payload <= 125)
            ws_say(u, WS_PONG, u->in + f.head, f.payload);
        u->have -= f.head + f.payload;
        memmove(u->in, u->in + f.head + f.payload, u->have);
    }
}

/* ---- events ---- */

static void lost(struct user *u)
{
    const bool kept = u->busy && !u->again && u->role != HOLDER, was_open = u->open;
    hang_up(u);
    if (was_open)
        note_error("a WebSocket was cut");
    else if (kept) { /* a kept connection may be closed at any time: once more */
        u->again = true;
        begin(u);
    } else
        note_error("%.200s: no answer", strtok(u->request, "\r"));
}

static void on_io(EV_P_ ev_io *w, int events)
{
    struct user *u = w->data;
    (void)loop;
    if (events & EV_WRITE) {
        ev_io_stop(loop, w);
        say(u);
        return;
    }
    const size_t room = u->role == HOLDER ? sizeof u->in - u->have : sizeof u->in;
    const ssize_t n = recv(u->fd, u->in + (u->role == HOLDER ? u->have : 0), room, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (u->busy || u->open)
            lost(u);
        else
            hang_up(u);
        return;
    }
    if (u->role == HOLDER)
        read_ws(u, (size_t)n);
    else
        read_http(u, (size_t)n);
}

static double pace(const struct user *u)
{
    return u->role == POLLER   ? POLL_S
           : u->role == READER ? READ_S
           : u->role == ABUSER ? ABUSE_S
                               : SAY_S;
}

static void on_turn(EV_P_ ev_timer *w, int events)
{
    struct user *u = w->data;
    (void)events, (void)loop;
    if (n_late < SAMPLES)
        late[n_late++] = (float)((ev_time() - ev_now(loop)) * 1000);
    if (u->open) {
        ws_say(u, WS_TEXT, "hello", 5);
        return;
    }
    if (u->busy)
        return;
    u->turn++;
    u->sent = ev_now(loop);
    now_on->asked++;
    llhttp_reset(&u->parser);
    write_request(u);
    begin(u);
}

/* ---- a phase ---- */

static void on_second(EV_P_ ev_timer *w, int events)
{
    const double left = ends - ev_now(loop);
    static unsigned seconds;
    (void)w, (void)events, (void)loop;
    seconds++;
    if (left <= 0)
        ev_break(loop, EVBREAK_ALL);
    if (!isatty(STDERR_FILENO) && seconds % 5)
        return;
    fprintf(stderr, "%s%-15s %3.0f s left: %6u answers, %4u refused, %2u WebSockets, %u errors%s",
            isatty(STDERR_FILENO) ? "\r" : "", now_on->name, left > 0 ? left : 0, now_on->answered,
            now_on->refused + now_on->ws_refused, now_on->ws_open, now_on->errors,
            isatty(STDERR_FILENO) ? "   " : "\n");
}

static enum role role_of(unsigned i)
{
    return i < POLLERS              ? POLLER
           : i < POLLERS + READERS  ? READER
           : i == POLLERS + READERS ? ABUSER
                                    : HOLDER;
}

static unsigned number_of(unsigned i)
{
    const unsigned first = POLLERS + READERS + 1; /* holder */
    return i < first ? i : first + (i - first) / HOLDS;
}

static bool is_logged_in(unsigned i)
{
    const enum role role = role_of(i);
    return role == POLLER ? i >= POLLERS / 2 : role != ABUSER && number_of(i) % 2;
}

static void log_all_in(unsigned backend)
{
    for (unsigned i = 0; i < SOCKETS; i++)
        if (is_logged_in(i) && (!i || number_of(i) != number_of(i - 1)))
            log_in(number_of(i), backend, users[i].cookie);
        else if (is_logged_in(i))
            memcpy(users[i].cookie, users[i - 1].cookie, sizeof users[i].cookie);
}

static void populate(void)
{
    static const llhttp_settings_t settings = {.on_message_complete = on_whole};
    ev_now_update(loop);
    for (unsigned i = 0; i < SOCKETS; i++) {
        struct user *u = &users[i];
        u->role = role_of(i);
        u->number = number_of(i);
        u->fd = -1;
        u->turn = 0;
        llhttp_init(&u->parser, HTTP_RESPONSE, &settings);
        u->parser.data = u;
        ev_init(&u->io, on_io);
        /* they come one after the other */
        const double first =
            u->role == HOLDER ? 0.2 + i * 0.002 : (double)(i * 37 % 100) / 100 * pace(u);
        ev_timer_init(&u->timer, on_turn, first, pace(u));
        u->io.data = u->timer.data = u;
        ev_timer_start(loop, &u->timer);
    }
}

static void run(struct phase *p, unsigned backend)
{
    ev_timer second;
    now_on = p;
    p->ms = malloc(SAMPLES * sizeof *p->ms);
    const char *counted = fetch(backend, "GET", "/api/calls");
    p->calls = -number_in(counted, "\"total\":");
    p->cpu_s = -number_in(counted, "\"cpu\":");
    populate();
    const double began = ev_now(loop);
    ends = began + p->seconds;
    ev_timer_init(&second, on_second, 1, 1);
    ev_timer_start(loop, &second);
    ev_run(loop, 0);
    ev_timer_stop(loop, &second);
    p->seconds = ev_now(loop) - began;
    if (p->limited)
        p->ws_held = number_in(fetch(p->port, "GET", "/api/telemetry/websocket-health"),
                               "\"activeConnections\":");
    counted = fetch(backend, "GET", "/api/calls");
    p->calls += number_in(counted, "\"total\":");
    p->cpu_s += number_in(counted, "\"cpu\":");
    for (unsigned i = 0; i < SOCKETS; i++) {
        ev_timer_stop(loop, &users[i].timer);
        hang_up(&users[i]);
    }
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
}

/* ---- the table ---- */

static void row(const char *name, const char *unit, double before, double after, int digits)
{
    char change[32] = "";
    if (before > 0 && after != before)
        snprintf(change, sizeof change, "%+.1f %%", 100 * (after - before) / before);
    printf("  %-34s %12.*f %12.*f  %-6s %10s\n", name, digits, before, digits, after, unit, change);
}

static bool target(const char *what, bool met, const char *format, ...)
{
    va_list args;
    printf("  %-6s %s: ", met ? "met" : "MISSED", what);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    return met;
}

static bool show(struct phase *a, struct phase *b, double limit, double price, const char *currency)
{
    const double q[3] = {0.5, 0.95, 0.99};
    static const char *const names[3] = {"time of an answer, p50", "p95", "p99"};
    const double calls_a = a->calls / a->seconds, calls_b = b->calls / b->seconds;
    printf("\n%u users, half of them logged in: %.0f s directly, %.0f s through Polder\n\n", USERS,
           a->seconds, b->seconds);
    printf("  %-34s %12s %12s  %-6s %10s\n", "", "directly", "Polder", "", "change");
    row("requests of the users", "/s", a->asked / a->seconds, b->asked / b->seconds, 1);
    row("calls that the backend answers", "/s", calls_a, calls_b, 1);
    row("CPU of the backend", "%", 100 * a->cpu_s / a->seconds, 100 * b->cpu_s / b->seconds, 1);
    for (int i = 0; i < 3; i++)
        row(names[i], "ms", quantile(a->ms, a->n_ms, q[i]), quantile(b->ms, b->n_ms, q[i]), 1);
    row("WebSockets open at most", "", a->ws_most, b->ws_most, 0);
    row("  refused with 503", "", a->ws_refused, b->ws_refused, 0);
    row("requests refused with 429", "", a->refused, b->refused, 0);
    row("errors", "", a->errors, b->errors, 0);
    row("cost of a month like this", currency, calls_a * MONTH_S * price, calls_b * MONTH_S * price,
        2);
    const double less = calls_a > 0 ? 100 * (calls_a - calls_b) / calls_a : 0,
                 p95 = quantile(b->ms, b->n_ms, 0.95), lag = quantile(late, n_late, 0.99);
    puts("\ntargets");
    bool all = target("backend calls", less >= CALLS_LESS, "%.1f %% less, at least %.0f %%", less,
                      CALLS_LESS);
    all &= target("p95 through Polder", b->n_ms && p95 < P95_MS, "%.1f ms, under %.0f ms", p95,
                  P95_MS);
    all &= target("WebSockets", b->ws_held == limit && b->ws_most <= limit && b->ws_refused > 0,
                  "%.0f are open, the limit is %.0f, %u were refused", b->ws_held, limit,
                  b->ws_refused);
    all &= target("the abusive client", b->refused > 0, "%u of its requests got 429", b->refused);
    all &= target("errors", b->errors == 0, "%u but the intended 429 and 503%s%s", b->errors,
                  b->errors ? ", the first: " : "", b->first_error);
    if (a->errors)
        printf("  note   directly there were %u errors, the first: %s\n", a->errors,
               a->first_error);
    if (lag > LATE_MS)
        printf("  note   the load generator itself was %.0f ms late (p99): this machine is too "
               "busy for these times\n",
               lag);
    return all;
}

int main(int argc, char **argv)
{
    if (argc != 4 || atof(argv[1]) < 2) {
        fputs("usage: loadtest SECONDS BACKEND_PORT PORT\n", stderr);
        return 2;
    }
    const double seconds = atof(argv[1]);
    const unsigned backend = (unsigned)atoi(argv[2]), port = (unsigned)atoi(argv[3]);
    struct phase direct = {.name = "directly", .port = backend, .seconds = seconds / 3},
                 polder = {.name = "through Polder",
                           .port = port,
                           .seconds = seconds * 2 / 3,
                           .limited = true};
    loop = ev_default_loop(0);
    late = malloc(SAMPLES * sizeof *late);
    const double limit =
        number_in(fetch(port, "GET", "/api/telemetry/websocket-health"), "\"maxConnections\":");
    log_all_in(backend);
    run(&direct, backend);
    run(&polder, backend);
    const char *cost = fetch(port, "GET", "/api/telemetry/cost"), *currency;
    const double cost_calls = number_in(cost, "\"apiCalls\":"),
                 price = cost_calls > 0 ? number_in(cost, "\"estimatedCost\":") / cost_calls : 0;
    char name[8] = "";
    if ((currency = strstr(cost, "\"currency\":\"")))
        snprintf(name, sizeof name, "%.*s", 3, currency + 12);
    return show(&direct, &polder, limit, price, name) ? 0 : 1;
}
