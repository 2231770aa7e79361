/* SPDX-License-Identifier: BSD-2-Clause */
/* block: see block.h. */
#include "daemons/supervisor/carry/block.h"

#include <string.h>

void carry_put_numbers(struct state_writer *w, const uint64_t *from, size_t n)
{
    state_put_bytes(w, from, n * sizeof *from);
}

void carry_get_numbers(struct state_reader *r, uint64_t *to, size_t n)
{
    size_t len;
    const void *from = state_get_bytes(r, &len);
    memset(to, 0, n * sizeof *to);
    if (len % sizeof *to)
        state_refuse(r, "is a list of %zu bytes", len);
    else if (len)
        memcpy(to, from, len < n * sizeof *to ? len : n * sizeof *to);
}

static void put_bytes(struct state_writer *w, struct bytes b)
{
    state_put_bytes(w, b.at, b.len);
}

static struct bytes get_bytes(struct state_reader *r)
{
    struct bytes b;
    b.at = state_get_bytes(r, &b.len);
    return b;
}

/* ---- a leg ---- */

/* Only ever appended to. */
enum {
    LEG_LEFT,
    LEG_MESSAGE,
    LEG_MASK,
    LEG_PHASE,
    LEG_OPCODE,
    LEG_FRAME_FLAGS,
    LEG_UTF8,
    LEG_PINGED_MS,
    LEG_PINGS_OUT,
    LEG_CUT,
    LEG_FIN,
    LEG_NUMBERS
};
enum {
    FRAME_FIN = 1,
    FRAME_COMPRESSED = 2,
    FRAME_FROM_CLIENT = 4,
    FRAME_RSV1 = 8,
    FRAME_CLOSE_SEEN = 16,
    FRAME_STARTED = 32
};

static void put_leg(struct state_writer *w, const struct leg_record *l)
{
    const struct frames *f = &l->in;
    const uint64_t n[LEG_NUMBERS] = {
        [LEG_LEFT] = f->left,
        [LEG_MESSAGE] = f->message,
        [LEG_MASK] = (uint64_t)f->mask[0] | (uint64_t)f->mask[1] << 8 | (uint64_t)f->mask[2] << 16 |
                     (uint64_t)f->mask[3] << 24,
        [LEG_PHASE] = f->phase,
        [LEG_OPCODE] = f->opcode,
        [LEG_FRAME_FLAGS] =
            (f->fin ? FRAME_FIN : 0u) | (f->compressed ? FRAME_COMPRESSED : 0u) |
            (f->from_client ? FRAME_FROM_CLIENT : 0u) | (f->rsv1_allowed ? FRAME_RSV1 : 0u) |
            (f->close_seen ? FRAME_CLOSE_SEEN : 0u) | (f->started ? FRAME_STARTED : 0u),
        [LEG_UTF8] = f->utf8,
        [LEG_PINGED_MS] = l->pinged_ms,
        [LEG_PINGS_OUT] = l->pings_out,
        [LEG_CUT] = l->cut,
        [LEG_FIN] = l->fin,
    };
    state_put_fd(w, l->fd, STATE_FD_SOCKET);
    carry_put_numbers(w, n, LEG_NUMBERS);
    put_bytes(w, l->stash);
    put_bytes(w, l->out);
    state_put_bytes(w, l->expanded, l->expanded ? sizeof *l->expanded : 0);
}

static void get_expanded(struct state_reader *r, struct leg_record *l,
                         struct inflate_packed *expanded)
{
    const struct bytes b = get_bytes(r);
    if (b.len == sizeof *expanded) {
        memcpy(expanded, b.at, sizeof *expanded);
        l->expanded = expanded;
    } else if (b.len) {
        state_refuse(r, "is a count of %zu bytes", b.len);
    }
}

