/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reader: looks at what was acknowledged, asks, and compares. All ways to be answered take part:
 * plain hits, the same bytes again on one connection, variants, partitions, HEAD, ranges with and
 * without If-Range, validators old and new, held polls.
 */
#include "tests/chaos/chaos.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

struct known {
    uint32_t version; /* 0: none */
    char etag[48];
};

struct reader {
    struct board *b;
    struct visitor v;
    unsigned seed;
    char *want, *plain; /* BODY_MOST each */
    struct known known[RESOURCES][VARIANTS];
};

/* One question, and what may be answered. */
struct question {
    struct resource r;
    unsigned variant, times;                   /* the same bytes so often */
    bool head, coded, ranged, if_range, waits; /* waits: for a change, a second long */
    size_t first, last;
    uint32_t condition; /* the version whose validator was sent; 0: none */
    char etag[48];      /* that validator */
    char text[512];
};

static unsigned dice(struct reader *rd, unsigned sides)
{
    return (unsigned)rand_r(&rd->seed) % sides;
}

/* ---- asking ---- */

static struct resource pick(struct reader *rd)
{
    static const uint8_t kinds[] = {KIND_PLAIN, KIND_PLAIN, KIND_PLAIN, KIND_PLAIN,   KIND_BARE,
                                    KIND_BARE,  KIND_VARY,  KIND_VARY,  KIND_VARY,    KIND_SWR,
                                    KIND_SWR,   KIND_SHORT, KIND_SHORT, KIND_CAREFUL, KIND_CAREFUL,
                                    KIND_BIG,   KIND_BIG,   KIND_HUGE,  KIND_POLLED,  KIND_POLLED,
                                    KIND_MINE,  KIND_MINE,  KIND_TEXT,  KIND_TEXT,    KIND_TEXT};
    const unsigned a = dice(rd, GROUPS * MEMBERS), b = dice(rd, GROUPS * MEMBERS);
    return resource_of((uint32_t)kinds[dice(rd, sizeof kinds)] * GROUPS * MEMBERS +
                       (a < b ? a : b));
}

static int add_condition(struct reader *rd, struct question *q, char *to, size_t room)
{
    const struct known *k = &rd->known[q->r.number][q->variant];
    if (!k->version)
        return 0;
    q->condition = k->version;
    snprintf(q->etag, sizeof q->etag, "%s", k->etag);
    q->waits = q->r.kind == KIND_POLLED && dice(rd, 40) == 0;
    return snprintf(to, room, "If-None-Match: %s\r\n%s", k->etag,
                    q->waits ? "Prefer: wait=1\r\n" : "");
}

static int add_range(struct reader *rd, struct question *q, char *to, size_t room)
{
    const struct known *k = &rd->known[q->r.number][q->variant];
    const size_t least = body_len(q->r, 0);
    int n = 0;
    q->ranged = true;
    q->first = dice(rd, (unsigned)least);
    q->last = q->first + dice(rd, (unsigned)(least - q->first));
    n = snprintf(to, room, "Range: bytes=%zu-%zu\r\n", q->first, q->last);
    q->if_range = k->version && q->r.kind != KIND_BARE && dice(rd, 3) == 0;
    if (q->if_range) {
        n += snprintf(to + n, room - (size_t)n, "If-Range: %s\r\n", k->etag);
        snprintf(q->etag, sizeof q->etag, "%s", k->etag);
    }
    return n;
}

static void compose(struct reader *rd, struct question *q)
{
    char path[64];
    *q = (struct question){.r = pick(rd), .times = 1};
    const unsigned way = dice(rd, 100);
    if (q->r.kind == KIND_VARY || q->r.kind == KIND_MINE)
        q->variant = dice(rd, VARIANTS);
    q->head = way < 8;
    resource_path(q->r, path);
    int n = snprintf(q->text, sizeof q->text, "%s %s HTTP/1.1\r\nHost: test.example\r\n",
                     q->head ? "HEAD" : "GET", path);
    if (q->r.kind == KIND_VARY || q->r.kind == KIND_MINE)
        n += snprintf(q->text + n, sizeof q->text - (size_t)n, "%s: %u\r\n",
                      q->r.kind == KIND_VARY ? "Accept-Language" : "X-Who", q->variant);
    q->coded = q->r.kind == KIND_TEXT && dice(rd, 3) != 0;
    if (q->coded)
        n += snprintf(q->text + n, sizeof q->text - (size_t)n, "Accept-Encoding: gzip\r\n");
    if (way >= 8 && way < 26)
        n += add_condition(rd, q, q->text + n, sizeof q->text - (size_t)n);
    else if (way >= 26 && way < 40 && !q->coded)
        n += add_range(rd, q, q->text + n, sizeof q->text - (size_t)n);
    else if (q->r.kind != KIND_HUGE)
        q->times = 1 + dice(rd, 8);
    snprintf(q->text + n, sizeof q->text - (size_t)n, "\r\n");
}

/* ---- judging ---- */

