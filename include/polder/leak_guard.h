/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leak_guard: detects that shared content depends on the caller's identity.
 *
 * A backend that marks an answer `public` although it differs by cookie, or says nothing on a route
 * with a ttl, makes a shared cache give one user's content to another. For a sample of hits whose
 * identity differs from that of the copy a worker asks the backend again in the background: with
 * the identity and without it. If the answers depend on it, the URL is quarantined, after further
 * findings its directory, and finally the route: nothing of it is stored or served from the store,
 * in all workers at once, until checks find no difference any more, or an operator releases it.
 *
 * Three parts, none of which knows sockets:
 *
 *   names    which request fields identify the caller
 *   trial    what to ask next, and what the answers prove: a pure state machine
 *   page     which routes are quarantined, and what was seen: shared memory backed by
 *            state_dir/guard.page, so that a quarantine outlives every process
 */
#ifndef POLDER_LEAK_GUARD_H
#define POLDER_LEAK_GUARD_H
#include "polder/field.h"
#include "polder/shm.h"

/* ---- names ---- */

/* Does a field of that name identify the caller? own: further names in lower case that may end in
 * '*', as the configuration lists them. Case is ignored. */
bool guard_tells_who(struct str name, const char *const *own, uint32_t n_own);

/* cache_record.identity: a keyed hash of all these fields, 0 where there are none; the highest bits
 * say which ones. */
#define GUARD_ID_AUTHORIZATION (UINT64_C(1) << 63)
#define GUARD_ID_COOKIE        (UINT64_C(1) << 62)
#define GUARD_ID_OTHER         (UINT64_C(1) << 61)
#define GUARD_ID_KINDS         (UINT64_C(7) << 61)

/* ---- trial ---- */

#define GUARD_FIELDS_MAX 16 /* fields and cookies that are told apart */

enum guard_verdict {
    GUARD_OPEN,
    GUARD_SAME,     /* the content does not depend on the identity */
    GUARD_DIFFERS,  /* it does, by the fields in `named` */
    GUARD_UNSTABLE, /* it changes by itself: no verdict is possible */
    GUARD_FAILED,   /* the backend gave no usable answer */
};

/* An answer. `content` covers `shape`, so equal contents have equal shapes. */
struct guard_print {
    uint64_t content; /* status, the fields that describe the body, the body */
    uint64_t masked;  /* the same without what has a digit in it: times, counts, most tokens */
    uint64_t learned; /* the same for all that fit what two answers to all fields have in common */
    uint64_t shape;  /* status and type alone: tells 401 from 200 where bodies are never the same */
    bool refused;    /* 401 or 403 */
    bool is_learned; /* there is such a thing; from the answer to the turn GUARD_LEARNS on */
    bool usable;     /* complete, and neither a failure of the backend nor 429 */
};

/* What is known of one kind of print: are all answers with the fields equal, all those without
 * them, and has one kind been seen where the other belongs? */
struct guard_level {
    uint64_t with, without;
    bool any_with, any_without;
    bool with_same, without_same;
    bool with_met, without_met; /* one without has met `with`; one with has met `without` */
};

/* Plain data. Start it, then repeat: send the request without the fields of
 * guard_experiment_omits(), and pass the answer in. */
struct guard_experiment {
    struct guard_level content, masked, learned, shape;
    uint32_t fields; /* bit n: field n may be left out */
    uint32_t named;  /* GUARD_DIFFERS: those that change the content when they alone are missing;
                        all of them where none does alone */
    uint8_t verdict; /* enum guard_verdict */
    uint8_t requested, pairs;
    uint8_t field; /* that is being named … */
    uint8_t hits;  /* … and how many of its answers were like those without all */
};

/* Chance agreement of 16 answers that come in two kinds is one in 32 768; routes whose content was
 * seen to change by itself need more. */
#define GUARD_PAIRS     8
#define GUARD_PAIRS_MAX 16

/* n_fields: up to GUARD_FIELDS_MAX. 0: the request is anonymous, and the copy was fetched by an
 * identified one; it differs if the backend refuses such a request each time. pairs: answers with
 * and without that have to agree, 2..GUARD_PAIRS_MAX. */
