/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several users over every way through the cache: no one gets another's answer.
 *
 * The backend says of each answer whose it is, in X-Who: a hash of the Authorization, Cookie and
 * X-Api-Key that it has seen. It helps nobody: the same entity tag for all, lifetimes without
 * `public`, 304 to any condition, parts of anything.
 */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static atomic_bool broken;
static atomic_uint slow_ms, version;

/* ---- who ---- */

static const char *who_is(const char *authorization, const char *cookie, const char *key)
{
    static _Thread_local char out[24];
    const char *const all[] = {authorization, cookie, key};
    uint64_t hash = UINT64_C(14695981039346656037);
    bool any = false;
    for (size_t i = 0; i < 3; i++) {
        any |= *all[i] != 0;
        for (const char *at = all[i]; *at; at++)
            hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
        hash = (hash ^ 256) * UINT64_C(1099511628211);
    }
    snprintf(out, sizeof out, any ? "%016llx" : "anonymous", (unsigned long long)hash);
    return out;
}

static const char *copied(const struct message *m, const char *name, char *out, size_t size)
{
    const char *value = field_of(m, name);
    snprintf(out, size, "%s", value ? value : "");
    return out;
}

static char huge[15000]; /* a cookie as long as a head allows */

struct user {
    const char *lines;                  /* of his requests */
    const char *authorization, *cookie; /* as the backend sees them */
    const char *all, *key;              /* Cookie with what is not sent where answers are kept */
};
static struct user users[] = {
    {"", "", "", "", ""},
    {"Cookie: sid=alice\r\n", "", "sid=alice", NULL, ""},
    {"Cookie: sid=bob\r\n", "", "sid=bob", NULL, ""},
    {"Cookie: _ga=GA1.2.3; _gid=4\r\n", "", "", "_ga=GA1.2.3; _gid=4", ""},
    {"Cookie: _ga=9; sid=carol\r\n", "", "sid=carol", "_ga=9; sid=carol", ""},
    {"Authorization: Bearer dave\r\n", "Bearer dave", "", NULL, ""},
    {"Authorization: Bearer erin\r\n", "Bearer erin", "", NULL, ""},
    {"X-Api-Key: frank\r\n", "", "", NULL, "frank"},
    {"Cookie: sid=alice\r\nAuthorization: Bearer grace\r\n", "Bearer grace", "sid=alice", NULL, ""},
    {"Cookie: sid=alice\r\nX-Api-Key: heidi\r\n", "", "sid=alice", NULL, "heidi"},
    {"Cookie: sid=ivan\r\nCookie: sid=alice\r\n", "", "sid=ivan, sid=alice", NULL, ""},
    {"Cookie: sid=alice\r\nCookie: x=judy\r\n", "", "sid=alice, x=judy", NULL, ""},
    {"Authorization: Bearer dave\r\nAuthorization: Bearer mallory\r\n",
     "Bearer dave, Bearer mallory", "", NULL, ""},
    {"Cookie: sid=\r\n", "", "sid=", NULL, ""},
    {"Cookie: kim\r\n", "", "kim", NULL, ""},
    {"Cookie: =leo\r\n", "", "=leo", NULL, ""},
    {"Cookie: sid=\"alice\"\r\n", "", "sid=\"alice\"", NULL, ""},
    {"Cookie: _ga=\"1; sid=mia\"\r\n", "", "_ga=\"1; sid=mia\"", NULL, ""},
    {"Cookie: _ga=1, sid=nick\r\n", "", "_ga=1, sid=nick", NULL, ""},
    {"Cookie: sid=\xff\xfe\x80\r\n", "", "sid=\xff\xfe\x80", NULL, ""},
    {"Cookie: sid =alice\r\n", "", "sid =alice", NULL, ""},
    {"Cookie: \xa0sid=alice\r\n", "", "\xa0sid=alice", NULL, ""},
    {"cookie: SID=alice\r\n", "", "SID=alice", NULL, ""},
    {NULL, "", huge + 8, NULL, ""},
};
#define N_USERS (sizeof users / sizeof *users)

