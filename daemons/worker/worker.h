/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * worker: the process that speaks HTTP. Private to daemons/worker.
 *
 * The way of a request, by file:
 *
 *   accept.c  a connection becomes a struct client (client.c), with a PROXY header (proxyproto.c)
 *   client.c  bytes are read into the loop's one shared buffer and parsed in place; what is left
 *             over moves to a pooled buffer. An idle connection owns no buffer.
 *   request.c a parsed head finds its route, who asks (clientip), its limits (limits.c), and goes
 *             hit.c     answered from the store: no allocation, no lock, no clock (stored.c finds,
 *                       answer.c writes)
 *             miss.c    one of those who want it fetches, the others are parked (collapse.c)
 *             upstream.c straight to a backend
 *             hold.c    told later, when what the client has changes (Prefer: wait)
 *             guard.c   asks behind some hits whether their content depends on who asks
 *             handover.c a WebSocket: its socket moves to polder-supervisor
 *   ahead.c   bounds what is fetched before anybody waits for it: refresh.c, warm.c, asked.c
 *   exchange.c a struct exchange links a client with a connection to a backend (upstream.c,
 *             pool.c); reply.c reads what comes back, response.c writes heads, tee.c tees
 *             what may be stored into the keeper's ring, freshen.c judges what renews it,
 *             partial.c keeps parts of bodies.
 *
 * Ownership: the worker owns clients, exchanges and backend connections; a client has at most one
 * exchange, an exchange at most one backend connection; each of them is freed only at the end of an
 * iteration (loop.c, graveyard), so a callback never loses what it works on. An exchange may
 * outlive its client (the fetch goes on into the store) and may be born without one (background
 * revalidation). Back-pressure: who cannot be written to more than WORKER_HIGH bytes ahead is not
 * read for, on both legs.
 */
#ifndef POLDER_WORKER_H
#define POLDER_WORKER_H
#include "daemons/http/h1.h"
#include "polder/cache.h"
#include "polder/clientip.h"
#include "polder/coding.h"
#include "polder/config.h"
#include "polder/guard.h"
#include "polder/inflight.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/limit_try.h"
#include "polder/policy.h"
#include "polder/problem.h"
#include "polder/process.h"
#include "polder/ring.h"
#include "polder/runtime.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define WORKER_BUFFER    32768       /* bytes of a pooled buffer, and of one read */
#define WORKER_HIGH      (96u << 10) /* stop reading the other leg */
#define WORKER_LOW       (32u << 10) /* read it again */
#define WORKER_SCRATCH   (40u << 10) /* a head of H1_HEAD_MAX and all that we add to it */
#define WORKER_URL_MAX   (H1_TARGET_MAX * 3 + 1024)
#define WORKER_LINGER_MS 2000
#define WORKER_LINGERING 256 /* connections lingering at once; further ones are just closed */

struct worker;
struct client;
struct exchange;
struct upstream;

/* ---- buffer.c: pooled buffers and chains of them ---- */
struct buffer {
    struct buffer *next;
    uint32_t start, end; /* of the bytes in use */
    char data[WORKER_BUFFER];
};
struct chain {
    struct buffer *head, *tail;
    size_t len;
};
struct buffer *buffer_get(struct worker *w); /* NULL: no memory */
void buffer_put(struct worker *w, struct buffer *b);
void buffer_trim(struct worker *w); /* gives back what a burst left over */
bool chain_append(struct worker *w, struct chain *c, const char *bytes, size_t len);
unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max);
void chain_drop(struct worker *w, struct chain *c, size_t len);
void chain_free(struct worker *w, struct chain *c);
/* One sendmsg of iov if the chain is empty; what is not taken is appended. 0, or a negative errno:
 * the connection is gone. */
int chain_send(struct worker *w, struct chain *c, int fd, const struct iovec *iov, unsigned n);
/* The same, but only the first `keep` bytes are appended if they are not taken. Returns how many
 * were taken. */
ssize_t chain_send_some(struct worker *w, struct chain *c, int fd, const struct iovec *iov,
                        unsigned n, size_t keep);
/* Writes what the socket takes of the chain. 0, or a negative errno. */
int chain_flush(struct worker *w, struct chain *c, int fd);

/* ---- timer.c: one wheel; a later deadline costs one store ---- */
enum timer_kind { TIMER_CLIENT, TIMER_UPSTREAM, TIMER_EXCHANGE };
struct timer {
    struct timer *next, **link; /* link NULL: not armed */
    uint64_t due_ms, visit_ms;
    enum timer_kind kind;
};
#define TIMER_TICK_MS 250
#define TIMER_SLOTS   512
struct timer_wheel {
    struct timer *slot[TIMER_SLOTS];
    uint64_t tick; /* last one that was served */
    uint32_t armed;
};
void timer_set(struct worker *w, struct timer *t, uint64_t due_ms);
void timer_stop(struct worker *w, struct timer *t);
void timer_serve(struct worker *w); /* fires what is due, at most 1000 a call */

/* ---- what a request needs, whoever asks ---- */
struct limit_answer {
    const char *lines; /* complete header lines, "" where no limit applies */
    uint32_t len;
    bool refused, no_key; /* no_key: the key is missing, and missing = refuse */
    uint32_t retry_s;
    char violated[256]; /* ,"violated-policies":[…] */
};

/* Everything is borrowed: from the read buffer while a request is answered at once, from the
 * exchange's own memory afterwards. */
