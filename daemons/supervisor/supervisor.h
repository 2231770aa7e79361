/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * supervisor: the daemon that owns every WebSocket. Private to daemons/supervisor.
 *
 * The way of a connection, by file:
 *
 *   intake.c        a worker's message with the client's socket
 *   handshake.c     becomes a session, or a refusal
 *   admit.c         is there room: in all, on the route, for this client, for this second
 *   fleet.c         the same over all hosts of a fleet
 *   backend.c       connects to a server of the route and relays the handshake; or
 *   refuse.c        answers in plain HTTP: our own refusal, or a backend's; and closes in stages
 *   servers.c       which server, by the shared table of states
 *   local.c         answers it here, where the route has no backend, and notifies of invalidations
 *   session.c       the states of a session, and the one way it ends
 *   ws/relay.c      frames both ways: read into one buffer, looked at (ws/frames.c), written on
 *   ws/leg.c        one end of a session: what is written to it
 *   ws/heartbeat.c  heartbeats and reaping; ws/ping.c: our own pings
 *   ws/close.c      close handshakes and their timeouts
 *   leaked.c        how long reaped WebSockets would have been held: savings
 *   methods.c       methods of the admin socket
 *   values.c        values that ws set changes
 *   reload.c        puts a configuration in use; another one while sessions go on
 *   presence.c      shows other processes that it is alive
 *   survive/        another process holds what this one works on, for when it is killed
 *   restart.c       leaves all of it to another process, and takes over from one
 *
 * Ownership: a session owns two descriptors, a few hundred bytes, and buffers only while bytes are
 * in flight. Counts are changed in session_new() and session_end() and nowhere else, so they are
 * the connections that exist. A session is freed at the end of an iteration (ended.c), so a callback
 * never loses what it works on.
 */
#ifndef POLDER_SUPERVISOR_H
#define POLDER_SUPERVISOR_H
#include "daemons/http/h1.h"
#include "daemons/net/buffer.h"
#include "daemons/net/listener.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/supervisor/fleet.h"
#include "daemons/supervisor/leaked.h"
#include "daemons/supervisor/ws/frames.h"
#include "polder/access_log.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/handover.h"
#include "polder/histogram.h"
#include "polder/log.h"
#include "polder/server_state.h"
#include "polder/sticky.h"
#include "polder/problem.h"
#include "polder/random.h"
#include "polder/shared.h"

#include <ev.h>

#define SUPERVISOR_READ   (256u << 10) /* the buffer of the process */
#define SUPERVISOR_CHUNK  16384        /* pooled buffers for what a leg does not take */
#define SUPERVISOR_CHUNKS 256          /* free ones that are kept */
#define SUPERVISOR_ROUTES RUNTIME_ROUTES_MAX
#define CLOSE_TIMEOUT_MS  5000  /* from a close frame that was delivered to the end */
#define DELIVER_MS        10000 /* at a stop, more of it while bytes still move */
#define CLOSE_LOOK_MS     1000  /* meanwhile it is looked whether bytes still move */
#define ADMIT_PROBES      100   /* of polderctl verify at once, on a route */
#define LOG_EVERY_MS      1000  /* of what clients can cause at will */

struct supervisor;
struct session;

/* Why a session ended; counted by reason. These and the states stand as numbers in state blocks
 * (carry/block.h): a new one goes to the end. */
enum session_end {
    END_CLIENT_CLOSED, /* it went with a close frame, or FIN after it */
    END_CLIENT_LOST,   /* RST, FIN without a close frame */
    END_BACKEND_CLOSED,
    END_BACKEND_LOST,
    END_BACKEND_REFUSED, /* the backend answered the upgrade otherwise, or not at all */
    END_TIMEOUT,         /* silent for longer than `timeout` */
    END_PROTOCOL,        /* the client broke a rule */
    END_TOO_BIG,
    END_CLOSED_BY_ADMIN,
    END_SHED,
    END_DRAIN,
    END_FAILED, /* no memory */
    END_REASONS
};
extern const char *const session_end_names[END_REASONS];