static void make_huge(void)
{
    static char lines[sizeof huge + 8];
    memset(huge, 'x', sizeof huge - 1);
    memcpy(huge, "Cookie: sid=", 12);
    snprintf(lines, sizeof lines, "%s\r\n", huge);
    users[N_USERS - 1].lines = lines;
}

static bool is_his(const struct user *u, const char *who)
{
    if (!strcmp(who, who_is(u->authorization, u->cookie, u->key)))
        return true;
    return u->all && !strcmp(who, who_is(u->authorization, u->all, u->key));
}

/* ---- the backend ---- */

#define BIG 100000

static bool send_part(struct asked *a, const char *lines, const char *range)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    unsigned first = 0, last = 25;
    if (sscanf(range, "bytes=%u-%u", &first, &last) < 1 || first > last || last > 25)
        return reply_ok(a, lines, letters);
    return reply(a,
                 "HTTP/1.1 206 Partial Content\r\n%sContent-Range: bytes %u-%u/26\r\n"
                 "Content-Length: %u\r\n\r\n%.*s",
                 lines, first, last, last - first + 1, (int)(last - first + 1), letters + first);
}

static const char *const turns[] = {"Cache-Control: max-age=60\r\n",
                                    "Cache-Control: max-age=60\r\nVary: Cookie\r\n",
                                    "Cache-Control: private, max-age=60\r\n",
                                    "Cache-Control: no-cache\r\n",
                                    "",
                                    "Cache-Control: max-age=0, stale-while-revalidate=60\r\n",
                                    "Vary: Authorization, Cookie\r\nCache-Control: max-age=60\r\n",
                                    "Cache-Control: no-store\r\n",
                                    "Cache-Control: max-age=1\r\nSet-Cookie: a=b\r\n",
                                    "Cache-Control: public, max-age=0\r\n",
                                    "Vary: X-Api-Key\r\nCache-Control: max-age=60\r\n"};
#define N_TURNS (sizeof turns / sizeof *turns)