struct request {
    struct worker *worker;
    struct client *client;      /* NULL: fetched in the background, or the client has left */
    const struct h1_head *head; /* NULL: answered from the connection's memo */
    const struct config_route *route;
    struct field_text target; /* origin-form: the client's bytes, or respelled as the key has it */
    const char *path;         /* of the target, as sent; only while the head is looked at */
    size_t path_len;
    const char *url; /* "host/path?query" as in cache keys (polder/url.h) */
    uint32_t url_len;
    const char *partition; /* value of the route's partition */
    uint32_t partition_len;
    const char *limit_lines;
    uint32_t limit_len;
    struct cache_key key;     /* of url and partition; valid on cache routes */
    struct cache_key variant; /* from a memo, with the marker's checksum */
    uint64_t marker;
    struct clientip peer, ip; /* the connection's; who asks, behind trusted proxies */
    struct policy_request policy;
    struct field_text if_none_match, if_modified_since, range, if_range;
    uint64_t started_ns; /* 0: not measured */
    bool is_head, http10, keep_alive, trusted_peer, cacheable;
    bool post;          /* its response may answer later GETs */
    bool collapsed;     /* has waited for another request's fetch */
    uint8_t waited_fwd; /* enum fwd_reason: why */
    uint32_t wait_s;    /* Prefer: wait, as far as the route grants it; 0: not to be held */
    uint64_t until_ms;  /* the end of it, mono */
    uint32_t waited_s;  /* it was held: for Preference-Applied */
    bool tried;         /* what it was held for has been fetched in vain */
    uint8_t coding;     /* enum coding that its answer is best in */
};

/* ---- client.c ---- */
enum client_state {
    CLIENT_PROXY,   /* the PROXY header is expected */
    CLIENT_IDLE,    /* nothing of a request has come */
    CLIENT_HEAD,    /* part of a head has come */
    CLIENT_BUSY,    /* a request is being answered */
    CLIENT_DISCARD, /* answered; the rest of its body is read away */
    CLIENT_LINGER,  /* we have said FIN and read until the client does */
    CLIENT_CLOSED,
    CLIENT_STATES
};

/* The head a connection sent last, and all that followed from it. */
struct memo {
    struct memo *next, **link; /* worker.memos, oldest first */
    struct client *client;
    uint64_t generation; /* worker.generation it is good for */
    uint64_t used_ms;
    uint32_t len, url_len; /* bytes: head, then url */
    struct cache_key key, variant;
    uint64_t marker;
    const struct config_route *route;
    uint64_t limit_key[CONFIG_ROUTE_LIMITS_MAX]; /* 0: exempt */
    struct clientip peer, ip;
    uint32_t inm_at, inm_len; /* If-None-Match within the head; 0: none */
    bool is_head, http10, keep_alive, trusted_peer;
    uint8_t coding;
    char bytes[];
};
#define MEMO_SIZE 2048 /* whole allocation */
#define MEMO_MAX  1024 /* of a worker */

/* The rest of a stored body that is sent chunk by chunk. */
struct stored_send {
    uint64_t obj_id;  /* pinned */
    uint64_t at, end; /* body bytes [at, end) still to send */
};

struct client {
    ev_io read, write;
    struct timer timer;
    struct worker *worker;
    struct client *next, **link; /* worker.clients */
    struct client *ready_next;   /* worker.ready */
    struct buffer *in;           /* what was read and cannot be used yet; mostly NULL */
    struct chain out;            /* what the socket did not take; mostly empty */
    struct exchange *exchange;
    struct memo *memo;
    struct held *held; /* until something changes (hold.c) */
    struct stored_send *stored;
    struct h1_body body;  /* of the request being answered */
    size_t scanned;       /* of the head being read */
    uint64_t first_ms;    /* first byte of the head being read; start of lingering */
    uint64_t progress_ms; /* last byte read or written */
    struct clientip peer; /* the socket's, or the PROXY header's */
    /* keys of `concurrent` limits that its request is under way for; left in client_answered() and
     * when it goes */
    uint64_t inside[CONFIG_ROUTE_LIMITS_MAX];
    uint8_t n_inside;
    uint8_t state;     /* enum client_state; moved by client_move() alone */
    bool ready;        /* is on worker.ready */
    bool broken;       /* a write failed */
    bool eof;          /* the peer has said FIN */
    bool keep_alive;   /* after this response */
    bool answered;     /* the whole response has been written or queued */
    bool body_pending; /* the request has a body that is not read completely */
    bool body_wanted;  /* somebody takes body bytes now */
    bool body_told;    /* the client sends it without being asked (no Expect) */
    bool discard;      /* whatever else comes is dropped, then the end */
    bool seen_request; /* at least one */
    bool refused;      /* over a connection limit; not counted as open */
    uint16_t cell;     /* + 1, where it is counted for its client; 0: nowhere */
};

struct client *client_new(struct worker *w, int fd, const struct clientip *peer);
void client_move(struct client *c, enum client_state to);
void client_close(struct client *c);
void client_free(struct client *c);
/* Gives the descriptor away: closed for this worker, open for whoever gets it. */
int client_release(struct client *c);
bool client_may_keep(const struct client *c); /* the connection, after this answer */
/* Writes now what the socket takes and keeps the rest. Never frees: a failure is noticed at the end
 * of the iteration. */
void client_send(struct client *c, const struct iovec *iov, unsigned n);
/* Writes what the socket takes, and keeps of the rest only what belongs to the first `keep` bytes.
 * Returns how many bytes behind them were written. */
