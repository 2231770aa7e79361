/* SPDX-License-Identifier: BSD-2-Clause */
/* request_id: see request_id.h. */
#include "daemons/worker/request_id.h"
#include "daemons/http/h1.h"
#include "daemons/worker/request.h"
#include "daemons/worker/worker.h"

#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define GIVEN_MAX 128

/* The eight hex digits of a number, all at once: a nibble a byte, then each to its letter. */
static void put_hex8(uint32_t n, char out[8])
{
    uint64_t v = n;
    v = (v << 16 | v) & UINT64_C(0x0000ffff0000ffff);
    v = (v << 8 | v) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v << 4 | v) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    const uint64_t letters = (v + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
    v += UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
    v = __builtin_bswap64(v);
    memcpy(out, &v, sizeof v);
}

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
        uint64_t last, before, after;
        uint32_t worker;
    } seed;
    memset(&seed, 0, sizeof seed);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed.worker = (uint32_t)getpid();
    ids->last = seed.last;
    ids->before = seed.before;
    ids->after = seed.after;
    put_hex8(seed.worker, ids->worker);
}

void request_id_write(const struct request_ids *ids, uint64_t number, char out[REQUEST_ID_LEN])
{
    const uint64_t n = mix(number ^ ids->before) ^ ids->after;
    memcpy(out, ids->worker, 8);
    put_hex8((uint32_t)(n >> 32), out + 8);
    put_hex8((uint32_t)n, out + 16);
}

bool request_id_is_given(const struct request *r)
{
    const struct h1_field *f =
        r->trusted_peer && r->head ? h1_find(r->head, H1_X_REQUEST_ID) : NULL;
    return f && f->value.len <= GIVEN_MAX && field_is_token(f->value);
}

struct field_text request_id_of(const struct request *r, char space[REQUEST_ID_LEN])
{
    if (request_id_is_given(r))
        return h1_find(r->head, H1_X_REQUEST_ID)->value;
    request_id_write(&r->worker->ids, r->number, space);
    return (struct field_text){space, REQUEST_ID_LEN};
}

void request_id_put(struct h1_out *o, const struct request *r)
{
    char space[REQUEST_ID_LEN];
    const struct field_text id = request_id_of(r, space);
    h1_put(o, "X-Request-Id: ", 14);
    h1_put(o, id.at, id.len);
    h1_put(o, "\r\n", 2);
}
