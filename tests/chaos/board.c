/* SPDX-License-Identifier: BSD-2-Clause */
/* board: what versions there are, what a body looks like, and the backend that makes them. */
#include "tests/chaos/chaos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define STAMP 16 /* "rrrrvvvvvvvviiii": resource and variant, version, number of the stamp */

static const struct {
    const char *name, *freshness, *tag_field;
    size_t size;
    bool etag;
} kinds[KINDS] = {
    [KIND_PLAIN] = {"plain", "Cache-Control: max-age=60\r\n", "Surrogate-Key: %s %s\r\n", 900,
                    true},
    [KIND_BARE] = {"bare", "", "xkey: %s, %s\r\n", 300, false},
    [KIND_VARY] = {"vary", "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n",
                   "Cache-Tag: %s,%s\r\n", 500, true},
    [KIND_SWR] = {"swr", "Cache-Control: max-age=1, stale-while-revalidate=60\r\n",
                  "Cache-Groups: \"%s\", \"%s\"\r\n", 1500, true},
    [KIND_SHORT] = {"short", "Cache-Control: max-age=1, stale-while-revalidate=0\r\n",
                    "Surrogate-Key: %s %s\r\n", 700, true},
    [KIND_CAREFUL] = {"careful", "Cache-Control: no-cache\r\n", "Cache-Groups: \"%s\", \"%s\"\r\n",
                      400, true},
    [KIND_BIG] = {"big", "Cache-Control: max-age=60\r\n", "Surrogate-Key: %s %s\r\n", 50000, true},
    [KIND_HUGE] = {"huge", "Cache-Control: max-age=60\r\n", "Cache-Tag: %s,%s\r\n", 400000, true},
    [KIND_POLLED] = {"polled", "", "Surrogate-Key: %s %s\r\n", 600, true},
    [KIND_TEXT] = {"text", "Cache-Control: max-age=60\r\n", "Cache-Tag: %s,%s\r\n", 3000, true},
    [KIND_MINE] = {"mine", "Cache-Control: max-age=60\r\n", "Surrogate-Key: %s %s\r\n", 800, true},
};

const char board_routes[] =
    "cache { ttl = \"5m\" max_items = 20000 max_bytes = \"%s\" }\n"
    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
    "route \"/polled/*\" { upstream = \"u\" cache { } poll { min_interval = \"1s\" } }\n"
    "route \"/text/*\" { upstream = \"u\" cache { compress = {\"gzip\"} } }\n"
    "route \"/mine/*\" { upstream = \"u\" cache { partition = \"header:X-Who\" } }\n"
    "route \"/*\" { upstream = \"u\" cache { } }\n";

unsigned chaos_count(const char *variable, unsigned full, unsigned brief)
{
    const char *text = getenv(variable);
    if (text && *text)
        return (unsigned)strtoul(text, NULL, 10);
    return getenv("POLDER_LONG") ? full : brief;
}

/* ---- resources ---- */

struct resource resource_of(uint32_t number)
{
    return (struct resource){number, (enum kind)(number / (GROUPS * MEMBERS)),
                             number / MEMBERS % GROUPS, number % MEMBERS};
}

void resource_path(struct resource r, char path[64])
{
    snprintf(path, 64, "/%s/%u/%u", kinds[r.kind].name, r.group, r.member);
}

bool resource_parse(const char *path, struct resource *r)
{
    char name[16];
    unsigned group, member;
    if (sscanf(path, "/%15[a-z]/%u/%u", name, &group, &member) != 3 || group >= GROUPS ||
        member >= MEMBERS)
        return false;
    for (unsigned kind = 0; kind < KINDS; kind++)
        if (!strcmp(name, kinds[kind].name)) {
            *r = resource_of((kind * GROUPS + group) * MEMBERS + member);
            return true;
        }
    return false;
}

/* No two versions in a row are of one length. */
size_t body_len(struct resource r, uint32_t version)
{
    return kinds[r.kind].size + version % 13 * 37 + r.member;
}

static void stamp(char out[STAMP], uint32_t who, uint32_t version, uint32_t i)
{
    static const char hex[] = "0123456789abcdef";
    for (unsigned d = 0; d < 4; d++)
        out[d] = hex[who >> (12 - 4 * d) & 15];
    for (unsigned d = 0; d < 8; d++)
        out[4 + d] = hex[version >> (28 - 4 * d) & 15];
    for (unsigned d = 0; d < 4; d++)
        out[12 + d] = hex[i >> (12 - 4 * d) & 15];
}