static void get_leg(struct state_reader *r, struct leg_record *l, struct inflate_packed *expanded)
{
    uint64_t n[LEG_NUMBERS];
    l->fd = state_get_fd(r, STATE_FD_SOCKET);
    carry_get_numbers(r, n, LEG_NUMBERS);
    if (n[LEG_PHASE] > UINT8_MAX || n[LEG_OPCODE] > UINT8_MAX || n[LEG_UTF8] > UINT8_MAX ||
        n[LEG_PINGS_OUT] > UINT8_MAX)
        state_refuse(r, "a number of a connection is too large");
    l->in = (struct frames){.left = n[LEG_LEFT],
                            .message = n[LEG_MESSAGE],
                            .phase = (uint8_t)n[LEG_PHASE],
                            .opcode = (uint8_t)n[LEG_OPCODE],
                            .fin = n[LEG_FRAME_FLAGS] & FRAME_FIN,
                            .compressed = n[LEG_FRAME_FLAGS] & FRAME_COMPRESSED,
                            .from_client = n[LEG_FRAME_FLAGS] & FRAME_FROM_CLIENT,
                            .rsv1_allowed = n[LEG_FRAME_FLAGS] & FRAME_RSV1,
                            .close_seen = n[LEG_FRAME_FLAGS] & FRAME_CLOSE_SEEN,
                            .started = n[LEG_FRAME_FLAGS] & FRAME_STARTED,
                            .utf8 = (uint8_t)n[LEG_UTF8]};
    for (int i = 0; i < 4; i++)
        l->in.mask[i] = (uint8_t)(n[LEG_MASK] >> (8 * i));
    l->pinged_ms = n[LEG_PINGED_MS];
    l->pings_out = (uint8_t)n[LEG_PINGS_OUT];
    l->cut = n[LEG_CUT] != 0;
    l->fin = n[LEG_FIN] != 0;
    l->stash = get_bytes(r);
    l->out = get_bytes(r);
    get_expanded(r, l, expanded);
}

/* ---- a handshake ---- */

enum {
    PENDING_SERVERS,
    PENDING_TRIED,
    PENDING_SERVER,
    PENDING_ADDRESS,
    PENDING_FAILED_ATTEMPTS,
    PENDING_UNTIL_MS,
    PENDING_LEASE_MS,
    PENDING_FAILED_STATUS,
    PENDING_BODY_FRAMING,
    PENDING_BODY_LEFT,
    PENDING_BODY_TOTAL,
    PENDING_BODY_STATE,
    PENDING_BODY_DONE,
    PENDING_BODY_LINE,
    PENDING_BODY_TRAILER,
    PENDING_PLACE,
    PENDING_ANYWAY,
    PENDING_STICKY_HASH,
    PENDING_STICKY_SERVER,
    PENDING_STICKY_FRESH,
    PENDING_NUMBERS
};

static void put_pending(struct state_writer *w, const struct pending_record *p)
{
    const uint64_t n[PENDING_NUMBERS] = {
        [PENDING_SERVERS] = p->servers,
        [PENDING_TRIED] = p->tried,
        [PENDING_SERVER] = p->server,
        [PENDING_ADDRESS] = p->address,
        [PENDING_FAILED_ATTEMPTS] = p->failed_attempts,
        [PENDING_UNTIL_MS] = p->until_ms,
        [PENDING_LEASE_MS] = p->lease_ms,
        [PENDING_FAILED_STATUS] = problem_status(p->failed_with),
        [PENDING_BODY_FRAMING] = p->body.framing,
        [PENDING_BODY_LEFT] = p->body.left,
        [PENDING_BODY_TOTAL] = p->body.total,
        [PENDING_BODY_STATE] = p->body.state,
        [PENDING_BODY_DONE] = p->body.done,
        [PENDING_BODY_LINE] = p->body.line,
        [PENDING_BODY_TRAILER] = p->body.trailer,
        [PENDING_PLACE] = p->place,
        [PENDING_ANYWAY] = p->anyway,
        [PENDING_STICKY_HASH] = p->sticky.hash,
        [PENDING_STICKY_SERVER] = p->sticky.server,
        [PENDING_STICKY_FRESH] = p->sticky.fresh,
    };
    carry_put_numbers(w, n, PENDING_NUMBERS);
    state_put_bytes(w, p->accept_key, sizeof p->accept_key);
    state_put_text(w, p->failed_why);
    put_bytes(w, p->limits);
    put_bytes(w, p->head);
    put_bytes(w, p->pipelined);
    put_bytes(w, p->answer);
}

static uint32_t small(struct state_reader *r, uint64_t number)
{
    if (number > UINT32_MAX)
        state_refuse(r, "a number of a handshake is too large");
    return (uint32_t)number;
}