void guard_experiment_start(struct guard_experiment *t, uint32_t n_fields, uint32_t pairs);
/* Masks a body as it comes: words of letters and digits that have a digit count as one mark each,
 * wherever the pieces end. *h starts with what the print covers beside the body. */
struct guard_mask {
    uint64_t hash, word;
    bool in_word, has_digit;
};
void guard_mask_start(struct guard_mask *m, uint64_t seed);
void guard_mask_add(struct guard_mask *m, const char *bytes, size_t len);
uint64_t guard_mask_end(struct guard_mask *m);

/* The turns whose answers are aligned (guard_words.h): the same request twice. */
#define GUARD_LEARNS_FROM 0
#define GUARD_LEARNS      3
/* The fields to leave out of the next request; only while the verdict is GUARD_OPEN. */
uint32_t guard_experiment_omits(const struct guard_experiment *t);
void guard_experiment_hear(struct guard_experiment *t, const struct guard_print *print);
/* It differs; by which fields may still be open. */
bool guard_experiment_is_proven(const struct guard_experiment *t);

/* ---- page ---- */

#define GUARD_ROUTES  2048
#define GUARD_SCOPES  8 /* parts of a route that are quarantined, at most; then the route is */
#define GUARD_CLOSED  UINT64_MAX
#define GUARD_NARROW  (UINT64_C(1) << 63)
#define GUARD_NAMES   112
#define GUARD_URL     256
#define GUARD_HOLD_MS 60000 /* how long a check of a dead worker keeps others from checking */

enum guard_notified {
    GUARD_NOTIFIED_NOBODY,
    GUARD_NOTIFIED_STORE, /* stored responses are invalidated, and waiters for a change woken */
    GUARD_NOTIFIED_LOG,
};

/* A quarantine: of a URL with any query, of what is below a directory, or of a route. */
struct guard_scope {
    _Atomic uint64_t since_ms; /* real; 0: free. Its setter writes the texts */
    _Atomic uint64_t tried_ms; /* real: end of the last check whether it still differs */
    _Atomic uint32_t len;      /* bytes of the text in url that it covers: all of it, or up to a '/'
                                  before its end. 0: the route's, or not in force (yet) */
    _Atomic uint32_t calm;     /* such checks in a row that found nothing … */
    _Atomic uint32_t differs;  /* … and those that found it again */
    _Atomic uint32_t notified; /* control: what it has done about it, enum guard_notified */
    _Atomic uint32_t names_len, url_len; /* valid bytes below; 0 while they are written */
    char names[GUARD_NAMES];             /* "cookie:sid, x-api-key" */
    char url[GUARD_URL];                 /* "host/path" where it was seen */
};

/* One route, by the hash of its pattern. Workers and control write, by single atomic steps. */
struct guard_route {
    /* Responses with a lower cache_record.fetch_seq are not served. GUARD_NARROW is set in it: some
     * of scope[1..] are in force; GUARD_CLOSED: scope[0] is. */
    _Alignas(64) _Atomic uint64_t gate;
    _Atomic uint64_t id; /* of the route; 0: free. Never changes afterwards */
    /* The rest is not looked at on a hit of a route where nothing is in force. Counts and due_ms
     * start again with the service. */
    _Alignas(64) _Atomic uint64_t due_ms; /* mono: no check before */
    _Atomic uint64_t same, differs, unstable, failed;
    _Atomic uint64_t checked_ms;                /* real: end of the last check */
    _Atomic uint32_t calm;                      /* checks in a row that found nothing */
    struct guard_scope scope[1 + GUARD_SCOPES]; /* of the whole, and of parts */
};
_Static_assert(sizeof(struct guard_route) == 3840, "wire format");

struct guard_page;
size_t guard_page_size(void);
uint64_t guard_page_layout(void);
/* Master, before any other process uses it: quarantines stay, counts start again. uuid: of the
 * history of invalidations (inval_uuid()); another one than before: the numbers in the gates mean
 * nothing. seq: its last number; after a crash of the machine a gate may be younger on disk. */
