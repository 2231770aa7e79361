/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_host: see fleet_host.h. */
#include "fleet_host.h"

#include <nettle/hmac.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SAID_MAX 200

static void sign(const uint8_t *key, size_t key_len, const char *text, size_t len, uint8_t mac[32])
{
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, key_len, key);
    hmac_sha256_update(&hmac, len, (const uint8_t *)text);
    hmac_sha256_digest(&hmac, 32, mac);
}

/* The host's name, a zero, what it says of itself before its lease and behind it. */
static void put_mac(const struct fleet_host_is *is, const char *head, const char *tail,
                    char hex[33])
{
    static const char purpose[] = "polder hosts";
    char all[SAID_MAX * 3];
    uint8_t key[32], mac[32];
    sign((const uint8_t *)is->secret, strlen(is->secret), is->fleet, strlen(is->fleet), key);
    sign(key, sizeof key, purpose, sizeof purpose, key);
    const int n = snprintf(all, sizeof all, "%s%c%s %s", is->host, 0, head, tail);
    sign(key, sizeof key, all, (size_t)n, mac);
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", mac[i]);
}

void fleet_host_put(struct redis *r, const struct fleet_host_is *is)
{
    char epoch[32], head[SAID_MAX], tail[SAID_MAX], mac[33];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(epoch, sizeof epoch, "%s", redis_do(r, "GET polder:{%s}:epoch", is->fleet));
    snprintf(head, sizeof head, "%x %s %u", is->instance, epoch, is->applied);
    snprintf(tail, sizeof tail, "%u %llu %u %u 0.1.0", is->format ? is->format : 2,
             (unsigned long long)now.tv_sec * 1000000000 + (unsigned long long)now.tv_nsec,
             is->entry ? is->entry : 3, is->object ? is->object : 2);
    put_mac(is, head, tail, mac);
    redis_do(
        r,
        "EVAL \"local t=redis.call('TIME') "
        "redis.call('HSET',KEYS[1],ARGV[1],ARGV[2]..' '..string.format('%%.0f',t[1]*1000+"
        "math.floor(t[2]/1000)+3000)..' '..ARGV[3])\" 1 polder:{%s}:hosts \"%s\" \"%s\" \"%s %s\"",
        is->fleet, is->host, head, tail, mac);
}