static uint32_t who_of(struct resource r, unsigned variant)
{
    return r.number | variant << 12;
}

size_t body_make(struct resource r, unsigned variant, uint32_t version, char *out)
{
    const size_t len = body_len(r, version);
    char last[STAMP];
    size_t at = 0;
    for (; at + STAMP <= len; at += STAMP)
        stamp(out + at, who_of(r, variant), version, (uint32_t)(at / STAMP));
    stamp(last, who_of(r, variant), version, (uint32_t)(at / STAMP));
    memcpy(out + at, last, len - at);
    return len;
}

bool body_version(struct resource r, unsigned variant, const char *body, size_t len,
                  uint32_t *version)
{
    unsigned who, v;
    char text[13];
    if (len < STAMP)
        return false;
    memcpy(text, body, 12);
    text[12] = 0;
    if (sscanf(text, "%4x%8x", &who, &v) != 2 || who != who_of(r, variant))
        return false;
    *version = v;
    return true;
}

/* ---- the board ---- */

struct board *board_open(void)
{
    struct board *b =
        mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(b != MAP_FAILED);
    for (unsigned i = 0; i < RESOURCES; i++) {
        atomic_store(&b->version[i], 1);
        atomic_store(&b->acknowledged[i], 1);
    }
    b->began_ms = mono_ms();
    return b;
}

void board_close(struct board *b)
{
    munmap(b, sizeof *b);
}