static void get_pending(struct state_reader *r, struct pending_record *p)
{
    uint64_t n[PENDING_NUMBERS];
    carry_get_numbers(r, n, PENDING_NUMBERS);
    if (n[PENDING_BODY_STATE] > UINT8_MAX || n[PENDING_BODY_FRAMING] > UINT8_MAX)
        state_refuse(r, "a number of an answer is too large");
    *p = (struct pending_record){
        .servers = n[PENDING_SERVERS],
        .tried = n[PENDING_TRIED],
        .server = small(r, n[PENDING_SERVER]),
        .address = small(r, n[PENDING_ADDRESS]),
        .place = small(r, n[PENDING_PLACE]),
        .anyway = n[PENDING_ANYWAY] != 0,
        .sticky = {.hash = n[PENDING_STICKY_HASH],
                   .server = small(r, n[PENDING_STICKY_SERVER]),
                   .fresh = n[PENDING_STICKY_FRESH] != 0},
        .failed_attempts = small(r, n[PENDING_FAILED_ATTEMPTS]),
        .until_ms = n[PENDING_UNTIL_MS],
        .lease_ms = n[PENDING_LEASE_MS],
        .failed_with = n[PENDING_FAILED_STATUS] == problem_status(PROBLEM_GATEWAY_TIMEOUT)
                           ? PROBLEM_GATEWAY_TIMEOUT
                           : PROBLEM_BAD_GATEWAY,
        .body = {.framing = (enum h1_framing)n[PENDING_BODY_FRAMING],
                 .left = n[PENDING_BODY_LEFT],
                 .total = n[PENDING_BODY_TOTAL],
                 .state = (uint8_t)n[PENDING_BODY_STATE],
                 .done = n[PENDING_BODY_DONE] != 0,
                 .line = small(r, n[PENDING_BODY_LINE]),
                 .trailer = small(r, n[PENDING_BODY_TRAILER])},
    };
    const struct bytes key = get_bytes(r);
    if (key.len == sizeof p->accept_key)
        memcpy(p->accept_key, key.at, key.len);
    else
        state_refuse(r, "is a key of %zu bytes", key.len);
    p->failed_why = state_get_text(r);
    p->limits = get_bytes(r);
    p->head = get_bytes(r);
    p->pipelined = get_bytes(r);
    p->answer = get_bytes(r);
}

/* ---- a subscription ---- */

static void put_subscription(struct state_writer *w, const struct subscription_record *b)
{
    state_put_u64(w, b->prefix != NULL);
    state_put_text(w, b->prefix ? b->prefix : "");
    state_put_u64(w, b->n_tags);
    for (uint32_t i = 0; i < b->n_tags; i++)
        state_put_text(w, b->tags[i]);
    state_put_u64(w, b->text != NULL);
    state_put_bytes(w, b->text, b->text ? b->len : 0);
    state_put_u64(w, b->overlong);
    state_put_u64(w, b->mistakes);
}

static void get_subscription(struct state_reader *r, struct subscription_record *b)
{
    *b = (struct subscription_record){0};
    const bool has_prefix = state_get_number(r, 1);
    const char *prefix = state_get_text(r);
    b->prefix = has_prefix ? prefix : NULL;
    b->n_tags = (uint32_t)state_get_number(r, SUBSCRIPTION_TAGS_MAX);
    for (uint32_t i = 0; i < b->n_tags; i++)
        b->tags[i] = state_get_text(r);
    const bool has_text = state_get_number(r, 1);
    const struct bytes text = get_bytes(r);
    b->text = has_text ? text.at : NULL;
    b->len = text.len;
    b->overlong = state_get_number(r, 1);
    b->mistakes = (uint8_t)state_get_number(r, UINT8_MAX);
}

/* ---- a line of the access log ---- */

static void put_str(struct state_writer *w, struct str text)
{
    state_put_bytes(w, text.at, text.len);
}

static struct str get_str(struct state_reader *r)
{
    const struct bytes b = get_bytes(r);
    return (struct str){b.at, b.len};
}

static void put_line(struct state_writer *w, const struct access_line *l)
{
    state_put_bytes(w, l->client.addr, sizeof l->client.addr);
    put_str(w, l->method);
    put_str(w, l->host);
    put_str(w, l->target);
    put_str(w, l->protocol);
    put_str(w, l->user_agent);
    put_str(w, l->referer);
    put_str(w, l->request_id);
    put_str(w, l->upstream);
    put_str(w, l->route);
    state_put_u64(w, l->upstream_us);
}

static void get_line(struct state_reader *r, struct access_line *l)
{
    *l = (struct access_line){.cache = "none"};
    const struct bytes client = get_bytes(r);
    if (client.len == sizeof l->client.addr)
        memcpy(l->client.addr, client.at, client.len);
    else
        state_refuse(r, "is an address of %zu bytes", client.len);
    l->method = get_str(r);
    l->host = get_str(r);
    l->target = get_str(r);
    l->protocol = get_str(r);
    l->user_agent = get_str(r);
    l->referer = get_str(r);
    l->request_id = get_str(r);
    l->upstream = get_str(r);
    l->route = get_str(r);
    l->upstream_us = state_get_u64(r);
}

