/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_guard: request heads taken apart by the leak guard. Whatever fields and cookies a client
 * sends, the head without some of them is one that can be read, and lacks these and no others.
 *
 * Byte 0: bit 0: cookie:sid is in the partition; bit 1: Authorization is; bits 2 and 3 choose what
 * is left out. The rest are header lines.
 */
#include "daemons/worker/leak_guard/leak_guard_fields.c"
#include "daemons/worker/message/guard.c"

#include <stdio.h>
#include <stdlib.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Of daemons/worker/message/identity.c: for requests that leave some of their cookies here. */
bool identity_edits_cookies(const struct request *r)
{
    (void)r;
    return false;
}

bool identity_put_selecting(const struct request *r, struct h1_out *o)
{
    (void)r, (void)o;
    return false;
}

static const char *const own[] = {"x-shop-*"};
static struct config_cache cache = {.guard_fields = own, .n_guard_fields = 1};
static struct config_route route = {.cache = &cache};
static struct h1_head head, again;
static char first[H1_HEAD_MAX + 64], second[40 << 10];

static const struct h1_head *parse(const char *bytes, size_t len, struct h1_head *into)
{
    enum problem problem;
    size_t scanned = 0;
    return h1_parse_request(bytes, len, &scanned, into, &problem) == H1_DONE ? into : NULL;
}

static void check_names(const struct guard_fields *k)
{
    char names[GUARD_NAMES];
    const size_t n = guard_fields_name(k, UINT32_MAX, names, sizeof names);
    must(n <= sizeof names);
    for (size_t i = 0; i < n; i++)
        must(names[i] >= ' ' && names[i] < 0x7f && names[i] != '"' && names[i] != '\\');
}

static void check_without(const struct guard_fields *k, const struct request *r, uint32_t omits)
{
    const struct cache_record rec = {0};
    const struct cache_view v = {.record = &rec, .vary = ""};
    struct guard_fields left;
    const size_t len = guard_fields_write(k, r->head, omits, second, sizeof second);
    must(len);
    if (!parse(second, len, &again)) /* a blank or two more than the limit: then nothing is asked */
        return;
    const struct request s = {.head = &again, .route = &route};
    guard_fields_list(&left, &s, &v);
    for (uint32_t i = 0; i < k->n; i++) {
        const bool there = index_of(&left, k->field[i].cookie, k->field[i].name) < left.n;
        if (left.n < GUARD_FIELDS_MAX && k->n < GUARD_FIELDS_MAX)
            must(there == !(omits >> i & 1));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct cache_record rec = {0};
    const struct cache_view v = {.record = &rec, .vary = ""};
    struct guard_fields k;
    if (size < 1 || size > H1_HEAD_MAX)
        return 0;
    cache.n_partition = 0;
    if (data[0] & 1)
        cache.partition[cache.n_partition++] = (struct config_key){CONFIG_KEY_COOKIE, "sid"};
    if (data[0] & 2)
        cache.partition[cache.n_partition++] = (struct config_key){CONFIG_KEY_JWT, "sub"};
    const size_t n = (size_t)snprintf(first, sizeof first, "GET /x HTTP/1.1\r\nHost: h\r\n%.*s\r\n",
                                      (int)size - 1, (const char *)data + 1);
    if (n >= sizeof first || !parse(first, n, &head))
        return 0;
    const struct request r = {.head = &head, .route = &route};
    guard_fields_list(&k, &r, &v);
    must(k.n <= GUARD_FIELDS_MAX);
    check_names(&k);
    check_without(&k, &r, 0);
    check_without(&k, &r, UINT32_MAX);
    check_without(&k, &r, 1u << (data[0] >> 2 & 15));
    return 0;
}