size_t client_send_some(struct client *c, const struct iovec *iov, unsigned n, size_t keep);
void client_send_bytes(struct client *c, const char *bytes, size_t len);
/* The whole response has been handed to client_send(). */
void client_answered(struct client *c);
/* The response cannot be completed: breaks the connection, so that nobody takes it for whole. */
void client_break(struct client *c);
void client_schedule(struct client *c); /* looked at again before the loop sleeps */
void client_run_ready(struct worker *w);
void client_want_body(struct client *c, bool wanted);
void client_timeout(struct client *c);
void client_update_timer(struct client *c);

/* ---- proxyproto.c: bytes consumed, 0: need more, -EPROTO ---- */
int proxyproto_read(struct client *c, const char *bytes, size_t len);

/* ---- accept.c ---- */
int accept_start(struct worker *w);
void accept_stop(struct worker *w);
void accept_resume(struct worker *w);
/* Counts the connection for its client; false: that is one too many, and 503 has been sent. */
bool client_admit(struct client *c, const struct clientip *ip);
void client_dismiss(struct client *c); /* counts it no longer */

/* ---- request.c ---- */
void request_begin(struct client *c, const struct h1_head *head);
void request_bad(struct client *c, enum problem problem);
/* A request that was held goes its way again; its limits have been charged (worker.prepaid). */
struct request_again {
    const char *bytes; /* its head */
    size_t len;
    const struct clientip *peer; /* whose it was, where there is no client; NULL: Polder's own */
    uint64_t until_ms;
    uint32_t wait_s, waited_s;
    bool tried;
};
void request_again(struct client *c, const struct request_again *again);
/* The same request as a plain GET without its client, for a fetch behind. False: it has no key. */
bool request_behind(struct worker *w, struct client *c, const struct request_again *again,
                    struct request *r);
void request_refuse(struct worker *w, const struct request *r, const struct limit_answer *answer);

/* ---- limits.c ---- */
/* Charges the limits of the request's route. keys: where to leave (or find, if known) the
 * hashed keys. The lines live in worker.limit_text until the next call. */
void limits_charge(struct worker *w, const struct request *r, uint64_t *keys, bool known,
                   struct limit_answer *answer);
bool limits_need_head(const struct config_route *route); /* to know whom they count */
void limits_leave(struct client *c);                     /* its request is no longer under way */
void limits_read(struct worker *w);    /* the running values, and whom limits exempt now */
void limits_prepare(struct worker *w); /* after the running values have changed */
void limits_free(struct worker *w);
/* The bytes that the request is counted by, in text[LIMITS_KEY_MAX]. Length; -ENODATA: it is not;
 * -ENOENT: the key is missing and that means refusal. */
#define LIMITS_KEY_MAX 4096
int limits_who(const struct request *r, const struct config_limit *l, char *text);

/* ---- tries.c ---- */
void tries_read(struct worker *w); /* with the running values: what is tried now */
/* What the limit was asked is asked the candidate, if there is one. admitted: by the limit. */
void tries_charge(struct worker *w, const struct request *r, const struct config_limit *l,
                  const struct limit_charge *charge, bool admitted);
/* Joins the values of key parts into out; spelled: parameters and cookies in the client's bytes,
 * not as what they mean. -ENOENT: one is missing; -EINVAL: one is there twice, with two values;
 * -ENOBUFS. */
int limits_key_text(const struct request *r, const struct config_key *parts, uint32_t n,
                    bool spelled, char *out, size_t size);

/* ---- hit.c ---- */
enum hit_result { HIT_ANSWERED, HIT_MISS, HIT_STALE, HIT_UNUSABLE };
/* What lookups leave behind for the miss that may follow. */
struct hit_found {
    bool vary_miss;            /* a marker is there, the variant is not */
    bool partial;              /* a part is there, but not what is asked for */
    struct cache_key key;      /* where the record lies, or would lie */
    uint64_t marker;           /* checksum of the marker that led there; 0: none */
    struct stored_copy *stale; /* the caller's to free; also set where stale was answered */
};
/* Answers the request from the store if that may be done. */
enum hit_result hit_try(const struct request *r, struct hit_found *found);

/* ---- stored.c ---- */
struct stored_copy {
    struct cache_key key;   /* under which it is stored (the variant's) */
    struct cache_view view; /* into bytes */
    size_t len;
    uint64_t since; /* inval_seq() when it was taken */
    bool pinned;    /* its chunks */
    _Alignas(8) char bytes[];
};
/* 1: a whole record that belongs to the request, in the map until cache_reader_release();
 * found->key is where it lies. 0, or -EIO. */
int stored_find(struct worker *w, const struct request *r, struct cache_view *v,
                struct hit_found *found);
/* What is kept beside the view's record in that coding. 1: *copy is in the map too; 0: nothing yet;
 * body_len 0: it is not worth having. */
int stored_find_coded(struct worker *w, const struct cache_view *v, enum coding coding,
                      struct cache_view *copy);
void stored_copy_key(const struct worker *w, const struct cache_key *source, enum coding coding,
                     struct cache_key *key);
void stored_touch(struct worker *w, const struct cache_record *rec); /* it was of use */
/* The same, by its key alone. */
int stored_at(struct worker *w, const struct request *r, const struct cache_key *key,
              struct cache_view *v);
/* NULL: no memory, or all pins are taken. */
struct stored_copy *stored_copy_of(struct worker *w, const struct request *r,
                                   const struct cache_view *v, const struct cache_key *key);
