/* SPDX-License-Identifier: BSD-2-Clause */
/* ping: pings of our own, and the pongs that answer them, which are not passed on. */
#include "daemons/supervisor/supervisor.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Other parties cannot guess it: a proxy in front of us or behind us has pings of its own. */
static uint64_t ping_payload(struct supervisor *s, const struct leg *leg)
{
    const uint64_t of[2] = {leg->session->id, leg == &leg->session->client};
    while (!s->ping_secret)
        s->ping_secret = random_next(&s->random);
    return XXH3_64bits_withSeed(of, sizeof of, s->ping_secret);
}

void ping_send(struct supervisor *s, struct leg *leg)
{
    const uint64_t payload = ping_payload(s, leg);
    const uint8_t before = leg->pings_out;
    if (before < UINT8_MAX)
        leg->pings_out++; /* whoever sees its pong knows of it */
    if (leg_put_frame(s, leg, FRAMES_PING, &payload, sizeof payload)) {
        s->pings += !leg->session->probe;
        leg->pinged_ms = s->now_ms;
    } else {
        leg->pings_out = before;
    }
}

bool ping_answered(struct supervisor *s, struct leg *from, const uint8_t *payload, size_t len)
{
    const uint64_t ours = ping_payload(s, from);
    if (!from->pings_out || len != sizeof ours || memcmp(payload, &ours, sizeof ours))
        return false;
    from->pings_out--;
    s->pongs += !from->session->probe;
    return true;
}