enum session_state {
    SESSION_CONNECTING, /* to the backend */
    SESSION_ASKING,     /* the request is sent, its answer is not here */
    SESSION_REFUSING,   /* the backend's refusal passes */
    SESSION_OPEN,
    SESSION_CLOSING, /* a close frame of ours is on its way, or the peer's passes: until the close
                        timeout */
    SESSION_ENDED,   /* freed at the end of the iteration */
    SESSION_STATES
};

/* One side of a session. */
struct leg {
    ev_io io; /* fd, and what it waits for */
    struct session *session;
    struct frames in;               /* what it sends */
    struct buffer *stash;           /* an incomplete header or control frame; mostly NULL */
    struct inflate_count *expanded; /* of a compressed message under way; mostly NULL */
    struct chain out;               /* what it has not taken; mostly empty */
    /* Within a turn, before those of out: bytes where they were read. */
    const uint8_t *direct;
    uint32_t direct_len;
    uint32_t spent; /* bytes of out that are written, while that is being committed */
    /* The kernel's positions: of what was read; of what is written when nothing waits. */
    uint64_t read_at, written_at;
    uint64_t pinged_ms; /* when a ping of ours went out that nothing has been heard since; 0 */
    uint8_t pings_out;  /* our pings with pongs still to come: those are dropped */
    bool cut;           /* a write has failed: the peer is gone */
    bool blocked;       /* it takes nothing at the moment */
    bool fin;           /* we have said FIN; its own is waited for */
};

struct route_count {
    uint64_t opened, refused, reaped, messages_in, messages_out;
    uint32_t open;
    uint32_t probes; /* open too, and not counted there */
};

struct session {
    struct leg client, backend;       /* backend.io.fd -1: none */
    LIST_ENTRY(session) entry;        /* supervisor.sessions */
    SLIST_ENTRY(session) ended_entry; /* supervisor.ended */
    struct timer timer;               /* when it is looked at next */
    struct supervisor *supervisor;
    struct slot *slot; /* what a successor of this process knows of it; NULL: nothing */
    const struct config_route *route;
    struct client_count *count;
    uint64_t id;
    uint64_t opened_ms, to_client_ms; /* last byte written towards the client */
    uint64_t from_client_ms;
    uint64_t deadline_ms;              /* connecting, asking, closing; drain */
    uint64_t moved_ms;                 /* closing: when undelivered was seen to change */
    uint64_t undelivered;              /* closing: bytes that neither end has acknowledged */
    struct pending *pending;           /* until it is open: the request, the answer so far */
    struct subscription *subscription; /* local routes, and only those */
    char *client_id;
    struct access_line *line; /* of the access log; NULL: it is off */
    uint64_t begun_ns, requested_ns;
    uint32_t head_left; /* of our 101, still to be written: not counted in bytes */
    uint64_t bytes;     /* towards the client: of the body of a refusal, then of the WebSocket */
    uint64_t messages_in, messages_out;
    const char *cut_by;    /* what has cut a refusal short */
    uint16_t refused_with; /* the status of a refusal; 0: none */
    uint16_t close_code;   /* of the first close frame; 0: there was none */
    uint8_t state, end;
    uint8_t turn;  /* > 0: its bytes are being looked at, and what is put is written at the end */
    uint8_t fleet; /* rows of the fleet's slots that count it: bits by enum ws_fleet_key */
    bool probe;    /* of polderctl verify: not counted, and takes no other session's place */
    bool goodbye;  /* we close: what data still comes is dropped */
    bool leaves;   /* the service stops, and it is told so behind the messages under way */
    bool untold;   /* the client is in the middle of a frame: after that, nothing but the end */
};