static bool answers(struct asked *a)
{
    static const struct {
        const char *path, *lines;
    } kinds[] = {{"/none", ""},
                 {"/max", "Cache-Control: max-age=60\r\n"},
                 {"/must", "Cache-Control: max-age=60, must-revalidate\r\n"},
                 {"/short", "Cache-Control: max-age=1, stale-while-revalidate=60\r\n"},
                 {"/error", "Cache-Control: max-age=1, stale-if-error=600\r\n"},
                 {"/each", "Cache-Control: no-cache\r\n"},
                 {"/half", "Cache-Control: max-age=60\r\nVary: Cookie\r\n"},
                 {"/vary", "Cache-Control: max-age=60\r\n"
                           "Vary: Cookie, Authorization, X-Api-Key\r\n"},
                 {"/some", "Cache-Control: max-age=60\r\nVary: X-Api-Key, Accept\r\n"},
                 {"/others", "Cache-Control: max-age=60\r\nVary: authorization\r\n"},
                 {"/json", "Cache-Control: max-age=60\r\n"},
                 {"/sid", "Cache-Control: max-age=60\r\n"},
                 {"/jwt", "Cache-Control: max-age=60\r\n"},
                 {"/own", "Cache-Control: max-age=60\r\n"}};
    char lines[512], authorization[600], cookie[16384], key[64];
    size_t n = 0;
    const char *range = field_of(&a->m, "Range");
    char asked_range[64];
    snprintf(asked_range, sizeof asked_range, "%s", range ? range : "");
    if (atomic_load(&broken))
        return reply(a, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    if (atomic_load(&slow_ms))
        nap_ms(atomic_load(&slow_ms));
    const char *who = who_is(copied(&a->m, "Authorization", authorization, sizeof authorization),
                             copied(&a->m, "Cookie", cookie, sizeof cookie),
                             copied(&a->m, "X-Api-Key", key, sizeof key));
    n += (size_t)snprintf(lines, sizeof lines, "X-Who: %s\r\nETag: \"v%u\"\r\n", who,
                          atomic_load(&version));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strncmp(a->target, kinds[i].path, strlen(kinds[i].path)))
            n += (size_t)snprintf(lines + n, sizeof lines - n, "%s", kinds[i].lines);
    if (!strncmp(a->target, "/turn", 5)) /* another thing each time */
        n += (size_t)snprintf(lines + n, sizeof lines - n, "%s", turns[a->number % N_TURNS]);
    if (!strcmp(a->method, "POST"))
        snprintf(lines + n, sizeof lines - n,
                 "Cache-Control: max-age=60\r\nContent-Location: %s\r\n", a->target);
    if (!strcmp(a->method, "HEAD"))
        return reply(a, "HTTP/1.1 200 OK\r\n%sContent-Length: 26\r\n\r\n", lines);
    if (field_of(&a->m, "If-None-Match") && strcmp(a->method, "POST") && atomic_load(&version) == 1)
        return reply(a, "HTTP/1.1 304 Not Modified\r\n%s\r\n", lines);
    if (strstr(a->target, "big") || !strncmp(a->target, "/json", 5)) {
        char *body = malloc(BIG + 1);
        for (size_t at = 0; at + 20 < BIG; at += 20)
            snprintf(body + at, 21, "who is %-13.13s", who);
        const bool ok = reply_ok(a, lines, body);
        free(body);
        return ok;
    }
    if (*asked_range && strcmp(a->method, "POST"))
        return send_part(a, lines, asked_range);
    return reply_ok(a, lines, who);
}

static void start(struct house *h, unsigned workers)
{
    atomic_store(&broken, false);
    atomic_store(&slow_ms, 0);
    atomic_store(&version, 1);
    house_start(h, workers,
                "cache { leak_guard = 0 ttl = \"5m\" max_items = 100000 }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } refresh_share = 0 }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n"
                "route \"/poll/*\" { upstream = \"u\" cache { } poll { min_interval = \"30s\" } }\n"
                "route \"/sid/*\" { upstream = \"u\" cache { partition = \"cookie:sid\" } }\n"
                "route \"/jwt/*\" { upstream = \"u\" cache { partition = \"jwt:sub\" } }\n"
                "route \"/own/*\" { upstream = \"u\" cache { partition = \"identity\" } }\n",
                backend_port(backend));
    backend_forget(backend);
}

/* ---- clients ---- */

static char *question(const char *method, const char *target, const struct user *u,
                      const char *lines)
{
    char *text = malloc(20000);
    snprintf(text, 20000, "%s %s HTTP/1.1\r\nHost: test.example\r\n%s%s\r\n", method, target,
             u->lines, lines);
    return text;
}

static void check(const struct message *m, const struct user *u, const char *what)
{
    const char *who = field_of(m, "X-Who");
    if (m->status == 503 || m->status == 504 || m->status == 416)
        return; /* nobody's */
    if (!who || !is_his(u, who))
        fail_msg("%s: %.60s got status %d, X-Who %s (%s)", what, u->lines, m->status,
                 who ? who : "none", m->head);
    if (m->status == 200 && m->body_len > 1000 && !strncmp(m->body, "who is ", 7) &&
        strncmp(m->body + 7, who, 9) != 0)
        fail_msg("%s: %.60s got the body of somebody else", what, u->lines);
}

static void ask(const struct house *h, const char *method, const char *target, const struct user *u,
                const char *lines)
{
    struct message m;
    char what[200], *text = question(method, target, u, lines);
    const int fd = client_connect(h->port);
    client_send_bytes(fd, text, strlen(text));
    client_read(fd, &m, !strcmp(method, "HEAD"));
    snprintf(what, sizeof what, "%s %s %.40s", method, target, lines);
    check(&m, u, what);
    message_free(&m);
    free(text);
    close(fd);
}