void hit_copy_free(struct worker *w, struct stored_copy *copy);
/* The variant's selecting text "name: value\n…" for the names "a\nb\n"; length or 0 if too long. */
size_t hit_vary_text(const struct h1_head *head, const char *names, size_t names_len, char *out,
                     size_t size);
/* A field of a stored head. name: lower case. */
bool stored_head_field(const char *head, size_t len, const char *name, struct field_text *value);
bool hit_stored_field(const struct cache_view *view, const char *name, struct field_text *value);
/* How long what is stored for this request is still fresh, of how long in all; found->stale is a
 * copy of it. False: nothing usable is stored. */
bool hit_left_ms(const struct request *r, struct hit_found *found, uint64_t *left, uint64_t *life);
#define HIT_ETAG_MAX 24
/* The entity tag: the backend's, or the one made of the body's checksum (in space). */
struct field_text hit_etag(const struct cache_view *v, char space[HIT_ETAG_MAX]);

/* ---- answer.c ---- */
/* From a view in the map, which is released before more than the first bytes are sent. Who has what
 * is stored, and would rather wait for a change, is held. soft: an invalidation has ended its
 * freshness; key: where it lies. False: the backend must do. */
bool answer_view(struct worker *w, const struct request *r, const struct cache_view *v, bool soft,
                 const struct cache_key *key);
/* Bytes first..last of the whole, which lie within the part that is stored. False: the backend must
 * do. The view is the caller's to release. */
bool answer_part(struct worker *w, const struct request *r, const struct cache_view *v,
                 const struct field_span *part, uint64_t first, uint64_t last);
/* From a copy. status: what Cache-Status says after "polder; ", e.g. "hit; ttl=-3". */
void hit_answer_copy(const struct request *r, struct stored_copy *copy, const char *status);
void hit_continue(struct client *c); /* more of a chunked stored body */
void hit_stored_stop(struct client *c);
/* Would these validators be answered with 304? etag and last_modified may be empty. */
bool hit_not_modified(const struct request *r, struct field_text etag, uint64_t last_modified_ms);
bool answer_needs_chunks(const struct request *r, const struct cache_record *rec);

/* ---- shrink.c: copies in content codings ---- */
/* A copy of what lies under the key is to be made, unless somebody is at it. */
void shrink_want(struct worker *w, const struct cache_key *key, enum coding coding);
void shrink_stop(struct worker *w);

/* ---- ahead.c: what is fetched before anybody waits for it; more in ahead.h ---- */
bool ahead_open(struct worker *w);
void ahead_close(struct worker *w);
/* What exchanges tell: an upstream has this one more, or less; what became of it. */
void ahead_begin(struct exchange *ex);
void ahead_end(struct exchange *ex);
void ahead_answered(struct exchange *ex, bool failure); /* its head is there */
void ahead_failed(struct exchange *ex);                 /* no server has answered */
uint32_t ahead_flying(const struct worker *w);

/* ---- refresh.c: what is read often is fetched again before it expires ---- */
/* A hit on an entry that is due: refresh_from_ms(). Never waits, never allocates after the first.
 */
void refresh_note(const struct request *r, const struct cache_record *rec);
void refresh_close(struct worker *w);
/* ---- guard.c: does what is shared depend on who asks? ---- */
struct guard_check;
void guard_prepare(struct worker *w); /* once, when the routes are known */
/* Who asks, as cache_record.identity has it. */
uint64_t guard_identity(const struct request *r);
/* A hit whose turn it is: *check is set if it is to be checked, and then goes to guard_begin().
 * False: it takes the long way, with the head. */
bool guard_look(const struct request *r, const struct cache_view *v, struct guard_check **check);
/* Takes the check; answered: the client has its answer. */
void guard_begin(struct guard_check *k, bool answered);
void guard_run(struct worker *w); /* before the loop sleeps, if worker.guard_due */
void guard_stop(struct worker *w);
/* Of an exchange with a check: its answer as it comes, and its end, however that came. */
void guard_head(struct exchange *ex, const struct h1_head *head);
void guard_body(struct exchange *ex, const char *bytes, size_t len);
bool guard_wants_more(const struct exchange *ex);
void guard_whole(struct exchange *ex);
void guard_heard(struct exchange *ex);
/* What Cache-Status says of a quarantined route. */
const char *guard_detail(const struct request *r);

/* ---- warm.c: the URLs of `warm` are fetched at start and kept fresh ---- */
int warm_start(struct worker *w);
void warm_stop(struct worker *w);

/* ---- asked.c: `polderctl cache warm` ---- */
struct asked_url;                  /* one of its URLs */
void asked_open(struct worker *w); /* the socket on which control asks; now and then until it is */
void asked_close(struct worker *w);
void asked_begun(struct asked_url *u, struct exchange *ex);
void asked_ended(struct exchange *ex);

/* ---- poll.c ---- */
/* Counts a request that a poll's interval keeps from the backend, and now and then notes whose. */
void poll_note(const struct request *r);

/* ---- hold.c: requests that wait for a change ---- */
uint32_t hold_wait_s(const struct h1_head *head); /* of Prefer: wait; 0: none */
/* Holds a request that would be answered with 304. False: answer it. */
bool hold_unchanged(const struct request *r, const struct cache_record *rec,
                    const struct cache_key *key, struct field_text etag);