/* What is needed until the session is open. */
struct pending {
    char accept_key[28];
    struct sticky_key sticky;
    uint64_t tried;                     /* servers */
    const struct config_server *server; /* asked now or last */
    uint32_t address;                   /* of those of its name: the n-th try, ... */
    uint32_t place;                     /* ... and which one that is */
    uint32_t failed_attempts;
    uint64_t until_ms, lease_ms; /* of all tries; of the trial that it is, 0 */
    bool anyway;                 /* no server was up, and one was asked all the same */
    enum problem failed_with;    /* how the server failed that was asked before */
    char failed_why[64];         /* "": none was */
    uint32_t limit_len, head_len, pipelined_len, answer_len;
    size_t scanned;
    struct h1_body body; /* of a refusal */
    char answer[16384 + 1];
    char bytes[]; /* lines of the limits, request head, pipelined */
};
static inline const char *pending_head(const struct pending *p)
{
    return p->bytes + p->limit_len;
}
static inline const char *pending_pipelined(const struct pending *p)
{
    return pending_head(p) + p->head_len;
}
/* Complete lines for the answer's head: RateLimit fields. */
struct lines {
    const char *at;
    size_t len;
};
static inline struct lines pending_lines(const struct pending *p)
{
    return (struct lines){p->bytes, p->limit_len};
}

struct client_count {
    struct client_count *next;
    struct clientip ip;
    uint32_t n, leaving; /* leaving: of shed(), while it counts */
};

/* The values that can be changed while running; routes start with those of the file. */
struct bucket { /* of handshakes */
    double tokens;
    uint64_t ms; /* filled up to here */
};
struct route_values {
    struct config_websocket ws;
    struct bucket bucket;
};

struct origins;
SLIST_HEAD(origins_list, origins);

/* How long WebSockets lived. */
struct lifetimes {
    struct histogram histogram;
    double sum_s; /* which fits no number of ns, with many that live for days */
    uint64_t max_ms;
};

/* Of upgrade.c. */
struct rpc_reply;
struct rpc_call;
struct upgrade {
    uint8_t state;
    bool eof;
    int pipe; /* what the child of the proof says */
    pid_t child;
    ev_io said;
    ev_timer look;
    struct rpc_reply *reply;
    void (*failed)(struct supervisor *s);
    uint64_t until_ms;
    size_t said_len;
    char said_text[512];
    char why[512];           /* the last failure */
    char custodian[32];      /* the version of its program; "": not known, or none */
    bool custodian_pending;  /* it is to be replaced, too */
    uint64_t done, failures; /* of this process, over all its programs; of this program */
    uint64_t since_ms;       /* the process began */
    uint64_t pause_ns;       /* for which messages waited, the last time */
};

