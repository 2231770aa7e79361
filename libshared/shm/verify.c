/* SPDX-License-Identifier: BSD-2-Clause */
/* verify: see verify.h. */
#include "polder/verify.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define DIGITS (VERIFY_TOKEN_SIZE - 1)

/* False: these are not hexadecimal digits in lower case. */
static bool verify_read_token(struct str text, uint64_t out[2])
{
    if (text.len < DIGITS)
        return false;
    out[0] = out[1] = 0;
    for (size_t i = 0; i < DIGITS; i++) {
        const char c = text.at[i];
        const unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                               : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                      : 16;
        if (digit == 16)
            return false;
        uint64_t *half = &out[i / 16];
        *half = *half << 4 | digit;
    }
    return true;
}

/* Of the same time whatever the token is. */
static bool verify_is_good(const struct verify_lease *lease, uint64_t now_ms, struct str text)
{
    uint64_t token[2];
    if (now_ms >= atomic_load_explicit(&lease->until_ms, memory_order_acquire) ||
        !verify_read_token(text, token))
        return false;
    return !((token[0] ^ atomic_load_explicit(&lease->token[0], memory_order_relaxed)) |
             (token[1] ^ atomic_load_explicit(&lease->token[1], memory_order_relaxed)));
}

/* "client=N"; 0: it is not that. */
static uint8_t verify_read_client(struct str word)
{
    static const char name[] = "client=";
    unsigned n = 0;
    if (word.len < sizeof name || word.len > sizeof name + 2 ||
        memcmp(word.at, name, sizeof name - 1))
        return 0;
    for (size_t i = sizeof name - 1; i < word.len; i++) {
        if (word.at[i] < '0' || word.at[i] > '9')
            return 0;
        n = n * 10 + (unsigned)(word.at[i] - '0');
    }
    return n <= VERIFY_CLIENTS ? (uint8_t)n : 0;
}

static bool verify_read_word(struct str word, struct verify_probe *p)
{
    const uint8_t client = verify_read_client(word);
    if (client)
        p->client = client;
    else if (word.len == 5 && !memcmp(word.at, "limit", 5))
        p->kind = VERIFY_LIMIT;
    else if (word.len == 5 && !memcmp(word.at, "local", 5))
        p->kind = VERIFY_LOCAL;
    else
        return false;
    return true;
}

struct verify_probe verify_look(const struct verify_lease *lease, uint64_t now_ms, struct str value)
{
    struct verify_probe p = {.kind = VERIFY_REQUEST, .client = 1};
    if (!verify_is_good(lease, now_ms, value))
        return (struct verify_probe){.kind = VERIFY_NONE};
    p.run = atomic_load_explicit(&lease->run, memory_order_relaxed);
    struct str rest = {value.at + DIGITS, value.len - DIGITS};
    while (rest.len) {
        const char *end = memchr(rest.at + 1, ';', rest.len - 1);
        const size_t len = end ? (size_t)(end - rest.at) : rest.len;
        if (rest.at[0] != ';' || !verify_read_word((struct str){rest.at + 1, len - 1}, &p))
            return (struct verify_probe){.kind = VERIFY_NONE};
        rest = (struct str){rest.at + len, rest.len - len};
    }
    return p;
}

unsigned verify_host(uint64_t run, char out[VERIFY_HOST_SIZE])
{
    return (unsigned)snprintf(out, VERIFY_HOST_SIZE, "verify-%016llx.invalid",
                              (unsigned long long)run);
}

bool verify_is_url(const char *url, size_t len)
{
    static const char begin[] = "verify-", end[] = ".invalid/";
    const size_t host = VERIFY_HOST_SIZE - 1;
    return len > host && !memcmp(url, begin, sizeof begin - 1) &&
           !memcmp(url + host - (sizeof end - 2), end, sizeof end - 1);
}

int verify_begin(struct verify_lease *lease, uint64_t now_ms, char token[VERIFY_TOKEN_SIZE])
{
    uint64_t random[3];
    if (now_ms < atomic_load_explicit(&lease->until_ms, memory_order_relaxed))
        return -EBUSY;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return -EAGAIN;
    atomic_store_explicit(&lease->until_ms, 0, memory_order_release);
    atomic_store_explicit(&lease->token[0], random[0], memory_order_relaxed);
    atomic_store_explicit(&lease->token[1], random[1], memory_order_relaxed);
    atomic_store_explicit(&lease->run, random[2] | 1, memory_order_relaxed);
    atomic_store_explicit(&lease->until_ms, now_ms + VERIFY_LEASE_MS, memory_order_release);
    snprintf(token, VERIFY_TOKEN_SIZE, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return 0;
}

bool verify_keep(struct verify_lease *lease, uint64_t now_ms, struct str token)
{
    if (token.len != DIGITS || !verify_is_good(lease, now_ms, token))
        return false;
    atomic_store_explicit(&lease->until_ms, now_ms + VERIFY_LEASE_MS, memory_order_release);
    return true;
}

void verify_end(struct verify_lease *lease)
{
    atomic_store_explicit(&lease->until_ms, 0, memory_order_release);
}

uint64_t verify_expired(const struct verify_lease *lease, uint64_t now_ms)
{
    const uint64_t until_ms = atomic_load_explicit(&lease->until_ms, memory_order_relaxed);
    return until_ms && now_ms >= until_ms ? atomic_load_explicit(&lease->run, memory_order_relaxed)
                                          : 0;
}