/* Holds a request while what it asks for is fetched behind. Takes found->stale if it does. */
bool hold_for_fetch(const struct request *r, struct hit_found *found);
void hold_drop(struct client *c); /* the client is going */
void hold_end(struct client *c);  /* answers it now */
uint64_t hold_due(const struct client *c);
void hold_wake(struct worker *w);     /* the eventfd fired */
void hold_scan(struct worker *w);     /* all watches, now */
void hold_look_new(struct worker *w); /* before the loop sleeps */
void hold_leave(struct worker *w);    /* draining: who is held is answered before it is too late */
void hold_free_the_dead(struct worker *w);

/* ---- memo.c ---- */
/* Answers if these are the bytes of the connection's memo and the store has the answer. If not, the
 * request takes the long way; what it was charged is not charged again (worker.prepaid). */
bool memo_answer(struct client *c, const char *bytes, size_t len);
void memo_remember(struct client *c, const struct request *r, const struct hit_found *found,
                   const uint64_t *limit_keys);
void memo_forget(struct client *c);
void memo_sweep(struct worker *w);

/* ---- miss.c and collapse.c ---- */
void miss_begin(const struct request *r, struct hit_found *found);
/* Fetches behind a stale answer that was given, if nobody else does. Takes found->stale. */
void miss_refresh(const struct request *r, struct hit_found *found);
/* Whether others may share what is fetched for it. */
bool miss_collapsible(const struct request *r, const struct hit_found *found);
/* Fetches without a client, if nobody else does; takes found->stale. LEAD or WAIT: this worker's
 * eventfd is written when the flight has landed. */
enum inflight_claim miss_behind(const struct request *r, struct hit_found *found,
                                struct inflight_ticket *ticket);
/* The same for what nobody waits for; ahead_may() has said that there is room. asked: whose outcome
 * it is; NULL. */
enum inflight_claim miss_ahead(const struct request *r, struct hit_found *found,
                               struct inflight_ticket *ticket, struct asked_url *asked);
void miss_retry(struct exchange *ex); /* the flight it was parked for has landed */
void collapse_park(struct exchange *ex);
void collapse_unpark(struct exchange *ex);
void collapse_wake(struct worker *w); /* the eventfd fired, or time went by */
void collapse_timeout(struct exchange *ex);

/* ---- exchange.c: a request and its response ---- */
enum exchange_state {
    EXCHANGE_NEW,
    EXCHANGE_PARKED,  /* somebody else fetches */
    EXCHANGE_CONNECT, /* waiting for the connection */
    EXCHANGE_WAITING, /* the backend refuses connections: it may be restarting (waiting.c) */
    EXCHANGE_HEAD,    /* request (head) sent, waiting for the final response head */
    EXCHANGE_BODY,    /* relaying the response's body */
    EXCHANGE_DONE,
    EXCHANGE_STATES
};
enum exchange_body { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_TO_CLOSE };

struct tee; /* tee.c */

struct exchange {
    struct request req; /* its pointers lead into bytes */
    struct worker *worker;
    struct upstream *up;
    const struct config_upstream *upstream;
    struct exchange *next, **link; /* worker.parked, or the graveyard (next) */
    struct timer timer;            /* parked; how long others wait for it, or it goes on alone */
    struct inflight_ticket ticket, waits_for;
    struct cache_key flight_key;
    struct stored_copy *stale; /* may answer if the backend cannot; its validators are sent */
    struct tee *tee;           /* NULL: not being stored */
    struct guard_check *guard; /* that it asks for; NULL */
    uint64_t birth;            /* inval_seq() before the request was sent */
    uint64_t sent_real_ms, sent_ns, renewed_ms;
    uint64_t wait_until_ms;  /* it has waited for a backend that restarts; 0: it has not */
    uint64_t alone_ms;       /* the client has left: when to give up; 0: it has not */
    const char *not_stored;  /* why, for Cache-Status; NULL: it is, or nobody asked */
    struct asked_url *asked; /* `cache warm` waits for its outcome; NULL */
    uint64_t tried;          /* bit per server of the upstream (by position) */
    uint64_t body_sent;      /* response body bytes the client got */
    uint16_t status;         /* sent to the client; 0: none yet */
    uint16_t answered;       /* the backend's status; 0: none yet */
    uint8_t state;           /* enum exchange_state; moved by exchange_move() alone */
    uint8_t fwd;             /* enum fwd_reason, for Cache-Status */
    uint8_t client_body;     /* enum exchange_body: how the client gets it */
    uint8_t rounds;          /* times parked */
    uint8_t interims;        /* 1xx that the backend has sent */
    bool length_unknown;     /* of the response's body, before it ends */
    bool fetch;          /* sent as a plain GET for the store: the client's conditions stay here */
    bool conditional;    /* sent with the stored validators */
    bool body_to_client; /* the client gets the body (not HEAD, not answered 304) */
    bool request_done;   /* the whole request has been handed to the backend connection */
    bool body_consumed;  /* body bytes were taken from the client: no second try */
    bool retried;
    bool ahead;           /* nobody waits for it */
    bool counted;         /* among those under way at its upstream (ahead.c) */
    bool failed;          /* exchange_fail() */
    uint8_t last_problem; /* enum problem: why no server could be reached, or why it failed */
    uint64_t fetch_ns;    /* until the response head was there */
    struct h1_head head;
    char *bytes;
};

enum fwd_reason {
    FWD_NONE,
    FWD_BYPASS,
    FWD_METHOD,
    FWD_URI_MISS,
    FWD_VARY_MISS,
    FWD_PARTIAL,
    FWD_REQUEST,
    FWD_STALE
};