static const char *const kinds[] = {"/none", "/max",  "/must", "/short",  "/error", "/each",
                                    "/half", "/vary", "/some", "/others", "/turn",  "/json",
                                    "/sid",  "/jwt",  "/own",  "/poll"};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static const struct {
    const char *method, *lines;
} ways[] = {{"GET", ""},
            {"GET", "If-None-Match: \"v1\"\r\n"},
            {"GET", "If-None-Match: \"v0\"\r\n"},
            {"GET", "Range: bytes=0-3\r\n"},
            {"GET", "Range: bytes=2-9\r\n"},
            {"HEAD", ""},
            {"GET", "Accept-Encoding: gzip, br\r\n"},
            {"GET", "Cache-Control: max-stale\r\n"},
            {"GET", "If-None-Match: \"v1\"\r\nPrefer: wait=0\r\n"}};
#define N_WAYS (sizeof ways / sizeof *ways)

/* Each comes first once, and meets what all the others have left. */
static void everybody_gets_his_own_by_every_way(void **state)
{
    (void)state;
    struct house h;
    char target[64];
    start(&h, 2);
    for (size_t k = 0; k < N_KINDS; k++)
        for (size_t first = 0; first < N_USERS; first += 3) {
            snprintf(target, sizeof target, "%s/%zu", kinds[k], first);
            for (size_t i = 0; i < N_USERS; i++)
                for (size_t way = 0; way < N_WAYS; way += i % 3 ? 2 : 1)
                    ask(&h, ways[way].method, target, &users[(first + i) % N_USERS],
                        ways[way].lines);
        }
    house_remove(&h);
}

/* The same bytes again on one connection, which takes a shorter way; others in between. */
static void everybody_gets_his_own_when_he_repeats_himself(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[N_USERS];
    start(&h, 1);
    for (size_t i = 0; i < N_USERS; i++)
        fd[i] = client_connect(h.port);
    for (size_t k = 0; k < N_KINDS; k++) {
        char target[64];
        snprintf(target, sizeof target, "%s/again", kinds[k]);
        for (int round = 0; round < 4; round++)
            for (size_t i = 0; i < N_USERS; i++) {
                char *text = question("GET", target, &users[i], "");
                client_send_bytes(fd[i], text, strlen(text));
                client_read(fd[i], &m, false);
                check(&m, &users[i], target);
                message_free(&m);
                free(text);
            }
    }
    /* one connection, many users: as behind a proxy */
    for (size_t k = 0; k < N_KINDS; k++)
        for (int round = 0; round < 2; round++)
            for (size_t i = 0; i < N_USERS; i++) {
                char target[64], *text;
                snprintf(target, sizeof target, "%s/again", kinds[k]);
                text = question("GET", target, &users[i], "");
                client_send_bytes(fd[0], text, strlen(text));
                client_read(fd[0], &m, false);
                check(&m, &users[i], target);
                message_free(&m);
                free(text);
            }
    for (size_t i = 0; i < N_USERS; i++)
        close(fd[i]);
    house_remove(&h);
}

static bool is_given_stale(struct house *h, const char *target, const struct user *u)
{
    struct message m;
    get_with(h->port, target, u->lines, &m);
    const char *status = field_of(&m, "Cache-Status");
    const bool stale =
        m.status == 200 && status && (strstr(status, "ttl=-") || strstr(status, "stale-if-error"));
    message_free(&m);
    return stale;
}