void guard_page_open(struct guard_page *page, const uint8_t uuid[16], uint64_t seq);
/* NULL: there is none, and `make` is false or there is no room (GUARD_ROUTES patterns seen). */
struct guard_route *guard_route_find(struct guard_page *page, uint64_t id, bool make);

static inline bool guard_is_closed(const struct guard_route *g)
{
    return atomic_load_explicit(&g->gate, memory_order_acquire) == GUARD_CLOSED;
}
/* What is in force and covers a URL ("host/path?query", as in cache keys); NULL: nothing. */
struct guard_scope *guard_scope_of(struct guard_route *g, const char *url, size_t len);
static inline bool guard_closes(struct guard_route *g, const char *url, size_t len)
{
    return (atomic_load_explicit(&g->gate, memory_order_acquire) & GUARD_NARROW) &&
           guard_scope_of(g, url, len);
}
/* May a response with that fetch_seq and URL be served? */
static inline bool guard_lets(struct guard_route *g, uint64_t fetch_seq, const char *url,
                              size_t len)
{
    const uint64_t gate = atomic_load_explicit(&g->gate, memory_order_acquire);
    return fetch_seq >= gate || ((gate & GUARD_NARROW) && fetch_seq >= (gate & ~GUARD_NARROW) &&
                                 !guard_scope_of(g, url, len));
}
/* Is it time for another check? */
static inline bool guard_is_due(const struct guard_route *g, uint64_t now_ms)
{
    return now_ms >= atomic_load_explicit(&g->due_ms, memory_order_relaxed);
}
/* True for one caller over all processes, which renews it while the check lasts, and ends it with
 * guard_route_settle(). */
bool guard_route_claim(struct guard_route *g, uint64_t now_ms);
void guard_route_renew(struct guard_route *g, uint64_t now_ms);
/* Nothing is counted, a check is due. */
void guard_route_begin_again(struct guard_route *g);
/* Pairs that the next trial of this route needs. */
uint32_t guard_route_pairs(const struct guard_route *g);
/* Counts the verdict and says when the next check may be: after min_ms and a second, and later if
 * nothing was found, or no verdict was possible, for long. */
void guard_route_settle(struct guard_route *g, enum guard_verdict verdict, uint64_t now_ms,
                        uint64_t real_ms, uint64_t min_ms);

/* ---- scopes: libshared/cache/guard_scope.c ---- */

struct inval_page;
/* From now on nothing of that URL ("host/path", without its query) is served or stored. The first
 * findings close one URL each; the third below one directory closes all that is below that, the
 * third such directory, or one finding more than there are places for, the route. A URL that is too
 * long closes its directory. Returns the scope that covers it. */
struct guard_scope *guard_close(struct guard_route *g, const char *url, size_t len,
                                uint64_t real_ms);
/* The whole route, whatever was found. */
struct guard_scope *guard_close_route(struct guard_route *g, const char *url, size_t len,
                                      uint64_t real_ms);
/* Responses fetched from now on may be served again. For the route: its parts are released too. */
void guard_release(struct guard_route *g, struct guard_scope *s, struct inval_page *inval);
bool guard_scope_holds(const struct guard_route *g, const struct guard_scope *s);
/* The nth (0..) of those in force; NULL: there are no more. */
struct guard_scope *guard_scope_at(struct guard_route *g, uint32_t n);
/* Sets the fields that the content differs by. Only for the process that has closed it. */
void guard_scope_name(struct guard_route *g, struct guard_scope *s, const char *names, size_t len);
/* Counts a check whether it still differs. */
void guard_scope_settle(struct guard_scope *s, enum guard_verdict verdict, uint64_t real_ms);
bool guard_scope_is_prefix(const struct guard_scope *s);
/* The texts, with a NUL; "" where there is none. covers: "" for a route, a directory ends in "*" */
void guard_scope_names(const struct guard_scope *s, char out[GUARD_NAMES + 1]);
void guard_scope_url(const struct guard_scope *s, char out[GUARD_URL + 1]);
void guard_scope_covers(const struct guard_scope *s, char out[GUARD_URL + 2]);
/* For guard_page_open(): frees scopes that are not in force. True: parts are in force. */
bool guard_scopes_mend(struct guard_route *g);
#endif