struct exchange *exchange_new(struct worker *w, const struct request *r); /* copies all */
void exchange_move(struct exchange *ex, enum exchange_state to);
void exchange_start(struct exchange *ex);
/* Body bytes of the request; all are taken. The client is not read while too many wait. */
void exchange_feed(struct exchange *ex, const char *bytes, size_t len);
void exchange_request_end(struct exchange *ex); /* the request's body is complete */
void exchange_client_gone(struct exchange *ex);
void exchange_timeout(struct exchange *ex);
/* The client is answered otherwise: the exchange lets go of it and of a half-sent request. */
void exchange_drop_client(struct exchange *ex);
void exchange_fail(struct exchange *ex, enum problem problem);
void exchange_free(struct exchange *ex);
/* Has nothing more to do: lets go of client and connection; freed at the end of the iteration. */
void exchange_finish(struct exchange *ex);

void exchange_try_again(struct exchange *ex); /* after WAITING */
void exchange_send(struct exchange *ex);      /* the connection is there */
void exchange_connect_failed(struct exchange *ex, bool timeout);
void exchange_broken(struct exchange *ex, bool timeout);
void exchange_writable(struct exchange *ex); /* the backend takes more of the request */
void exchange_renew(struct exchange *ex);    /* its lease, now and then */
/* The client goes its way; its body reader must not write here any more. */
struct client *exchange_let_go(struct exchange *ex);
/* The client has its whole answer. */
void exchange_client_done(struct exchange *ex);
/* The stored response, although it is stale. False: there is none to give. */
bool exchange_answer_stale(struct exchange *ex);
void exchange_measure(struct exchange *ex);
void exchange_log(struct exchange *ex);

/* ---- reply.c: what comes back ---- */
/* Bytes of the response; returns how many were used (part of a head is left). */
size_t exchange_receive(struct exchange *ex, const char *at, size_t len);
void exchange_eof(struct exchange *ex);
void exchange_resume(struct exchange *ex); /* the client takes more again */

/* ---- waiting.c: requests wait while a backend restarts ---- */
bool waiting_enter(struct exchange *ex); /* false: it may not wait, or not any longer */
void waiting_leave(struct exchange *ex);
void waiting_wake(struct worker *w, const struct config_upstream *upstream);
void waiting_init(struct worker *w);

/* ---- upstream.c: connections to backends ---- */
enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_CLOSED };
struct upstream {
    ev_io read, write;
    struct timer timer;
    struct worker *worker;
    struct exchange *exchange;
    const struct config_server *server;
    struct upstream *next, **link; /* the server's idle list, or the graveyard (next) */
    struct buffer *in;             /* part of a response head */
    struct chain out;
    struct h1_body body;
    char *trailer; /* of a chunked response */
    size_t scanned;
    uint64_t progress_ms;
    uint8_t state;
    bool reused, got_bytes, keep_alive;
    bool paused;        /* not read: the client is slow */
    bool deaf;          /* takes no more of the request */
    bool chunk_request; /* the request's body goes out in chunks */
};
void upstream_timeout(struct upstream *u);
void upstream_free(struct upstream *u);
void upstream_close(struct upstream *u);
void upstream_progress(struct upstream *u); /* its time starts again */
void upstream_keep_trailer(struct upstream *u);
void upstream_send(struct upstream *u, const struct iovec *iov, unsigned n);
struct upstream *upstream_connect(struct worker *w, const struct config_server *server);

/* ---- pool.c: which server, and connections that are kept ---- */
struct server_state {
    uint64_t waiting_bytes; /* of its upstream's first server: what waits for any of them */
    uint32_t waiting;
    struct upstream *idle; /* last used first */
    int64_t current;       /* smooth weighted round robin */
    uint64_t failed_until_ms;
};
const struct config_server *pool_choose(struct worker *w, const struct config_upstream *upstream,
                                        uint64_t tried);
uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server);
void pool_failed(struct worker *w, const struct config_server *server);
struct upstream *pool_take(struct worker *w, const struct config_server *server);
void pool_keep(struct upstream *u);
void pool_forget(struct upstream *u); /* an idle one is being closed */
void pool_close_idle(struct worker *w);

/* ---- response.c ---- */
/* An answer of Polder's own; keep: the connection may go on. extra: complete lines. */
void response_problem(const struct request *r, struct client *c, enum problem p, const char *extra,
                      const char *members, bool keep);
void response_simple(const struct request *r, unsigned status, const char *lines);
/* The end-to-end fields of a backend's head, without framing. stored: as they go into the store;
 * NULL: as a client gets them. shrinks: it varies by Accept-Encoding too, whatever it says. */
void response_fields(struct h1_out *o, const struct h1_head *head,
                     const struct policy_response *stored, bool shrinks);
/* The backend's head as the client gets it; length in worker.scratch, 0 if too long. */
size_t response_head(struct exchange *ex, const struct h1_head *head, uint16_t status);
/* Date and Cache-Control of an answer on a polled route: the client may ask again in rest_ms. Age
 * and the backend's own lines are left out, or clients would take that off the rest. */