/* What is stale is given to those whose it is. */
static void nobody_gets_what_is_stale_of_others(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    wait_until(is_given_stale(&h, "/short/1", &users[0]), 10000);
    for (size_t i = 0; i < N_USERS; i++)
        for (int times = 0; times < 2; times++)
            ask(&h, "GET", "/short/1", &users[i], "");
    for (size_t i = 0; i < N_USERS; i++) {
        ask(&h, "GET", "/error/1", &users[i], "");
        ask(&h, "GET", "/poll/1", &users[i], "");
        ask(&h, "GET", "/own/1", &users[i], "");
    }
    wait_until(served_from_store(h.port, "/error/1"), 5000);
    atomic_store(&broken, true);
    wait_until(is_given_stale(&h, "/error/1", &users[0]), 10000);
    for (size_t i = 0; i < N_USERS; i++)
        for (size_t way = 0; way < N_WAYS; way++) {
            ask(&h, ways[way].method, "/error/1", &users[i], ways[way].lines);
            ask(&h, ways[way].method, "/poll/1", &users[i], ways[way].lines);
            ask(&h, ways[way].method, "/own/1", &users[i], ways[way].lines);
        }
    house_remove(&h);
}

static void the_answer_to_a_post_is_for_who_has_sent_it(void **state)
{
    (void)state;
    struct house h;
    char target[64];
    start(&h, 2);
    for (size_t first = 0; first < N_USERS - 1; first++) { /* a huge cookie leaves no room */
        snprintf(target, sizeof target, "/max/%zu", first);
        ask(&h, "POST", target, &users[first], "Content-Length: 0\r\n");
        for (size_t i = 0; i < N_USERS; i++)
            ask(&h, "GET", target, &users[(first + i) % N_USERS], "");
    }
    house_remove(&h);
}

static bool is_stored_for(const struct house *h, const char *target, const struct user *u)
{
    struct message m;
    char *text = question("GET", target, u, "");
    const int fd = client_connect(h->port);
    client_send_bytes(fd, text, strlen(text));
    client_read(fd, &m, false);
    check(&m, u, target);
    const bool hit = strstr(field_of(&m, "Cache-Status"), "polder; hit") != NULL;
    message_free(&m);
    free(text);
    close(fd);
    return hit;
}

static unsigned held(const struct house *h)
{
    struct message m;
    unsigned n = 0;
    get(h->ops_port, "/metrics", &m);
    const char *at = m.body ? strstr(m.body, "\npolder_poll_held ") : NULL;
    if (at)
        n = (unsigned)atoi(at + 18);
    message_free(&m);
    return n;
}

static void who_waits_for_a_change_is_told_his_own(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[N_USERS];
    start(&h, 2);
    for (size_t i = 0; i < N_USERS; i++)
        wait_until(is_stored_for(&h, "/poll/wait", &users[i]), 10000);
    for (size_t i = 0; i < N_USERS; i++) {
        char *text = question("GET", "/poll/wait", &users[i],
                              "If-None-Match: \"v1\"\r\nPrefer: wait=60\r\n");
        fd[i] = client_connect(h.port);
        client_send_bytes(fd[i], text, strlen(text));
        free(text);
    }
    wait_until(held(&h) >= N_USERS - 1, 10000); /* a huge head may not be */
    atomic_store(&version, 2);
    assert_int_equal(ctl((struct house *)&h, NULL, "cache invalidate /poll/wait"), 0);
    for (size_t i = 0; i < N_USERS; i++) {
        client_read(fd[i], &m, false);
        check(&m, &users[i], "waited");
        assert_int_equal(m.status, 200);
        assert_string_equal(field_of(&m, "ETag"), "\"v2\"");
        message_free(&m);
        close(fd[i]);
    }
    house_remove(&h);
}

