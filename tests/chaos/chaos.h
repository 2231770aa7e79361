/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * chaos: readers who believe nothing, a writer who keeps score, and deaths in between.
 *
 * The board, in memory that all processes of a story share, has for each resource the version that
 * its backend would answer with now, and the last version whose invalidation was acknowledged.
 * Every byte of a body follows from resource, variant and version, so a reader can tell an older
 * version, a mixture of two, and a body that is shorter than it should be.
 *
 *   board.c    resources, bodies, the backend
 *   visitor.c  one keep-alive connection that survives being cut
 *   reader.c   processes that read at random and judge each answer
 *   writer.c   raises versions and invalidates, by the admin socket and by POST
 *   trio.c     three machines whose packets to each other can be lost, with a store and a host each
 *   deaths.c   who kills whom, and what the house looks like afterwards
 *
 * Stories run for a few seconds in `make test`, and in full with POLDER_LONG=1 or `make chaos`.
 */
#ifndef POLDER_TEST_CHAOS_H
#define POLDER_TEST_CHAOS_H
#include "harness.h"

/* The number in the environment, else full with POLDER_LONG set, else brief. */
unsigned chaos_count(const char *variable, unsigned full, unsigned brief);

/* ---- resources ---- */
enum kind {
    KIND_PLAIN,   /* small, fresh for a minute */
    KIND_BARE,    /* says nothing of freshness, no ETag: both are Polder's */
    KIND_VARY,    /* a variant for each of four languages */
    KIND_SWR,     /* fresh for a second, then stale-while-revalidate */
    KIND_SHORT,   /* fresh for a second, then validated */
    KIND_CAREFUL, /* no-cache: validated each time */
    KIND_BIG,     /* 50 KB, a chunked record */
    KIND_HUGE,    /* 400 KB, chunked by the backend too */
    KIND_POLLED,  /* a route with poll { } */
    KIND_MINE,    /* a partition for each of four identities */
    KIND_TEXT,    /* a route with compress */
    KINDS
};
#define GROUPS    4
#define MEMBERS   8
#define RESOURCES (KINDS * GROUPS * MEMBERS)
#define VARIANTS  4
#define BODY_MOST (512u << 10)

struct resource {
    uint32_t number; /* 0 … RESOURCES - 1 */
    enum kind kind;
    unsigned group, member;
};
struct resource resource_of(uint32_t number);
/* "/plain/1/2" */
void resource_path(struct resource r, char path[64]);
/* False: no such resource. */
bool resource_parse(const char *path, struct resource *r);
size_t body_len(struct resource r, uint32_t version);
/* Fills out, BODY_MOST bytes; returns the length. */
size_t body_make(struct resource r, unsigned variant, uint32_t version, char *out);
/* The version that a whole body, or its first stamp, claims; false: it is no stamp of this
 * resource and variant. */
bool body_version(struct resource r, unsigned variant, const char *body, size_t len,
                  uint32_t *version);

/* ---- the board ---- */
#define SLICE_MS 100 /* of the time line */
#define SLICES   6000
#define NOTES    12

struct slice {
    atomic_uint answers, hits;
};
struct board {
    atomic_uint version[RESOURCES], acknowledged[RESOURCES];
    atomic_bool stop;
    atomic_uint delay_us; /* the backend thinks for up to so long, now and then */
    uint64_t began_ms;
    /* what readers have seen */
    atomic_ullong answers, hits, not_modified, parts, heads, coded, bytes;
    atomic_ullong older, wrong, truncated, nonsense; /* never */
    atomic_ullong cut, refused, late;                /* what deaths may cost */
    atomic_uint slowest_ms;
    struct slice slice[SLICES];
    /* what writers have done */
    atomic_ullong updates, busy, failed, by_url, by_tag, by_prefix, by_all, by_post;
    /* the first violations, as text */
    atomic_uint notes;
    char note[NOTES][512];
};
struct board *board_open(void);
void board_close(struct board *b);
void board_note(struct board *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints what was seen; fails the test if a reader saw what nobody may see. */
void board_judge(const struct board *b, const char *story);
void board_acknowledge(struct board *b, uint32_t resource, uint32_t version);
/* Hits in percent of the answers between two moments; -1: no answers. */
double board_hit_rate(const struct board *b, uint64_t from_ms, uint64_t to_ms);
/* A backend_fn; its argument is the board. */
bool board_answers(struct asked *ask);
/* The configuration that suits the resources, for house_start(): max_bytes and the backend's port
 * follow as arguments. */
extern const char board_routes[];

/* ---- a connection ---- */
enum outcome {
    VISIT_DONE,
    VISIT_CUT,     /* the connection ended before the answer was whole */
    VISIT_REFUSED, /* no connection */
    VISIT_LATE,    /* nothing for 15 s */
    VISIT_NONSENSE /* no HTTP */
};
struct visitor {
    int fd; /* -1: connects with the next question */
    unsigned port;
    char *buf;
    size_t end, used;
};
struct answer {
    int status;
    char *head; /* NUL-terminated lines */
    char *body;
    size_t body_len;
    bool close;
};
void visitor_init(struct visitor *v, unsigned port);
void visitor_fini(struct visitor *v);
/* Sends one request and reads its answer, which lives until the next call. */
enum outcome visitor_ask(struct visitor *v, const char *request, bool to_head, struct answer *a);
/* Copies the field's value; false: absent. */
bool answer_field(const struct answer *a, const char *name, char *value, size_t size);

/* ---- readers ---- */
#define READERS_MOST 64
struct readers {
    pid_t pid[READERS_MOST];
    unsigned n;
};
/* Forked; they read until board->stop. */
void readers_start(struct readers *r, struct board *b, unsigned port, unsigned n);
void readers_join(struct readers *r, struct board *b);

/* ---- the writer ---- */
struct writer_plan {
    unsigned per_second; /* 0: as fast as it goes */
    bool tolerant;       /* control and workers are killed under it */
    bool gentle;         /* only one URL at a time, so that hit rates can be compared */
    bool fleet;          /* other hosts are read: no POST, whose answer does not wait for them */
};
/* One process that updates and invalidates until board->stop. */
pid_t writer_start(struct board *b, const char *sock, unsigned port, struct writer_plan plan);

/* ---- deaths ---- */
/* Any child by title, "polderd: worker"; 0: none there now. */
pid_t victim_of(struct house *h, const char *title);
/* Kilobytes of the largest data.mdb under the house's state directory, as blocks. */
unsigned long store_kib(struct house *h);
unsigned long long stat_of(struct house *h, const char *key); /* of `cache stats` */
#endif
