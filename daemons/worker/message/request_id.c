/* SPDX-License-Identifier: BSD-2-Clause */
/* request_id: see request_id.h. */
#include "daemons/worker/message/request_id.h"
#include "daemons/http/h1.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/hex.h"
#include "polder/random.h"

#include <string.h>

#define GIVEN_MAX 128

#define WORKER_DIGITS 8

/* One to one (splitmix64). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void request_id_init(struct request_ids *ids)
{
    struct {
        uint64_t last, before, after, worker;
    } seed;
    char digits[HEX_DIGITS];
    random_fill(&seed, sizeof seed);
    ids->last = seed.last;
    ids->before = seed.before;
    ids->after = seed.after;
    hex_put(seed.worker, digits);
    memset(ids->line, '0', sizeof ids->line);
    memcpy(ids->line, "X-Request-Id: ", REQUEST_ID_AT);
    memcpy(ids->line + REQUEST_ID_AT, digits + HEX_DIGITS - WORKER_DIGITS, WORKER_DIGITS);
    memcpy(ids->line + sizeof ids->line - 2, "\r\n", 2);
}

static inline uint64_t scrambled(const struct request_ids *ids, uint64_t number)
{
    return mix(number ^ ids->before) ^ ids->after;
}

void request_id_write(const struct request_ids *ids, uint64_t number, char out[REQUEST_ID_LEN])
{
    memcpy(out, ids->line + REQUEST_ID_AT, WORKER_DIGITS);
    hex_put(scrambled(ids, number), out + WORKER_DIGITS);
}

bool request_id_is_given(const struct request *r)
{
    const struct h1_field *f =
        r->trusted_peer && r->head ? h1_find(r->head, H1_X_REQUEST_ID) : NULL;
    return f && f->value.len <= GIVEN_MAX && field_is_token(f->value);
}

struct str request_id_of(const struct request *r, char space[REQUEST_ID_LEN])
{
    if (request_id_is_given(r))
        return h1_find(r->head, H1_X_REQUEST_ID)->value;
    request_id_write(&r->worker->messages->ids, r->number, space);
    return (struct str){space, REQUEST_ID_LEN};
}

void request_id_put(struct h1_out *o, const struct request *r)
{
    const struct request_ids *ids = &r->worker->messages->ids;
    if (request_id_is_given(r)) {
        h1_put_field(o, "X-Request-Id", h1_find(r->head, H1_X_REQUEST_ID)->value);
        return;
    }
    if ((size_t)(o->end - o->at) < sizeof ids->line) {
        o->overflow = true;
        return;
    }
    memcpy(o->at, ids->line, sizeof ids->line);
    hex_put(scrambled(ids, r->number), o->at + REQUEST_ID_AT + WORKER_DIGITS);
    o->at += sizeof ids->line;
}