void response_poll(struct h1_out *o, const struct request *r, uint64_t rest_ms);
void response_preference(struct h1_out *o, const struct request *r); /* RFC 7240 3 */
void response_connection(struct h1_out *o, const struct request *r, bool keep_alive);
const char *response_fwd_name(enum fwd_reason fwd); /* of Cache-Status (RFC 9211 2.2) */
void response_interim(struct exchange *ex, const struct h1_head *head);
void response_count(struct worker *w, unsigned status);
/* The request as a backend gets it; length in worker.scratch, 0 if too long. */
struct response_request {
    const struct request *request;
    const struct stored_copy *conditions; /* ask whether this is still good; NULL */
    bool fetch;                           /* a plain GET, for the store */
    bool upgrade;                         /* a WebSocket's handshake */
};
size_t response_request_head(struct worker *w, const struct response_request *what);
/* Is the backend asked for this without a content coding? What is stored is stored plain, and made
 * smaller here. */
bool response_asks_plain(const struct request *r);

/* ---- tee.c ---- */
/* Begins to store if that may be done (ex->tee is set then), else lands the flight. */
void tee_begin(struct exchange *ex, const struct h1_head *head);
void tee_body(struct exchange *ex, const char *bytes, size_t len);
void tee_end(struct exchange *ex);
void tee_abort(struct exchange *ex, enum inflight_result result);
bool tee_freshen(struct exchange *ex, const struct h1_head *head);
void tee_land(struct exchange *ex, enum inflight_result result);
void tee_flush_aborts(struct worker *w);
void tee_delete(struct worker *w, const struct cache_key *key);
bool tee_shrinks(const struct exchange *ex); /* copies in codings will be kept of what is stored */
/* A record for the keeper; 0 or -ENOSPC. flight: landed after its commit; NULL: none. */
int tee_push(struct worker *w, enum ring_type type, uint64_t stream,
             const struct inflight_ticket *flight, const struct iovec *iov, int n);
void tee_abort_stream(struct worker *w, uint64_t stream);
void tee_free(struct exchange *ex);
bool tee_outlives_client(const struct exchange *ex); /* goes on being stored without it */

/* A stored head with the fields that a newer response brings in their place; both live until the
 * next call. NULL: it does not fit. */
const struct h1_head *tee_merge(struct worker *w, const struct cache_view *old,
                                const struct h1_head *head);

/* ---- tags.c ---- */
/* The slots of the response's tags, into rec. False: more than a record can name. */
bool tags_read(const struct worker *w, const struct h1_head *head, struct cache_record *rec);

/* ---- partial.c: parts of bodies ---- */
/* A part that is being stored: what the 206 brings, between what an older part had around it. */
struct part {
    struct field_span span; /* in all */
    bool complete;          /* stored as a whole */
    bool joined;
    struct cache_key key; /* joined: of the whole */
    char *before, *after;
    uint64_t before_len, after_len;
};
/* Answers a range from a part of the body, if one that covers it is stored and fresh. */
bool partial_answer(const struct request *r, struct hit_found *found);
/* May others wait for what this range request fetches? Then its flight is that of all who want the
 * same range: *key is made of what it would be for the whole. */
bool partial_is_shareable(const struct request *r);
void partial_flight_key(const struct request *r, struct cache_key *key);
bool partial_landed(const struct exchange *ex); /* what it wants may be there, since it looked */
/* A 206 that may be stored as far as it is up to this file; then *head and *resp describe what is
 * to be stored. NULL: it may not. */
struct part *partial_begin(struct exchange *ex, const struct h1_head **head,
                           struct policy_response *resp);
/* Where it goes, from where the whole would. False: nowhere. */
bool partial_place(const struct worker *w, const struct part *part, struct cache_key *key);
void partial_put_range(struct h1_out *o, const struct part *part);
void partial_free(struct part *part);

/* ---- freshen.c ---- */
/* Is this 304 about the copy whose validators were sent? */
bool freshen_agrees(const struct stored_copy *copy, const struct h1_head *head);
/* A 200 to HEAD renews what is stored, if it describes the same. */
void freshen_by_head(struct exchange *ex, const struct h1_head *head);

/* ---- invalidate.c ---- */
void invalidate_after(struct exchange *ex, const struct h1_head *head);
/* Does this Content-Location name the request's own URL? */
bool invalidate_is_target(struct worker *w, const struct request *r, const struct h1_field *f);

/* ---- accesslog.c ---- */
struct access_entry {
    const struct request *request;
    unsigned status;
    uint64_t bytes;
    const char *cache; /* "hit", "miss", "pass", "refused", "error" */
};
int accesslog_open(struct worker *w);
void accesslog_line(struct worker *w, const struct access_entry *entry);
void accesslog_flush(struct worker *w);
void accesslog_reopen(struct worker *w);

/* ---- handover.c ---- */
/* Takes the client away (closed for this worker), or answers it. worker.surplus: what followed. */
void handover_begin(struct client *c, struct request *r);
void handover_close(struct worker *w);
/* Clients of WebSocket routes that Polder answers alone hear of what this worker has invalidated:
 * a URL ("host/path?query") or a tag, the other one empty. Never waits. */
void handover_tell(struct worker *w, struct field_text url, struct field_text tag);
void handover_catch_up(struct worker *w); /* now and then: what the queue had no room for */

/* ---- loop.c ---- */
struct listener {
    ev_io io;
    struct worker *worker;
};
struct route_state {
    struct policy_settings settings;
    bool by_client; /* every limit is keyed by the client alone */
    struct guard_route *guard;
    uint32_t guard_left;             /* hits until one is looked at */
    uint32_t guard_step, guard_most; /* what it starts from next, and in the end; most 0: off */
    uint64_t guard_again_ms;         /* not before */
    char guard_detail[GUARD_NAMES + 32];
};
/* the constant part of what a limit says, made when its running values change */
struct limit_state {
    char policy[96]; /* "name";q=20;w=60 */
    uint32_t policy_len;
    char name[72]; /* quoted */
    uint32_t name_len;
    char alone[256]; /* both fields up to the first number, for a route with this limit only */
    uint32_t alone_len;
    struct exempt *list; /* room for whom it exempts, where that was ever changed; else NULL */
    const struct exempt *exempt; /* it now; NULL: the file's */
};