/* ---- a session ---- */

enum {
    SESSION_ID,
    SESSION_STATE,
    SESSION_END_WHY,
    SESSION_FLAGS,
    SESSION_OPENED_MS,
    SESSION_TO_CLIENT_MS,
    SESSION_FROM_CLIENT_MS,
    SESSION_DEADLINE_MS,
    SESSION_MOVED_MS,
    SESSION_DUE_MS,
    SESSION_UNDELIVERED,
    SESSION_BEGUN_NS,
    SESSION_REQUESTED_NS,
    SESSION_BYTES,
    SESSION_MESSAGES_IN,
    SESSION_MESSAGES_OUT,
    SESSION_REFUSED_WITH,
    SESSION_CLOSE_CODE,
    SESSION_NUMBERS
};
enum {
    FLAG_PROBE = 1,
    FLAG_GOODBYE = 2,
    FLAG_UNTOLD = 4,
    FLAG_PENDING = 8,
    FLAG_SUBSCRIPTION = 16,
    FLAG_LINE = 32
};

void carry_put_session(struct state_writer *w, const struct session_record *x)
{
    const uint64_t n[SESSION_NUMBERS] = {
        [SESSION_ID] = x->id,
        [SESSION_STATE] = x->state,
        [SESSION_END_WHY] = x->end,
        [SESSION_FLAGS] = (x->probe ? FLAG_PROBE : 0u) | (x->goodbye ? FLAG_GOODBYE : 0u) |
                          (x->untold ? FLAG_UNTOLD : 0u) | (x->pending ? FLAG_PENDING : 0u) |
                          (x->subscription ? FLAG_SUBSCRIPTION : 0u) | (x->line ? FLAG_LINE : 0u),
        [SESSION_OPENED_MS] = x->opened_ms,
        [SESSION_TO_CLIENT_MS] = x->to_client_ms,
        [SESSION_FROM_CLIENT_MS] = x->from_client_ms,
        [SESSION_DEADLINE_MS] = x->deadline_ms,
        [SESSION_MOVED_MS] = x->moved_ms,
        [SESSION_DUE_MS] = x->due_ms,
        [SESSION_UNDELIVERED] = x->undelivered,
        [SESSION_BEGUN_NS] = x->begun_ns,
        [SESSION_REQUESTED_NS] = x->requested_ns,
        [SESSION_BYTES] = x->bytes,
        [SESSION_MESSAGES_IN] = x->messages_in,
        [SESSION_MESSAGES_OUT] = x->messages_out,
        [SESSION_REFUSED_WITH] = x->refused_with,
        [SESSION_CLOSE_CODE] = x->close_code,
    };
    state_record(w, CARRY_SESSION, 0);
    carry_put_numbers(w, n, SESSION_NUMBERS);
    state_put_text(w, x->route);
    state_put_bytes(w, x->ip.addr, sizeof x->ip.addr);
    state_put_text(w, x->client_id);
    put_leg(w, &x->client);
    put_leg(w, &x->backend);
    if (x->pending)
        put_pending(w, x->pending);
    if (x->subscription)
        put_subscription(w, x->subscription);
    if (x->line)
        put_line(w, x->line);
}

static void get_numbers(struct state_reader *r, const uint64_t n[SESSION_NUMBERS],
                        struct session_record *x)
{
    if (n[SESSION_STATE] > UINT8_MAX || n[SESSION_END_WHY] > UINT8_MAX ||
        n[SESSION_REFUSED_WITH] > UINT16_MAX || n[SESSION_CLOSE_CODE] > UINT16_MAX)
        state_refuse(r, "a number of a session is too large");
    *x = (struct session_record){.id = n[SESSION_ID],
                                 .state = (uint8_t)n[SESSION_STATE],
                                 .end = (uint8_t)n[SESSION_END_WHY],
                                 .probe = n[SESSION_FLAGS] & FLAG_PROBE,
                                 .goodbye = n[SESSION_FLAGS] & FLAG_GOODBYE,
                                 .untold = n[SESSION_FLAGS] & FLAG_UNTOLD,
                                 .opened_ms = n[SESSION_OPENED_MS],
                                 .to_client_ms = n[SESSION_TO_CLIENT_MS],
                                 .from_client_ms = n[SESSION_FROM_CLIENT_MS],
                                 .deadline_ms = n[SESSION_DEADLINE_MS],
                                 .moved_ms = n[SESSION_MOVED_MS],
                                 .due_ms = n[SESSION_DUE_MS],
                                 .undelivered = n[SESSION_UNDELIVERED],
                                 .begun_ns = n[SESSION_BEGUN_NS],
                                 .requested_ns = n[SESSION_REQUESTED_NS],
                                 .bytes = n[SESSION_BYTES],
                                 .messages_in = n[SESSION_MESSAGES_IN],
                                 .messages_out = n[SESSION_MESSAGES_OUT],
                                 .refused_with = (uint16_t)n[SESSION_REFUSED_WITH],
                                 .close_code = (uint16_t)n[SESSION_CLOSE_CODE]};
}