struct supervisor {
    struct ev_loop *loop;
    struct server_table *servers; /* polderd's; NULL: no worker has come yet */
    int servers_fd;               /* its descriptor, for another program */
    struct ws_fleet fleet;
    const char *path;
    const struct config *config;        /* mapped read-only */
    void *arena[1];                     /* of config */
    struct condition_table *conditions; /* shared with polderd */
    struct origins_list origins;        /* that were set while running; routes point into them */
    struct listener intake;
    bool intake_passed; /* systemd holds its socket */
    struct {            /* of this process, by another one (restart.h) */
        bool wanted;
        int box; /* what a process before us has left; -1 */
        int to;
        uint64_t until_ms;
        ev_timer look;
    } restart;
    LIST_HEAD(, worker_link) links;
    struct rpc_server *rpc;
    LIST_HEAD(, session) sessions;
    SLIST_HEAD(, session) ended;
    LIST_HEAD(, leaving) leaving; /* refused, until they have read it */
    uint32_t n_leaving;
    struct timer_wheel wheel;
    void (*on_due)(struct timer *timer); /* of a session: what is due depends on its state */
    ev_timer tick;                       /* while it drains */
    ev_prepare prepare;
    ev_signal on_term, on_int, on_hup, on_usr1, on_usr2;
    struct client_count *clients[4096];
    struct buffer_pool buffers; /* of SUPERVISOR_CHUNK */
    uint64_t ping_secret;
    uint8_t *buffer;           /* SUPERVISOR_READ, and room for a stash */
    struct survivor *survivor; /* NULL: this process is alone */
    struct survived {
        uint64_t deaths;                /* of predecessors of this process */
        uint64_t kept, closed, refused; /* of what they have left: WebSockets; handshakes */
    } survived;
    uint64_t now_ms, real_ms, next_id;
    uint64_t drain_until_ms;
    bool draining;
    bool reload_failed; /* the last one */
    bool filtered;      /* a filter of system calls applies */
    enum log_level log_level;
    struct {
        ev_timer timer;
        int fd;             /* of the heartbeat file; negative: there is none */
        bool watchdog;      /* the service manager wants to hear, too */
        uint64_t status_ms; /* it is told again then */
        char status[128];
    } presence;
    struct upgrade upgrade;
    /* supervisor.upgrade was called */
    void (*on_upgrade_requested)(struct supervisor *s, const struct rpc_call *call);
    /* what: enum custodian_says */
    void (*on_custodian_says)(struct supervisor *s, uint32_t what, const char *text);
    /* The custodian is to leave all to another process (restart.h); takes fd. */
    void (*on_pack)(struct supervisor *s);
    void (*on_hand_over)(struct supervisor *s, int fd);
    void (*before_replaced)(struct supervisor *s); /* what is done at the end of a turn */
    uint32_t open;                                 /* sessions, in whatever state */
    uint32_t probes;                               /* apart from those */
    uint32_t held, may_hold;                       /* descriptors of their legs */
    struct config_websocket values;                /* of the top-level section: defaults */
    /* by route index; the last one is of routes that are gone */
    struct route_values route_values[SUPERVISOR_ROUTES + 1];
    uint32_t weights[RUNTIME_SERVERS_MAX]; /* of servers, by their index */
    int64_t turns[RUNTIME_SERVERS_MAX];    /* the same, as they take them */
    uint32_t places[RUNTIME_SERVERS_MAX];  /* the same: which address of a name has answered last */
    struct route_count routes[SUPERVISOR_ROUTES + 1];
    uint64_t refusal_logged_ms, too_long_logged_ms;
    uint32_t refusals_unlogged;
    uint64_t opened, refused, heartbeats, heartbeats_acked, pings, pongs, messages_in, messages_out,
        ends[END_REASONS];
    struct lifetimes lifetimes;
    struct leaked leaked; /* of routes with backends */
    struct access_log log;
    /* What a client says on a local route; set once. */
    void (*on_local_message)(struct supervisor *s, struct session *x, const uint8_t *bytes,
                             size_t len);
    struct random_numbers random;
    uint64_t seed; /* seed: of the table of clients, fixed */
};

/* version.c */
const char *supervisor_version(void);

/* config.c: a configuration in memory of its own, read-only. NULL: fn was told why. */
const struct config *supervisor_read_config(const char *path, void **memory, config_error_fn fn);

/* reload.c */
void config_use(struct supervisor *s, const struct config *c);
/* A log that cannot be written is no reason to let WebSockets go. */
void config_open_log(struct supervisor *s);
/* The file as it is; or, where it has become wrong since the program was proved, as it was then. */
const struct config *config_read_proven(struct supervisor *s);
/* Reads the file again. False: nothing has changed, and it is logged why. */
bool config_reload(struct supervisor *s);
/* The custodian's copy, for working processes to come; arg: struct supervisor. */
void config_reload_copy(void *arg);

/* ended.c: frees those that have ended; at the end of a turn. */
void sessions_bury(struct supervisor *s);

/* session.c */
struct session *session_new(struct supervisor *s, int fd, const struct config_route *route,
                            const struct clientip *ip, bool probe);
void session_move(struct session *x, enum session_state to);
/* Ends at once: descriptors closed, counts back. */
void session_end(struct supervisor *s, struct session *x, enum session_end why);
/* The kernel gives up on peers that acknowledge nothing, where reaping is asked for. */
void session_tune(const struct supervisor *s, const struct session *x);
/* The caller has taken `pending`, and arms its heartbeat. */
void session_opened(struct supervisor *s, struct session *x);
const struct config_websocket *session_values(const struct supervisor *s, const struct session *x);

/* ws/close.c */
/* Sends both sides a close frame with this code, then ends when they have answered, or after
 * CLOSE_TIMEOUT_MS. */
void session_close(struct supervisor *s, struct session *x, uint16_t code, const char *reason,
                   enum session_end why);
/* The same with a code for each side. */
struct farewell {
    uint16_t code;
    const char *reason;
};
void session_close_with(struct supervisor *s, struct session *x, struct farewell client,
                        struct farewell backend, enum session_end why);
