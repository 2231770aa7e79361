/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_state: what all processes know of each server of an upstream, in one shared table.
 *
 * A row belongs to a server by its id (stats_server_id(): upstream and name as written), not to a
 * configuration: it survives a reload for each server that stays, and a respawn of any process.
 * Workers and control take their rows when they start (server_claim()); the supervisor, which is a
 * daemon of its own, gets the table's descriptor from each worker and only looks rows up.
 *
 * Writers: any process that has sent a request to the server. The state is one word (state, reason,
 * failures in a row, failed trials, since when), changed by compare-and-swap: each process sees a
 * whole state, one process alone makes each move and logs it, and a process killed on any line
 * leaves either the old state or the new one. The other words of a row are independent counters and
 * times. The addresses of a row have one writer (server_names.h) and two copies.
 *
 *   UP    gets its share. Failures in a row are counted; as many as the last one's reason
 *         allows make it DOWN. Any response head, of any status, resets the count to 0.
 *   DOWN  gets nothing while others are UP, but one trial at a time over all processes: when
 *         retry_ms has come, the process that moves it on by a lease has the trial. A response
 *         makes it UP; a failed trial doubles the pause (SERVER_PAUSE_MS up to the maximum of its
 *         reason). The lease of a process that died with a trial runs out.
 *   EJECTED  the same for one that answers, but badly: with SERVER_EJECT_ERRORS errors in a row,
 *         or worse than the others of its upstream. It is away for SERVER_EJECT_MS times `level`,
 *         up to SERVER_EJECT_MAX_MS, then one trial decides. The level falls by one for each
 *         SERVER_GOOD_MS that it is UP. Only a good answer to a trial, or one of a time when no
 *         server was UP, makes it UP again: what was under way before says nothing new. The caller
 *         never ejects the last one that is UP.
 *
 * The share of a server grows from a hundredth to the whole after it is UP, during slow_start of
 * its upstream, or SERVER_RETURN_MS after an ejection (server_warmth()); so it does from when it
 * passes its checks again.
 *
 * Beside the state stands what active checks have found (server_check.h): a server that fails them
 * counts as down, whatever its state, and gets no trials; one that asks for less gets less.
 *
 * The table outlives a restart where there is a store for descriptors (server_table_mend()).
 *
 * If all servers of an upstream are down they are tried anyway: an upstream with one server never
 * refuses because of the state.
 */
#ifndef POLDER_SERVER_STATE_H
#define POLDER_SERVER_STATE_H
#include "polder/shm.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SERVER_ROWS          1024 /* those of four configurations side by side */
#define SERVER_LAYOUT        3    /* of a row, which has room to grow within its size */
#define SERVER_ADDRESSES_MAX 16
#define SERVER_PAUSE_MS      1000
#define SERVER_LEASE_MS      60000 /* the longest lease of a trial */
#define SERVER_NOTIFIED_MS   1000  /* at most one error line per server in this time */
#define SERVER_REPEATED_MS   60000 /* the same of trials that find what is known already */
#define SERVER_EJECT_ERRORS  5     /* in a row */
#define SERVER_EJECT_MS      10000
#define SERVER_EJECT_MAX_MS  300000
#define SERVER_GOOD_MS       60000
#define SERVER_RETURN_MS     10000

enum server_state { SERVER_UP, SERVER_DOWN, SERVER_EJECTED };

/* Why an attempt failed. REASON(id, metric label, most ms between trials, failures in a row that
 * make it DOWN; 0: never, text) */
#define SERVER_REASON_TABLE(REASON)                                                                \
    REASON(NONE, "none", 0, 0, "-")                                                                \
    REASON(REFUSED, "refused", 1000, 1, "connection refused")                                      \
    REASON(UNREACHABLE, "unreachable", 4000, 1, "unreachable")                                     \
    REASON(NO_ADDRESS, "no_address", 4000, 1, "name without an address")                           \
    REASON(CONNECT_TIMEOUT, "connect_timeout", 8000, 1, "connect timeout")                         \
    REASON(TIMEOUT, "timeout", 32000, 2, "response timeout")                                       \
    REASON(CLOSED, "closed", 32000, 3, "closed without a response")                                \
    REASON(MALFORMED, "malformed", 32000, 3, "malformed response")                                 \
    REASON(TOO_LARGE, "too_large", 32000, 3, "response head too large")                            \
    REASON(CUT, "cut", 0, 0, "response cut short")                                                 \
    REASON(STATUS, "error_status", 32000, SERVER_EJECT_ERRORS, "error status")                     \
    REASON(OUTLIER, "worse_than_others", 0, 0, "more errors than its group")