static void get_parts(struct state_reader *r, uint64_t flags, struct carry_session *to)
{
    struct session_record *x = &to->record;
    if (flags & FLAG_PENDING) {
        get_pending(r, &to->pending);
        x->pending = &to->pending;
    }
    if (flags & FLAG_SUBSCRIPTION) {
        get_subscription(r, &to->subscription);
        x->subscription = &to->subscription;
    }
    if (flags & FLAG_LINE) {
        get_line(r, &to->line);
        x->line = &to->line;
    }
}

bool carry_get_session(struct state_reader *r, struct carry_session *to)
{
    struct session_record *x = &to->record;
    uint64_t n[SESSION_NUMBERS];
    carry_get_numbers(r, n, SESSION_NUMBERS);
    get_numbers(r, n, x);
    x->route = state_get_text(r);
    const struct bytes ip = get_bytes(r);
    if (ip.len == sizeof x->ip.addr)
        memcpy(x->ip.addr, ip.at, ip.len);
    else
        state_refuse(r, "is an address of %zu bytes", ip.len);
    x->client_id = state_get_text(r);
    get_leg(r, &x->client, &to->expanded[0]);
    get_leg(r, &x->backend, &to->expanded[1]);
    get_parts(r, n[SESSION_FLAGS], to);
    const char *wrong = state_good(r) ? session_record_wrong(x) : NULL;
    if (wrong)
        state_refuse(r, "%s", wrong);
    return state_good(r);
}

/* ---- one that leaves ---- */

enum { LEAVING_DUE_MS, LEAVING_RESET, LEAVING_FIN, LEAVING_EOF, LEAVING_PIECES, LEAVING_NUMBERS };

void carry_put_leaving(struct state_writer *w, const struct leaving_record *x)
{
    const struct buffer *b;
    uint64_t n[LEAVING_NUMBERS] = {[LEAVING_DUE_MS] = x->due_ms,
                                   [LEAVING_RESET] = x->reset,
                                   [LEAVING_FIN] = x->fin,
                                   [LEAVING_EOF] = x->eof};
    if (x->out->len)
        STAILQ_FOREACH (b, &x->out->list, next)
            n[LEAVING_PIECES]++;
    state_record(w, CARRY_LEAVING, 0);
    state_put_fd(w, x->fd, STATE_FD_SOCKET);
    carry_put_numbers(w, n, LEAVING_NUMBERS);
    if (x->out->len)
        STAILQ_FOREACH (b, &x->out->list, next)
            state_put_bytes(w, b->data + b->start, b->end - b->start);
}

bool carry_get_leaving(struct state_reader *r, struct carry_leaving *to)
{
    uint64_t n[LEAVING_NUMBERS];
    *to = (struct carry_leaving){.record.fd = state_get_fd(r, STATE_FD_SOCKET)};
    carry_get_numbers(r, n, LEAVING_NUMBERS);
    to->record.due_ms = n[LEAVING_DUE_MS];
    to->record.reset = n[LEAVING_RESET] != 0;
    to->record.fin = n[LEAVING_FIN] != 0;
    to->record.eof = n[LEAVING_EOF] != 0;
    to->pieces = n[LEAVING_PIECES];
    if (to->record.fd < 0 || !to->record.due_ms)
        state_refuse(r, "a client that leaves has no connection");
    return state_good(r);
}

struct bytes carry_get_piece(struct state_reader *r, struct carry_leaving *to)
{
    if (!to->pieces || !state_good(r))
        return (struct bytes){0};
    to->pieces--;
    return get_bytes(r);
}