/* Closing: the deadline was reached. Ends, unless what was said before is still on its way. */
void session_close_due(struct supervisor *s, struct session *x);
/* The service stops, and its turn has come: it is told now, or when no message is under way. */
void session_leave(struct supervisor *s, struct session *x);
/* Each time that a message of it has passed. */
void session_leave_between(struct supervisor *s, struct session *x);
/* Closes all sessions, spread over a few seconds. */
void drain_begin(struct supervisor *s);

/* admit.c: is there room for one more on this route, of this client? */
enum admit {
    ADMIT_YES,
    ADMIT_STOPPING,
    ADMIT_TOTAL,
    ADMIT_ROUTE,
    ADMIT_CLIENT_TOTAL,
    ADMIT_CLIENT,
    ADMIT_DESCRIPTORS,
    ADMIT_RATE,
};
enum admit admit_check(struct supervisor *s, const struct config_route *route,
                       const struct clientip *ip, bool probe);
/* A sentence for the client, without the full stop. */
const char *admit_reason(enum admit why);
/* The key of the configuration that it is about; NULL: none. */
const char *admit_limit(enum admit why);
/* For the operator: at most one line a second, with the key to change. */
void admit_log(struct supervisor *s, const struct config_route *route, const struct clientip *ip,
               enum admit why);
/* Gives back what admit_check() has taken of connect_rate: it is not decided yet. */
void admit_again(struct supervisor *s, const struct config_route *route);
struct client_count *admit_enter(struct supervisor *s, const struct clientip *ip);
void admit_leave(struct supervisor *s, struct client_count *c);

/* access.c */
/* Opens what the configuration names, at first or again. 0 or a negative errno, with the reason;
 * then what was open stays. */
int supervisor_log_open(struct supervisor *s, char *why, size_t size);
void supervisor_log_flush(struct supervisor *s);
/* The session has its pending request; peer: the client's own address. */
void ws_line_begin(const struct supervisor *s, struct session *x, const uint8_t peer[16]);
/* Of a WebSocket whose process has died: what is known of it without its handshake. */
struct access_line ws_line_taken_up(const struct config_route *route, const struct clientip *ip);
/* The X-Request-Id that the worker has written; len 0: none, or a proxy's in its own spelling. */
struct str ws_request_id(const struct pending *p);
void ws_line_requested(struct session *x); /* a server is sent the handshake */
void ws_line_server(struct session *x);    /* and has answered it, or failed */
void ws_line_end(struct supervisor *s, struct session *x, bool was_open);
/* An upgrade that became no session. */
struct ws_refused {
    const struct config_route *route; /* NULL: none */
    const uint8_t *peer;
    const char *head;
    size_t head_len;
    unsigned status;
    size_t bytes;      /* of the body */
    const char *limit; /* that refused it; NULL */
    bool probe;        /* neither logged nor counted */
};
void ws_line_refused(struct supervisor *s, const struct ws_refused *r);

/* handshake.c */
void handshake_begin(struct supervisor *s); /* before any comes */
/* Decides it; takes fd. rest: what lies behind h, len bytes of the lengths that h says. */
void handshake_take(struct supervisor *s, const struct handover *h, const char *rest, size_t len,
                    int fd);

/* intake.c */
/* Before the process forks: the socket that systemd has passed, if there is one, is what
 * intake_open() finds. *box: what a process before us has left there; -1: nothing. 0 or a negative
 * errno, which is logged. */
int intake_take_passed(struct supervisor *s, int *box);
int intake_open(struct supervisor *s);
/* Instead: a listening socket that is there (takes fd). path "": it is not ours to remove. */
int intake_adopt(struct supervisor *s, int fd, const char *path);
void intake_take_link(struct supervisor *s, int fd); /* a worker's connection that is there */
void intake_each_link(const struct supervisor *s, void (*fn)(void *arg, int fd), void *arg);
void intake_close(struct supervisor *s);
void intake_leave(struct supervisor *s); /* it stops: what still comes waits for a successor */