/* Connections of all users at once: who waits for another's fetch gets his own. */
#define CROWD 3
static void a_crowd(struct house *h, const char *target, const char *lines, int round)
{
    struct message m;
    int fd[N_USERS * CROWD];
    for (size_t i = 0; i < N_USERS * CROWD; i++) {
        const size_t who = (i * 7 + (size_t)round) % N_USERS;
        char *text = question("GET", target, &users[who], lines);
        fd[i] = client_connect(h->port);
        client_send_bytes(fd[i], text, strlen(text));
        free(text);
    }
    for (size_t i = 0; i < N_USERS * CROWD; i++) {
        client_read(fd[i], &m, false);
        check(&m, &users[(i * 7 + (size_t)round) % N_USERS], target);
        message_free(&m);
        close(fd[i]);
    }
}

static void who_waits_for_anothers_fetch_gets_his_own(void **state)
{
    (void)state;
    struct house h;
    char target[64];
    start(&h, 3);
    atomic_store(&slow_ms, 30);
    for (size_t k = 0; k < N_KINDS; k++)
        for (int round = 0; round < 2; round++) {
            snprintf(target, sizeof target, "%s/%scrowd%d", kinds[k], round ? "big" : "", round);
            a_crowd(&h, target, "", round);
            a_crowd(&h, target, round ? "Range: bytes=1-5\r\n" : "If-None-Match: \"v1\"\r\n",
                    round);
        }
    house_remove(&h);
}

/* ---- many at once, for a while ---- */

struct visitor {
    pthread_t thread;
    const struct house *house;
    const struct user *user;
    unsigned seed, wrong, answered;
    char first[300];
};

static void *visit(void *arg)
{
    struct visitor *v = arg;
    int fd = client_connect(v->house->port);
    for (int i = 0; i < 60 && fd >= 0; i++) {
        struct message m;
        char target[64];
        const size_t way = (size_t)rand_r(&v->seed) % N_WAYS;
        snprintf(target, sizeof target, "%s/storm%u", kinds[(size_t)rand_r(&v->seed) % N_KINDS],
                 (unsigned)rand_r(&v->seed) % 3);
        char *text = question(ways[way].method, target, v->user, ways[way].lines);
        client_send_bytes(fd, text, strlen(text));
        client_read(fd, &m, !strcmp(ways[way].method, "HEAD"));
        const char *who = m.status ? field_of(&m, "X-Who") : NULL;
        v->answered += who != NULL;
        if (who && !is_his(v->user, who) && !v->wrong++)
            snprintf(v->first, sizeof v->first, "%s %s for %.40s: %s", ways[way].method, target,
                     v->user->lines, who);
        const bool over = !m.complete || m.closed;
        message_free(&m);
        free(text);
        if (over) {
            close(fd);
            fd = client_connect(v->house->port);
        }
    }
    close(fd);
    return NULL;
}

static void a_storm_of_users_mixes_nobody_up(void **state)
{
    (void)state;
    struct house h;
    struct visitor v[N_USERS] = {0};
    start(&h, 3);
    for (size_t i = 0; i < N_USERS; i++) {
        v[i] = (struct visitor){.house = &h, .user = &users[i], .seed = (unsigned)i + 1};
        assert_int_equal(pthread_create(&v[i].thread, NULL, visit, &v[i]), 0);
    }
    for (size_t i = 0; i < N_USERS; i++)
        pthread_join(v[i].thread, NULL);
    for (size_t i = 0; i < N_USERS; i++) {
        if (v[i].wrong)
            fail_msg("%u wrong; first: %s", v[i].wrong, v[i].first);
        assert_true(v[i].answered > 30);
    }
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_gets_his_own_by_every_way),
        cmocka_unit_test(everybody_gets_his_own_when_he_repeats_himself),
        cmocka_unit_test(nobody_gets_what_is_stale_of_others),
        cmocka_unit_test(the_answer_to_a_post_is_for_who_has_sent_it),
        cmocka_unit_test(who_waits_for_a_change_is_told_his_own),
        cmocka_unit_test(who_waits_for_anothers_fetch_gets_his_own),
        cmocka_unit_test(a_storm_of_users_mixes_nobody_up),
    };
    make_huge();
    return run_with_backend(tests, &backend, answers);
}