/* A candidate that is charged beside a limit. */
struct try_state {
    struct limit_try *slot;
    uint64_t run;
    uint32_t limit; /* config_limit.index */
    uint32_t list;  /* of limit_top.h: whom it would have refused */
    struct limit_try_terms terms;
};

struct worker {
    const struct process *process;
    struct shared *shared;
    const struct config *config;
    struct ev_loop *loop;
    int epoll_fd;
    struct proc_slot *slot;
    struct stats_slab *stats;
    struct ring *ring;
    uint32_t number; /* worker slot, 0.. */

    ev_prepare prepare;
    ev_check check;
    ev_timer beat, tick;
    ev_io event;
    ev_signal term, usr1;

    uint64_t mono_ms, real_ms;
    int64_t date_s;
    char date[48]; /* "Date: …\r\n" */
    uint32_t date_len;

    struct runtime_values runtime;
    uint64_t runtime_generation;
    uint64_t generation; /* of all that memos depend on */
    struct route_state *routes;
    struct limit_state *limits;
    struct limit_caller limit_caller;
    struct limit_answer prepaid; /* what prepaid_client's request was told by its limits */
    struct client *prepaid_client;
    struct limit_top_sampler top, poll_top;
    bool top_due;    /* the next request that is charged is noted in the lists of the heaviest */
    uint8_t n_tries; /* candidates that are charged beside limits, now */
    bool any_cache;
    bool any_subscribers; /* a WebSocket route without a backend */
    bool tell_all;        /* the supervisor has not been told of everything */

    struct timer_wheel wheel;
    struct buffer *free_buffers;
    uint32_t n_free_buffers, n_buffers;

    struct listener *listeners;
    uint32_t n_listeners;
    int reserve_fd;
    uint64_t accept_again_ms; /* 0: accepting */
    bool accepting, draining;
    uint64_t drain_until_ms;

    struct client *clients;
    struct client *ready;
    uint32_t n_clients, n_lingering;
    struct client *dead_clients;
    struct exchange *dead_exchanges;
    struct upstream *dead_upstreams;
    struct exchange *parked;
    struct exchange *waiting, **waiting_tail; /* oldest first */
    ev_timer waiting_timer;
    struct memo *memos, **memos_tail;
    uint32_t n_memos;
    struct watch **watches; /* by key; NULL: never needed */
    struct watch *new_watches, *dead_watches;
    uint32_t n_watches, n_held;
    struct ahead *ahead;
    struct refresh *refresh; /* NULL: nothing was due yet */
    struct warm *warm;       /* NULL: not this worker's */
    struct asked *asked;     /* NULL: not this worker's, or not open yet */
    uint64_t asked_again_ms;
    struct shrink *shrink;
    struct guard_check *checks;
    uint32_t n_checks;
    bool guard_due; /* some check waits for its next step */
    ev_timer scan;  /* looks at all watches a little later */
    double scanned_s;
    uint32_t n_busy, n_idle; /* backend connections */

    struct server_state *servers; /* by config_server.index; the last one is ops */
    struct config_upstream ops_upstream;
    struct config_server ops_server;

    struct cache_reader *reader;
    bool cache_ready, cache_asked; /* this iteration */
    uint64_t reader_again_ms;
    uint64_t stream; /* number of the last stream to the keeper */
    uint64_t aborts[32];
    uint32_t n_aborts;
    uint64_t hit_ns; /* what a hit took when last measured */
    uint32_t hit_sample;
    uint64_t chance; /* a sequence of random-looking numbers, one a hit */

    uint64_t request_id[2];
    int supervisor; /* handover socket; -1 */
    uint64_t supervisor_again_ms, supervisor_warn_ms;

    struct try_state tries[LIMIT_TRY_SLOTS]; /* n_tries of them */

    int log_fd;
    char *log_text;
    size_t log_len;

    struct h1_head head, response; /* being looked at now */
    struct field_text surplus;     /* what was read behind the head */
    char limit_text[2048];
    char url[WORKER_URL_MAX], reference[WORKER_URL_MAX], partition[4096];
    char target[H1_TARGET_MAX + 1];
    char scratch[WORKER_SCRATCH];
    char client_buffer[WORKER_BUFFER], upstream_buffer[WORKER_BUFFER];
};

/* Those that are refused or only waited for to close do not count. */
static inline uint32_t loop_open_clients(const struct worker *w)
{
    return w->n_clients - w->n_lingering;
}
/* Of the poll section of its route; 0: it has none. */
static inline uint64_t request_interval_ms(const struct request *r)
{
    return r->worker->routes[r->route->index].settings.min_interval_ms;
}
/* Has the leak guard taken its route out of the cache? */
static inline bool request_is_quarantined(const struct request *r)
{
    return guard_is_closed(r->worker->routes[r->route->index].guard);
}
struct ev_loop *loop_open(struct worker *w);
void loop_close(struct worker *w);
void loop_time(struct worker *w);
void loop_tick_needed(struct worker *w);
bool loop_cache_ready(struct worker *w);
void loop_drain(struct worker *w);

#endif