/* refuse.c */
struct refusal {
    enum problem problem;
    unsigned retry_s; /* 0: no Retry-After */
    const char *why;
    const char *limit; /* the key that has refused it; NULL */
};
/* Answers a client that has no session; takes fd. Returns the length of the body. */
size_t refuse(struct supervisor *s, int fd, const struct refusal *r, struct lines limits);
/* Answers the client of a session that is not open, and ends it. */
void refuse_session(struct supervisor *s, struct session *x, const struct refusal *r,
                    enum session_end why);
/* Passes the backend's refusal: this head, then the body that begins with rest. */
void refuse_pass(struct supervisor *s, struct session *x, const struct h1_head *h, const char *head,
                 size_t head_len, const char *rest, size_t len);
/* Ends a refusal in the middle, so that the client sees it; by: for the access log. */
void refuse_cut(struct supervisor *s, struct session *x, const char *by);
void refuse_due(struct supervisor *s, struct session *x); /* its timer */
/* The session has its legs, and a body that passes: goes on with it. */
void refuse_resume(struct supervisor *s, struct session *x);
/* One that leaves; out is borrowed. */
struct leaving_record {
    int fd;
    bool reset, fin, eof;
    uint64_t due_ms;
    const struct chain *out;
};
void refuse_each_leaving(struct supervisor *s,
                         void (*fn)(void *arg, const struct leaving_record *r), void *arg);
/* Takes fd, and what out holds. */
void refuse_resume_leaving(struct supervisor *s, const struct leaving_record *r, struct chain *out);
void refuse_end_all(struct supervisor *s);

/* presence.c */
void presence_begin(struct supervisor *s);
void presence_tell(struct supervisor *s); /* to the service manager: the status, if it is another */
void presence_end(struct supervisor *s);
/* systemd has the file checked before a reload, and says for which process (MAINPID): is that one
 * where the file says? True too if that is not known; else the reason is printed. */
bool presence_agrees(const struct config *c);

/* client_id.c: the client's name in heartbeats and ws list: the path's segment as applications
 * read it, cut visibly at CLIENT_ID_MAX bytes. NULL: none, or no memory; one is made up then. */
#define CLIENT_ID_MAX 128
char *client_id_make(const char *segment, size_t len);

/* backend.c */
void backend_begin(struct supervisor *s, struct session *x);
void backend_ready(struct supervisor *s, struct session *x, int revents);
/* The session has its legs and its pending request, connecting or asking: goes on with it. */
void backend_resume(struct supervisor *s, struct session *x);

/* servers.c */
#define SERVERS_TRIED_MAX 64 /* of an upstream's servers, bits of pending.tried */
/* The same for two upstreams of one name with the same servers in the same order. */
uint64_t servers_digest(const struct config_upstream *u);
void servers_take_table(struct supervisor *s, int fd); /* takes fd */
/* Starts a connection: to the next address of the server if the last one failed with that errno, or
 * to the next server. -ECONNREFUSED: there is none left; other errors are this process's own. */
int servers_connect(struct supervisor *s, struct session *x, int failed);
void servers_count(struct supervisor *s, const struct session *x); /* it is sent the handshake */
uint64_t servers_deadline(const struct supervisor *s, const struct session *x, uint64_t allowed_ms);
/* True: another server may be asked. */
bool servers_failed(struct supervisor *s, struct session *x, enum server_reason reason,
                    const char *format, ...) __attribute__((format(printf, 4, 5)));
void servers_answered(struct supervisor *s, struct session *x, unsigned status);
void servers_forget(struct supervisor *s, struct session *x); /* it is given up */

/* local.c */
/* What a client of a local route has subscribed to, borrowed. */
#define SUBSCRIPTION_TAGS_MAX    64
#define SUBSCRIPTION_MESSAGE_MAX 8192
struct subscription_record {
    const char *prefix; /* NULL */
    const char *tags[SUBSCRIPTION_TAGS_MAX];
    uint32_t n_tags;
    const uint8_t *text; /* of a message that is being collected: len bytes; NULL: none is */
    size_t len;
    bool overlong;
    uint8_t mistakes;
};
void local_describe(const struct session *x, struct subscription_record *r);
bool local_resume(struct session *x, const struct subscription_record *r); /* false: no memory */
void local_begin(struct supervisor *s, struct session *x);
void local_message(struct supervisor *s, struct session *x, const uint8_t *text, size_t len);
void local_free(struct session *x);
/* tags: n of them; prefix, url: NULL where not meant; all: everything. Returns how many were told.
 */