enum server_reason {
#define REASON(id, label, pause, allowed, text) SERVER_##id,
    SERVER_REASON_TABLE(REASON)
#undef REASON
        SERVER_REASONS
};
const char *server_reason_label(enum server_reason reason); /* of metrics and RPC */
const char *server_reason_text(enum server_reason reason);

struct server_address {
    uint8_t addr[16]; /* network order; IPv4: the first four */
    uint32_t scope;   /* IPv6 link-local */
    uint16_t family;  /* AF_INET, AF_INET6 */
    uint16_t port;    /* network order */
};
struct server_addresses {
    uint32_t n; /* 0: the name does not resolve (yet) */
    uint32_t pad_;
    struct server_address at[SERVER_ADDRESSES_MAX];
};

struct server_row {
    /* The state; see struct server_view. Any process, compare-and-swap. */
    _Alignas(128) _Atomic uint64_t word;
    /* DOWN: the next trial may begin then (mono ms). Stored before DOWN is, moved on by the process
     * that takes a trial (compare-and-swap), and set by one whose trial has failed. */
    _Atomic uint64_t retry_ms;
    _Atomic uint64_t error_ms;    /* mono, of the last error; relaxed */
    _Atomic uint64_t notified_ms; /* of the last line in the log; compare-and-swap */
    _Atomic uint64_t untold;      /* errors since then */
    _Atomic uint64_t upgrades;    /* WebSocket handshakes sent: the supervisor adds */
    _Atomic uint64_t errors[16];  /* by reason; any process adds; relaxed */
    _Atomic uint64_t ejections;   /* how often it was ejected; relaxed */
    /* Of the last ejection: stored by the process that makes the move, before it does. Death in
     * between leaves a longer pause for the next one. */
    _Atomic uint32_t level;
    uint32_t pad_;
    /* control alone: see server_check.h. How checks ended, by enum server_check_result; answers
     * whose Polder-Weight could not be read. */
    _Atomic uint64_t check, checks[8], bad_weights;
    /* The addresses of a name. It fills the copy that is not in use, then stores the next
     * number (release); 0: never filled. Death in between leaves the copy in use unchanged. */
    _Alignas(128) _Atomic uint64_t generation; /* & 1: which copy */
    struct server_addresses copy[2];
    /* Of a name; the writer of its addresses, so that the next one goes on with it: it is asked for
     * again then (mono ms; 0: it never was), and lookups that failed since the last one that did
     * not. */
    _Atomic uint64_t due_ms;
    _Atomic uint32_t lookups_failed;
};
_Static_assert(sizeof(struct server_address) == 24, "layout");
_Static_assert(sizeof(struct server_row) == 1280, "shared with the supervisor");
_Static_assert(SERVER_REASONS <= 16, "fits beside the state, and into errors");

/* What a process has under way at a server, for sums over all of them (server_load.h). */
struct server_load {
    /* Its process alone, but for a reset after its death. */
    _Atomic uint32_t busy;                       /* requests that it is sent, or will be */
    _Atomic uint32_t requests, retries, waiting; /* of the whole upstream, at its first server */
    _Atomic uint64_t waits_since_ms; /* the oldest of those that wait for room (mono); 0: none */
    uint64_t pad_;
};
#define SERVER_LOADS 129 /* a row a worker slot, and one of the supervisor, the last */

struct server_table {
    struct shm_header header;
    /* Server ids; 0: free row. Claimed by compare-and-swap, freed by control. */
    _Alignas(128) _Atomic uint64_t id[SERVER_ROWS];
    struct server_row row[SERVER_ROWS];
    _Alignas(128) struct server_load load[SERVER_LOADS][SERVER_ROWS];
    _Atomic uint32_t loads; /* only those before this one were ever used */
};