void board_note(struct board *b, const char *fmt, ...)
{
    const unsigned n = atomic_fetch_add(&b->notes, 1);
    va_list ap;
    if (n >= NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(b->note[n], sizeof b->note[n], fmt, ap);
    va_end(ap);
}

void board_acknowledge(struct board *b, uint32_t resource, uint32_t version)
{
    unsigned seen = atomic_load(&b->acknowledged[resource]);
    while (seen < version &&
           !atomic_compare_exchange_weak(&b->acknowledged[resource], &seen, version))
        ;
}

double board_hit_rate(const struct board *b, uint64_t from_ms, uint64_t to_ms)
{
    unsigned long answers = 0, hits = 0;
    const uint64_t first = (from_ms - b->began_ms) / SLICE_MS,
                   end = (to_ms - b->began_ms + SLICE_MS - 1) / SLICE_MS;
    for (uint64_t i = first; i < end && i < SLICES; i++) {
        answers += atomic_load(&b->slice[i].answers);
        hits += atomic_load(&b->slice[i].hits);
    }
    return answers ? 100.0 * (double)hits / (double)answers : -1;
}

void board_judge(const struct board *b, const char *story)
{
    const double seconds = (double)(mono_ms() - b->began_ms) / 1000;
    printf(
        "chaos: %s: %.1f s, %llu answers (%.0f/s), %.1f %% hits, %llu bytes of bodies; %llu 304, "
        "%llu 206, %llu HEAD, %llu gzip; slowest %u ms\n",
        story, seconds, b->answers, (double)b->answers / seconds,
        b->answers ? 100.0 * (double)b->hits / (double)b->answers : 0, b->bytes, b->not_modified,
        b->parts, b->heads, b->coded, b->slowest_ms);
    if (b->updates)
        printf(
            "chaos: %s: %llu updates (%.0f/s): %llu by URL, %llu by tag, %llu by prefix, %llu of "
            "all, %llu by POST; %llu told to try again, %llu unacknowledged\n",
            story, b->updates, (double)b->updates / seconds, b->by_url, b->by_tag, b->by_prefix,
            b->by_all, b->by_post, b->busy, b->failed);
    printf("chaos: %s: older %llu, wrong %llu, truncated %llu, nonsense %llu; cut %llu, refused "
           "%llu, late %llu\n",
           story, b->older, b->wrong, b->truncated, b->nonsense, b->cut, b->refused, b->late);
    for (unsigned i = 0; i < b->notes && i < NOTES; i++)
        printf("chaos: %s: %s\n", story, b->note[i]);
    fflush(stdout);
    assert_true(b->answers > 0);
    assert_int_equal(b->older, 0);
    assert_int_equal(b->wrong, 0);
    assert_int_equal(b->truncated, 0);
    assert_int_equal(b->nonsense, 0);
    assert_int_equal(b->late, 0);
}

/* ---- the backend ---- */

static unsigned variant_asked(const struct asked *ask, struct resource r)
{
    const char *text = r.kind == KIND_VARY   ? field_of(&ask->m, "Accept-Language")
                       : r.kind == KIND_MINE ? field_of(&ask->m, "X-Who")
                                             : NULL;
    return text ? (unsigned)(text[0] - '0') % VARIANTS : 0;
}

static void think(struct board *b)
{
    static _Thread_local unsigned seed;
    const unsigned most = atomic_load(&b->delay_us);
    if (!seed)
        seed = (unsigned)(uintptr_t)&seed;
    if (most && rand_r(&seed) % 4 == 0) {
        struct timespec t = {0, (long)((unsigned)rand_r(&seed) % most) * 1000};
        nanosleep(&t, NULL);
    }
}

static bool send_chunks(struct asked *ask, const char *body, size_t len, struct board *b)
{
    bool ok = true;
    for (size_t at = 0; ok && at < len; at += 60000) {
        const size_t n = len - at < 60000 ? len - at : 60000;
        ok = reply(ask, "%zx\r\n", n) && reply_bytes(ask, body + at, n) && reply(ask, "\r\n");
        think(b);
    }
    return ok && reply(ask, "0\r\n\r\n");
}

static bool send_body(struct asked *ask, struct resource r, unsigned variant, uint32_t version,
                      const char *lines, struct board *b)
{
    const bool chunked = r.kind == KIND_HUGE;
    char *body = malloc(BODY_MOST), framing[64];
    const size_t len = body_make(r, variant, version, body);
    snprintf(framing, sizeof framing,
             chunked ? "Transfer-Encoding: chunked" : "Content-Length: %zu", len);
    bool ok =
        reply(ask, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n%s%s\r\n\r\n", lines, framing);
    if (strcmp(ask->method, "HEAD") != 0) {
        if (chunked)
            ok = ok && send_chunks(ask, body, len, b);
        else
            ok = ok && reply_bytes(ask, body, len);
    }
    free(body);
    return ok;
}

/* A POST raises its own version; with "?group" in the target that of a whole group, which it names
 * in Cache-Group-Invalidation. The answer says "number:version" of all it has raised. */
static bool answer_post(struct asked *ask, struct resource r, struct board *b)
{
    char raised[512], lines[64] = "";
    const uint32_t first = r.number - r.member;
    const bool group = strstr(ask->target, "?group") != NULL;
    int n = 0;
    for (uint32_t i = 0; i < MEMBERS; i++)
        if (group || i == r.member)
            n += snprintf(raised + n, sizeof raised - (size_t)n, "%s%u:%u", n ? " " : "", first + i,
                          atomic_fetch_add(&b->version[first + i], 1) + 1);
    if (group)
        snprintf(lines, sizeof lines, "Cache-Group-Invalidation: \"g%u-%u\"\r\n", r.kind, r.group);
    return reply(ask, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", n, lines, raised);
}

bool board_answers(struct asked *ask)
{
    struct board *b = ask->arg;
    struct resource r;
    char lines[512], group[32], self[32], etag[32];
    if (!resource_parse(ask->target, &r))
        return reply(ask, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    if (!strcmp(ask->method, "POST"))
        return answer_post(ask, r, b);
    const uint32_t version = atomic_load(&b->version[r.number]);
    const unsigned variant = variant_asked(ask, r);
    think(b); /* what was read above may be outdated when it arrives */
    snprintf(group, sizeof group, "g%u-%u", r.kind, r.group);
    snprintf(self, sizeof self, "m%u", r.number);
    snprintf(etag, sizeof etag, "\"%u-%u\"", variant, version);
    int n = snprintf(lines, sizeof lines, "%s", kinds[r.kind].freshness);
    n += snprintf(lines + n, sizeof lines - (size_t)n, kinds[r.kind].tag_field, group, self);
    if (kinds[r.kind].etag) {
        snprintf(lines + n, sizeof lines - (size_t)n, "ETag: %s\r\n", etag);
        const char *known = field_of(&ask->m, "If-None-Match");
        if (known && strstr(known, etag))
            return reply(ask, "HTTP/1.1 304 Not Modified\r\n%s\r\n", lines);
    }
    return send_body(ask, r, variant, version, lines, b);
}
