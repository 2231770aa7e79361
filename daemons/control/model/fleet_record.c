/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_record: see fleet_record.h. */
#include "daemons/control/model/fleet_record.h"
#include "daemons/control/model/fleet_object.h"

#include <errno.h>
#include <inttypes.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 24 /* of a newer program, too */

void fleet_record_key(const struct fleet_key *fleet, struct fleet_key *key)
{
    static const char purpose[] = "polder hosts";
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, sizeof fleet->bytes, fleet->bytes);
    hmac_sha256_update(&hmac, sizeof purpose, (const uint8_t *)purpose);
    hmac_sha256_digest(&hmac, sizeof key->bytes, key->bytes);
}

struct part {
    const char *at;
    size_t len;
};

/* head: up to UNTIL; tail: from FORMAT to PROGRAM. */
static void sign(struct part host, struct part head, struct part tail, const struct fleet_key *key,
                 char hex[2 * FLEET_MAC + 1])
{
    static const uint8_t nothing = 0;
    const struct part parts[] = {host, {(const char *)&nothing, 1}, head, {" ", 1}, tail};
    struct hmac_sha256_ctx hmac;
    uint8_t mac[FLEET_MAC];
    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        hmac_sha256_update(&hmac, parts[i].len, (const uint8_t *)parts[i].at);
    hmac_sha256_digest(&hmac, sizeof mac, mac);
    for (size_t i = 0; i < sizeof mac; i++)
        snprintf(hex + 2 * i, 3, "%02x", mac[i]);
}

void fleet_record_tail(const struct fleet_record *r, const char *host, const struct fleet_key *key,
                       char out[FLEET_TAIL_SIZE])
{
    char head[80], mac[2 * FLEET_MAC + 1];
    snprintf(head, sizeof head, "%" PRIx64 " %" PRIu64 " %" PRIu64, r->instance, r->epoch,
             r->applied);
    const int n =
        snprintf(out, FLEET_TAIL_SIZE, "%d %" PRIu64 " %d %d %.*s", FLEET_FORMAT, r->seq,
                 FLEET_ENTRY_VERSION, FLEET_OBJECT_VERSION, FLEET_PROGRAM_SIZE - 1, POLDER_VERSION);
    sign((struct part){host, strlen(host)}, (struct part){head, strlen(head)},
         (struct part){out, (size_t)n}, key, mac);
    snprintf(out + n, FLEET_TAIL_SIZE - (size_t)n, " %s", mac);
}

/* ---- reading ---- */

/* The words of a text, each parted by one space; how many, 0: too many. */
static size_t part_words(const char *text, size_t len, struct part word[WORDS])
{
    const char *end = text + len;
    size_t n = 0;
    for (;; n++) {
        const char *space = memchr(text, ' ', (size_t)(end - text));
        if (n == WORDS)
            return 0;
        word[n] = (struct part){text, (size_t)((space ? space : end) - text)};
        if (!space)
            return n + 1;
        text = space + 1;
    }
}

static bool take_number(struct part w, int base, uint64_t max, uint64_t *out)
{
    static const char digits[] = "0123456789abcdef";
    char text[24];
    if (!w.len || w.len > 20)
        return false;
    memcpy(text, w.at, w.len);
    text[w.len] = 0;
    for (size_t i = 0; i < w.len; i++)
        if (!text[i] || !memchr(digits, text[i], (size_t)base))
            return false;
    errno = 0;
    *out = strtoull(text, NULL, base);
    return !errno && *out <= max;
}

static bool take_small(struct part w, uint32_t *out)
{
    uint64_t n = 0;
    const bool good = take_number(w, 10, UINT32_MAX, &n);
    *out = (uint32_t)n;
    return good;
}

static bool take_program(struct part w, char out[FLEET_PROGRAM_SIZE])
{
    if (!w.len || w.len >= FLEET_PROGRAM_SIZE)
        return false;
    for (size_t i = 0; i < w.len; i++)
        out[i] = w.at[i] > ' ' && w.at[i] < 0x7f ? w.at[i] : '?';
    out[w.len] = 0;
    return true;
}

static bool take_lease(const struct part *word, size_t n, struct fleet_record *out)
{
    return n >= 4 && take_number(word[0], 16, UINT64_MAX, &out->instance) &&
           take_number(word[1], 10, UINT64_MAX, &out->epoch) &&
           take_number(word[2], 10, UINT64_MAX, &out->applied) &&
           take_number(word[3], 10, UINT64_MAX / 2, &out->until_ms);
}

static bool take_versions(const struct part *word, size_t n, struct fleet_record *out)
{
    return n >= 10 && take_small(word[4], &out->format) &&
           take_number(word[5], 10, UINT64_MAX, &out->seq) && take_small(word[6], &out->entry) &&
           take_small(word[7], &out->object) && take_program(word[8], out->program);
}

static bool is_signed(struct part host, const struct part *word, size_t n,
                      const struct fleet_key *key)
{
    const struct part head = {word[0].at, (size_t)(word[2].at + word[2].len - word[0].at)},
                      tail = {word[4].at, (size_t)(word[n - 1].at - 1 - word[4].at)};
    char mac[2 * FLEET_MAC + 1];
    if (word[n - 1].len != 2 * FLEET_MAC)
        return false;
    sign(host, head, tail, key, mac);
    return memeql_sec(mac, word[n - 1].at, 2 * FLEET_MAC);
}

int fleet_record_read(const char *host, size_t host_len, const char *text, size_t len,
                      const struct fleet_key *key, struct fleet_record *out)
{
    struct part word[WORDS];
    const size_t n = len < FLEET_RECORD_MAX ? part_words(text, len, word) : 0;
    *out = (struct fleet_record){.format = 1};
    if (!take_lease(word, n, out))
        return -EINVAL;
    if (host_len >= FLEET_HOST_SIZE || !take_versions(word, n, out) ||
        !is_signed((struct part){host, host_len}, word, n, key))
        return -EPERM;
    return 0;
}