static inline uint64_t server_table_layout(void)
{
    return (uint64_t)sizeof(struct server_table) << 32 | SERVER_LAYOUT << 16 |
           offsetof(struct server_table, row);
}

/* ---- rows ---- */
/* The row of that server, claimed if there is none. NULL: the table is full. */
struct server_row *server_claim(struct server_table *table, uint64_t id, uint64_t now_ms);
/* NULL: there is none. */
struct server_row *server_find(struct server_table *table, uint64_t id);
/* control: frees rows of servers that no configuration in use has; only once the table is half
 * full, so a server that soon returns finds its row. wanted(): is that id in use? */
void server_sweep(struct server_table *table, bool (*wanted)(void *arg, uint64_t id), void *arg);

/* A table of an earlier run, all of whose processes but the supervisor are dead (kept.h). Rows that
 * cannot be are freed, times to come are bounded, counters are 0, and nothing is under way. What a row says is of
 * before; it is proven again by the next trial or check, or its time runs out. */
void server_table_mend(struct server_table *table, int fd, uint64_t now_ms);
/* Only where no process uses it. */
void server_row_free(struct server_table *table, uint32_t i);

/* ---- the state ---- */
struct server_view {
    enum server_state state;
    enum server_reason reason; /* of the last error; SERVER_NONE: there was none */
    uint32_t failures;         /* in a row */
    uint32_t trials;           /* failed trials since it is DOWN */
    bool returned;             /* UP: it was EJECTED before */
    uint64_t since_ms;         /* of the state, mono */
};
struct server_view server_view(const struct server_row *row);
/* server_row.check: state and weight of the last change, and since when it is down by checks, or not
 * (mono, from bit 24 on); the words are in server_check.h. */
#define SERVER_CHECK_DOWN     UINT64_C(1)
#define SERVER_CHECK_DRAIN    UINT64_C(2)
#define SERVER_CHECK_RETURNED UINT64_C(8) /* not down, but it was */
#define SERVER_IS_RETURNED    (UINT64_C(1) << 23)
/* It answers, and is not kept out. */
static inline bool server_is_up(const struct server_row *row)
{
    return (atomic_load_explicit(&row->word, memory_order_relaxed) & 15) == SERVER_UP &&
           !(atomic_load_explicit(&row->check, memory_order_relaxed) & SERVER_CHECK_DOWN);
}
/* It wants no new requests: only if no other is left. */
static inline bool server_drains(const struct server_row *row)
{
    return atomic_load_explicit(&row->check, memory_order_relaxed) & SERVER_CHECK_DRAIN;
}
/* The share of requests that a weight means now, in parts of SERVER_SHARE: less while a server that
 * has just become UP, or is new, is warming up. */
#define SERVER_SHARE 100
static inline uint32_t server_warmth(const struct server_row *row, uint32_t slow_start_ms,
                                     uint64_t now_ms)
{
    const uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed);
    const uint64_t check = atomic_load_explicit(&row->check, memory_order_relaxed);
    const uint64_t passes_ms = check & SERVER_CHECK_RETURNED ? check >> 24 : 0;
    const uint64_t since_ms = word >> 24 > passes_ms ? word >> 24 : passes_ms;
    const uint64_t up_ms = now_ms > since_ms ? now_ms - since_ms : 0;
    if (!slow_start_ms && word & SERVER_IS_RETURNED)
        slow_start_ms = SERVER_RETURN_MS;
    if (up_ms >= slow_start_ms)
        return SERVER_SHARE;
    return 1 + (uint32_t)(up_ms * (SERVER_SHARE - 1) / slow_start_ms);
}
/* Percent of its weight that it asks for in answers to checks; 100: all. */
static inline uint32_t server_percent(const struct server_row *row)
{
    const uint32_t less = (uint32_t)(atomic_load_explicit(&row->check, memory_order_relaxed) >> 8);
    return 100 - (less & 127);
}
/* A failed attempt. trial: it was a trial. True: this call has made the server DOWN. */
bool server_note_failure(struct server_row *row, enum server_reason reason, bool trial,
                         uint64_t now_ms);