static void complain(struct reader *rd, const struct question *q, const struct answer *a,
                     atomic_ullong *count, const char *what, uint32_t got, uint32_t floor)
{
    char path[64], status[96] = "", etag[48] = "";
    resource_path(q->r, path);
    atomic_fetch_add(count, 1);
    answer_field(a, "Cache-Status", status, sizeof status);
    answer_field(a, "ETag", etag, sizeof etag);
    board_note(rd->b,
               "%s %s: %s: status %d, %zu bytes, version %u, acknowledged %u before, condition %u "
               "%s; ETag %s; %s",
               q->head ? "HEAD" : "GET", path, what, a->status, a->body_len, got, floor,
               q->condition, q->etag, etag, status);
}

/* A weak validator names the same version. */
static const char *opaque(const char *etag)
{
    return strncmp(etag, "W/", 2) ? etag : etag + 2;
}

/* Do they name the same version? One of them may be that of a body which Polder has compressed. */
static bool same_version(const char *a, const char *b)
{
    static const char mark[] = "~polder\"";
    a = opaque(a), b = opaque(b);
    while (*a && *a == *b)
        a++, b++;
    return (!*a && !*b) || (!strcmp(a, mark) && !strcmp(b, "\"")) ||
           (!strcmp(b, mark) && !strcmp(a, "\""));
}

/* The version by the backend's validator; 0: there is none of its own. */
static uint32_t etag_version(const struct question *q, const char *etag)
{
    unsigned variant, version;
    return sscanf(opaque(etag), "\"%u-%u\"", &variant, &version) == 2 && variant == q->variant
               ? version
               : 0;
}

static bool body_is(struct reader *rd, const struct question *q, const struct answer *a,
                    uint32_t version, size_t first, size_t len)
{
    body_make(q->r, q->variant, version, rd->want);
    return a->body_len == len && memcmp(a->body, rd->want + first, len) == 0;
}

/* 200: the whole body of one version. */
static void judge_whole(struct reader *rd, const struct question *q, const struct answer *a,
                        const char *etag, uint32_t floor)
{
    uint32_t version = 0;
    if (!body_version(q->r, q->variant, a->body, a->body_len, &version)) {
        complain(rd, q, a, &rd->b->wrong, "not this resource", version, floor);
        return;
    }
    const size_t len = body_len(q->r, version);
    const uint32_t by_etag = etag_version(q, etag);
    if (a->body_len < len && body_is(rd, q, a, version, 0, a->body_len))
        complain(rd, q, a, &rd->b->truncated, "shorter than it is", version, floor);
    else if (!body_is(rd, q, a, version, 0, len) || (by_etag && by_etag != version))
        complain(rd, q, a, &rd->b->wrong, "not one version's bytes", version, floor);
    else if (version < floor)
        complain(rd, q, a, &rd->b->older, "older than acknowledged", version, floor);
    if (*etag) {
        struct known *k = &rd->known[q->r.number][q->variant];
        k->version = version;
        snprintf(k->etag, sizeof k->etag, "%s", etag);
    }
}

/* 206: where there is no validator of the backend's, the bytes tell the version if whole stamps
 * are among them. */
static void judge_part(struct reader *rd, const struct question *q, const struct answer *a,
                       const char *etag, uint32_t floor)
{
    char field[64];
    size_t first, last, total;
    const uint32_t version = etag_version(q, etag);
    atomic_fetch_add(&rd->b->parts, 1);
    if (!q->ranged || !answer_field(a, "Content-Range", field, sizeof field) ||
        sscanf(field, "bytes %zu-%zu/%zu", &first, &last, &total) != 3 || first != q->first ||
        last != q->last || a->body_len != last - first + 1)
        complain(rd, q, a, &rd->b->wrong, "another range", version, floor);
    else if (q->if_range && strcmp(q->etag, etag) != 0)
        complain(rd, q, a, &rd->b->wrong, "a part of what If-Range did not name", version, floor);
    else if (version && (total != body_len(q->r, version) ||
                         !body_is(rd, q, a, version, first, last - first + 1)))
        complain(rd, q, a, &rd->b->wrong, "a part of something else", version, floor);
    else if (version && version < floor)
        complain(rd, q, a, &rd->b->older, "a part older than acknowledged", version, floor);
}

static void judge_head(struct reader *rd, const struct question *q, const struct answer *a,
                       const char *etag, uint32_t floor)
{
    char field[32];
    const uint32_t version = etag_version(q, etag);
    atomic_fetch_add(&rd->b->heads, 1);
    if (version && version < floor)
        complain(rd, q, a, &rd->b->older, "HEAD older than acknowledged", version, floor);
    if (version && !answer_field(a, "Content-Encoding", field, sizeof field) &&
        answer_field(a, "Content-Length", field, sizeof field) &&
        strtoul(field, NULL, 10) != body_len(q->r, version))
        complain(rd, q, a, &rd->b->wrong, "HEAD with another length", version, floor);
}

static void judge_unchanged(struct reader *rd, const struct question *q, const struct answer *a,
                            const char *etag, uint32_t floor)
{
    atomic_fetch_add(&rd->b->not_modified, 1);
    if (!q->condition || (*etag && !same_version(etag, q->etag)))
        complain(rd, q, a, &rd->b->wrong, "304 to what was not asked", 0, floor);
    else if (q->condition < floor)
        complain(rd, q, a, &rd->b->older, "304 for a version before the acknowledged", q->condition,
                 floor);
}

