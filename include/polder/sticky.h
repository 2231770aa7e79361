/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sticky: keeps a client, or a session, at one server of an upstream (`sticky`).
 *
 * A key's server is found by weighted rendezvous: each server has a score made of the key, its id
 * and its share, and the lowest wins. Nothing is stored, all processes agree, and where a share
 * changes only those keys move that have to. A session that a backend has named itself (`sticky =
 * "header:NAME"`, in an answer) stays at that server: such sessions are remembered in a page.
 *
 * struct sticky_page (state_dir/sticky.page): a bounded set of sessions. Each is one word (a part
 * of its hash, a part of the server's id, the minute of its last use), changed by compare-and-swap
 * by any worker; death on any line leaves the old word or the new one. A full bucket gives up what
 * was used longest ago. Two sessions with the same part of the hash would share a word: one of them
 * goes to a server that does not know it, with a chance of about 1 in 10^7.
 *
 * struct sticky_counts: how requests spread over keys, so that one that has too many is noticed. By
 * upstream, a count for each of some hundred parts of the hash; workers add, control reads and
 * resets. Only approximate: a count may be lost with a reset.
 */
#ifndef POLDER_STICKY_H
#define POLDER_STICKY_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Polder's own cookie, which backends never see. */
#define STICKY_COOKIE      "polder_side"
#define STICKY_VALUE       16   /* hex digits */
#define STICKY_IDLE_MIN    1440 /* a session that was not used for so long is forgotten */
#define STICKY_NAME_MAX    256  /* bytes of a session's name */
#define STICKY_UPSTREAMS   32
#define STICKY_CELLS       512
#define STICKY_TOP_MIN     100 /* requests; of fewer nothing is said */
#define STICKY_TOP_PERCENT 20

struct sticky_key {
    uint64_t hash;   /* 0: there is none */
    uint32_t server; /* sticky_server_part() of the one that it is known to belong to; 0: none */
    bool fresh;      /* made up for a client that has none yet */
};

uint64_t sticky_hash(const void *at, size_t len); /* never 0 */
/* The lowest wins. weight: not 0. */
double sticky_score(uint64_t hash, uint64_t server_id, double weight);
static inline uint32_t sticky_server_part(uint64_t server_id)
{
    return (uint32_t)(server_id >> 40) | 1u << 24; /* never 0 */
}
/* The value of Polder's cookie. False: it is none. */
bool sticky_value_read(const char *at, size_t len, uint64_t *hash);
void sticky_value_write(uint64_t hash, char out[STICKY_VALUE]);

/* ---- sessions ---- */
struct sticky_page;
size_t sticky_page_size(void);
uint64_t sticky_page_layout(void);
void sticky_remember(struct sticky_page *page, uint64_t hash, uint64_t server_id, uint64_t real_ms);
/* sticky_server_part(), or 0: it is not known (any more). Counts as a use. */
uint32_t sticky_recall(struct sticky_page *page, uint64_t hash, uint64_t real_ms);

/* ---- keys that have too many requests ---- */
struct sticky_counts {
    struct {
        _Alignas(64) _Atomic uint64_t upstream; /* hash of its name; 0: free */
        _Atomic uint32_t total;
        _Atomic uint32_t top_percent, top_of; /* of the last interval, by control */
        _Atomic uint32_t cell[STICKY_CELLS];
    } of[STICKY_UPSTREAMS];
};
void sticky_count(struct sticky_counts *counts, const char *upstream, uint64_t hash);
/* For control: ends an interval. */
void sticky_counts_turn(struct sticky_counts *counts);
/* Percent of the requests of the last interval that one key had at most; 0: too few. */
uint32_t sticky_top_percent(const struct sticky_counts *counts, const char *upstream);
#endif