/* An answer with an error status, which server_is_error() tells. others: there are others that are
 * UP, and it may be ejected; else it is only counted, and an answer as any other. True: this call
 * has EJECTED it. */
static inline bool server_is_error(unsigned status)
{
    return status == 500 || (status >= 502 && status <= 504);
}
bool server_note_error(struct server_row *row, bool trial, bool others, uint64_t now_ms);
/* EJECTED for that reason, if it is UP. True: by this call. */
bool server_eject(struct server_row *row, enum server_reason reason, uint64_t now_ms);
/* UP after all: no other one is left. */
void server_readmit(struct server_row *row, uint64_t now_ms);
/* A response head has come. trial: to a trial, or it was asked because no server was UP. True: this
 * call has made it UP. One load where all is well. */
bool server_note_answer(struct server_row *row, bool trial, uint64_t now_ms);
/* Takes the trial of a server that is DOWN or EJECTED, if it has been due for late_ms. No other
 * process gets one before *lease_ms, which is lasts_ms or SERVER_LEASE_MS from now. */
bool server_try(struct server_row *row, uint64_t now_ms, uint64_t late_ms, uint64_t lasts_ms,
                uint64_t *lease_ms);
/* The trial ended without a result: another request may take it. */
void server_untry(struct server_row *row, uint64_t lease_ms, uint64_t now_ms);

/* It seems to be there again: a trial of a server that is DOWN may begin now. */
void server_hurry(struct server_row *row, uint64_t now_ms);

/* Of a table that is kept: no time that is to come is further than a move of now would set it.
 * False: it cannot be. */
bool server_state_mend(struct server_row *row, uint64_t now_ms);

/* ---- the same with words for the operator ---- */
struct condition_table;
struct server_name {
    struct server_row *row;
    struct condition_table *conditions; /* NULL: no condition is raised */
    const char *upstream, *server;
};
/* Counts the failed attempt and logs it, once a second for each server, and once a minute where it
 * is a trial that has failed as the one before; what makes the server DOWN
 * or UP raises or clears COND_BACKEND_DOWN, which has a line of its own. what: a clause with the
 * server as its subject, "refused the connection". */
void server_report_failure(const struct server_name *name, enum server_reason reason,
                           const char *what, bool trial, uint64_t now_ms);
void server_report_answer(const struct server_name *name, bool trial, uint64_t now_ms);
/* True: it has been ejected, and the caller looks whether others are still UP; if so, it tells. */
bool server_report_error(const struct server_name *name, bool trial, bool others, uint64_t now_ms);
void server_report_ejection(const struct server_name *name, enum server_reason reason);

/* ---- addresses ---- */
/* Of a table that is kept: what cannot be is as if it had never been put. */
void server_addresses_mend(struct server_row *row);
/* Only for the one writer (server_names.h). True: they have changed. */
bool server_addresses_put(struct server_row *row, const struct server_addresses *list);
/* What a lookup has found, in the order of what was known: addresses that were known before keep
 * their places before new ones, because name servers answer in an order of their own each time. */
void server_addresses_merge(struct server_addresses *list, const struct server_address *found,
                            uint32_t n);
/* One of each family in turn, beginning with that of the first: if a family cannot be reached, the
 * second address is of the other one (RFC 8305, 4). */
void server_addresses_in_turn(struct server_address *at, uint32_t n);
bool server_addresses_have(const struct server_addresses *list, const struct server_address *a);
/* Another one with each other list; 0: none was ever put. Asked before the list is, it is never
 * newer than that. */
static inline uint64_t server_addresses_generation(const struct server_row *row)
{
    return atomic_load_explicit(&row->generation, memory_order_acquire);
}
/* A whole list; false: none was ever put. */
bool server_addresses_get(const struct server_row *row, struct server_addresses *out);
/* False: of a family that has no place here. */
bool server_address_from(const struct sockaddr *sa, struct server_address *out);
socklen_t server_address_to(const struct server_address *a, struct sockaddr_storage *out);
/* "127.0.0.1:8001", "[::1]:8001" */
void server_address_text(const struct server_address *a, char *out, size_t size);

#endif