unsigned local_invalidated(struct supervisor *s, const char *const *tags, size_t n,
                           const char *prefix);

/* ws/leg.c */
/* false: no memory or the leg is gone. */
bool leg_put(struct supervisor *s, struct leg *to, const uint8_t *bytes, size_t len);
/* A whole frame of ours. */
bool leg_put_frame(struct supervisor *s, struct leg *to, enum frames_opcode opcode,
                   const void *payload, size_t len);
/* Writes what waits. */
void leg_flush(struct supervisor *s, struct leg *to);
/* What is put until turn_end() is written there, in one step that either happens or does not. */
void turn_begin(struct session *x);
void turn_end(struct supervisor *s, struct session *x);
/* In the middle of it. */
void turn_settle(struct supervisor *s, struct session *x);
/* Closes the descriptor and gives back what the leg holds; harmless a second time. */
void leg_close(struct supervisor *s, struct leg *leg);

/* ws/relay.c */
void relay_watch(struct supervisor *s, struct session *x);
void relay_feed(struct supervisor *s, struct leg *from, const uint8_t *bytes, size_t len);
/* The same of n bytes that were just read into the buffer of the process, behind a stash. */
void relay_take(struct supervisor *s, struct leg *from, size_t have, size_t n);

/* ws/ping.c */
void ping_send(struct supervisor *s, struct leg *leg);
/* true: it answers a ping of ours, and is not passed on. */
bool ping_answered(struct supervisor *s, struct leg *from, const uint8_t *payload, size_t len);

/* ws/heartbeat.c */
void heartbeat_arm(struct supervisor *s, struct session *x);
void heartbeat_due(struct supervisor *s, struct session *x); /* its timer, while it is open */

/* values.c: what ws set changes, until the next reload. */
struct rpc_call;
struct rpc_out;
void values_put(struct rpc_out *o, const char *name, const struct config_websocket *w, bool top);
void values_set(struct supervisor *s, const struct rpc_call *call);
/* Back to what the file says: of the route that the call names, or of all. */
void values_revert(struct supervisor *s, const struct rpc_call *call);
/* What --persist has kept, over the values of the file; once after each reading of it. */
void values_load(struct supervisor *s);
/* Raises or clears the condition that there are fewer descriptors than the routes may want. */
void values_tell_files(struct supervisor *s);
void values_forget(struct origins_list *list);
/* Lists that were set while running live beside the configuration. */
void values_copy_origins(struct supervisor *s, const struct config_websocket *from,
                         struct config_websocket *to);
/* The defaults, and with them every route that does not state a value itself. */
void values_apply_defaults(struct supervisor *s, const struct config_websocket *w);

/* values_carry.c */
struct values_before;
struct values_before *values_before(struct supervisor *s); /* NULL: no memory */
void values_before_free(struct values_before *b);
/* Another configuration has been read in place of old: takes over what still holds. */
void values_carry(struct supervisor *s, const struct values_before *before,
                  const struct config *old);

/* values_resume.c */
/* What ws set has changed, for another program: a number (of a double: its bits) or a list of
 * origins, and what the file says. */
struct changed_value {
    const char *route; /* its pattern; "": the defaults */
    const char *key;
    uint64_t file, running;
    const char *origins, *file_origins; /* separated by spaces; NULL: it is a number */
};
void values_each_changed(const struct supervisor *s,
                         void (*fn)(void *arg, const struct changed_value *v), void *arg);
/* Takes it over if the file says the same as then; defaults before routes. */
void values_resume(struct supervisor *s, const struct changed_value *v);

/* methods.c */
int methods_open(struct supervisor *s);
int methods_adopt(struct supervisor *s, int fd); /* instead: on a listening socket (takes fd) */
void methods_close(struct supervisor *s);
#endif