/* In place of what came: what it stands for. False: it is not what it says. */
static bool decode(struct reader *rd, const struct question *q, struct answer *a)
{
    char coding[16];
    if (!answer_field(a, "Content-Encoding", coding, sizeof coding) || a->status != 200 || q->head)
        return true;
    z_stream z = {.next_in = (Bytef *)a->body,
                  .avail_in = (uInt)a->body_len,
                  .next_out = (Bytef *)rd->plain,
                  .avail_out = BODY_MOST};
    if (!q->coded || strcmp(coding, "gzip") != 0 || inflateInit2(&z, 31) != Z_OK)
        return false;
    const bool whole = inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0;
    a->body = rd->plain;
    a->body_len = BODY_MOST - z.avail_out;
    inflateEnd(&z);
    atomic_fetch_add(&rd->b->coded, 1);
    return whole;
}

static void judge(struct reader *rd, const struct question *q, struct answer *a, uint32_t floor)
{
    char etag[48] = "";
    if (!decode(rd, q, a)) {
        complain(rd, q, a, &rd->b->wrong, "a coding that is none", 0, floor);
        return;
    }
    answer_field(a, "ETag", etag, sizeof etag);
    if (a->status == 304)
        judge_unchanged(rd, q, a, etag, floor);
    else if (a->status == 206)
        judge_part(rd, q, a, etag, floor);
    else if (a->status == 200 && q->head)
        judge_head(rd, q, a, etag, floor);
    else if (a->status == 200)
        judge_whole(rd, q, a, etag, floor);
    else if (a->status >= 500)
        atomic_fetch_add(&rd->b->refused, 1);
    else
        complain(rd, q, a, &rd->b->nonsense, "unexpected status", 0, floor);
}

/* ---- counting ---- */

static void count(struct reader *rd, const struct question *q, const struct answer *a,
                  uint64_t start_ms)
{
    struct board *b = rd->b;
    char status[128] = "";
    const uint64_t now_ms = mono_ms(), at = (now_ms - b->began_ms) / SLICE_MS;
    unsigned took = (unsigned)(now_ms - start_ms), worst = atomic_load(&b->slowest_ms);
    answer_field(a, "Cache-Status", status, sizeof status);
    const bool hit = strstr(status, "polder; hit") != NULL;
    atomic_fetch_add(&b->answers, 1);
    atomic_fetch_add(&b->bytes, a->body_len);
    atomic_fetch_add(&b->hits, hit);
    if (at < SLICES) {
        atomic_fetch_add(&b->slice[at].answers, 1);
        atomic_fetch_add(&b->slice[at].hits, hit);
    }
    while (!q->waits && took > worst && !atomic_compare_exchange_weak(&b->slowest_ms, &worst, took))
        ;
}

static void ask(struct reader *rd, const struct question *q)
{
    struct answer a;
    struct board *b = rd->b;
    const uint32_t floor = atomic_load(&b->acknowledged[q->r.number]);
    const uint64_t start_ms = mono_ms();
    switch (visitor_ask(&rd->v, q->text, q->head, &a)) {
    case VISIT_DONE:
        count(rd, q, &a, start_ms);
        judge(rd, q, &a, floor);
        break;
    case VISIT_CUT:
        atomic_fetch_add(&b->cut, 1);
        break;
    case VISIT_REFUSED:
        atomic_fetch_add(&b->refused, 1);
        nap_ms(5);
        break;
    case VISIT_LATE:
        atomic_fetch_add(&b->late, 1);
        board_note(b, "no answer for 15 s to: %.60s", q->text);
        break;
    case VISIT_NONSENSE:
        atomic_fetch_add(&b->nonsense, 1);
        board_note(b, "no HTTP: status %d, %.60s", a.status, q->text);
        break;
    }
}

static void read_on(struct board *b, unsigned port, unsigned seed)
{
    struct reader *rd = calloc(1, sizeof *rd);
    struct question q;
    rd->b = b;
    rd->seed = seed;
    rd->want = malloc(BODY_MOST);
    rd->plain = malloc(BODY_MOST);
    visitor_init(&rd->v, port);
    while (!atomic_load(&b->stop)) {
        compose(rd, &q);
        for (unsigned i = 0; i < q.times && !atomic_load(&b->stop); i++)
            ask(rd, &q);
    }
    _exit(0);
}

void readers_start(struct readers *r, struct board *b, unsigned port, unsigned n)
{
    fflush(NULL);
    for (r->n = 0; r->n < n && r->n < READERS_MOST; r->n++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            read_on(b, port, 1000 + r->n);
        }
        r->pid[r->n] = pid;
    }
}

void readers_join(struct readers *r, struct board *b)
{
    int status;
    atomic_store(&b->stop, true);
    for (unsigned i = 0; i < r->n; i++) {
        assert_int_equal(waitpid(r->pid[i], &status, 0), r->pid[i]);
        assert_int_equal(status, 0);
    }
    r->n = 0;
}
