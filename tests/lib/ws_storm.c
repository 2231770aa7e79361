/* SPDX-License-Identifier: BSD-2-Clause */
/* ws_storm: see ws_storm.h. */
#include "ws_storm.h"
#include "ws_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IN_MAX   512
#define QUIET_MS 20000 /* then what is under way does not come any more */

struct ws_storm_client {
    int fd;
    unsigned sent, got;
    uint64_t heard_ms;
    size_t have;
    unsigned char in[IN_MAX];
};

static void storm_say(struct ws_storm *s, unsigned i)
{
    struct ws_storm_client *c = &s->client[i];
    char text[32];
    const int n = snprintf(text, sizeof text, "%u-%u", i, c->sent++);
    send_frame(c->fd, 0x81, text, (size_t)n);
}

static void storm_heard(struct ws_storm *s, struct ws_storm_client *c)
{
    const uint64_t now = mono_ms();
    if (now - c->heard_ms > s->longest_ms)
        s->longest_ms = now - c->heard_ms;
    c->heard_ms = now;
}

/* Each message is the next one that was sent. */
static void storm_take(struct ws_storm *s, unsigned i)
{
    struct ws_storm_client *c = &s->client[i];
    while (c->have >= 2 && c->have >= 2u + c->in[1]) {
        char expected[32];
        const int n = snprintf(expected, sizeof expected, "%u-%u", i, c->got);
        if (c->in[0] != 0x81 || c->in[1] != n || memcmp(c->in + 2, expected, (size_t)n) != 0)
            atomic_fetch_add(&s->wrong, 1);
        c->got++;
        c->have -= 2u + c->in[1];
        memmove(c->in, c->in + n + 2, c->have);
        atomic_fetch_add(&s->messages, 1);
        storm_heard(s, c);
        if (!atomic_load(&s->stop))
            storm_say(s, i);
    }
}

static void storm_read(struct ws_storm *s, unsigned i)
{
    struct ws_storm_client *c = &s->client[i];
    const ssize_t n = recv(c->fd, c->in + c->have, sizeof c->in - c->have, MSG_DONTWAIT);
    if (n > 0) {
        c->have += (size_t)n;
        storm_take(s, i);
    } else if (n == 0 || errno != EAGAIN) {
        atomic_fetch_add(&s->lost, 1);
        close(c->fd);
        c->fd = -1;
    }
}

static bool storm_is_done(const struct ws_storm *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->client[i].fd >= 0 && s->client[i].got < s->client[i].sent)
            return false;
    return true;
}

static void *storm_run(void *arg)
{
    struct ws_storm *s = arg;
    struct pollfd *p = calloc(s->n, sizeof *p);
    uint64_t quiet_ms = mono_ms();
    while (p &&
           (!atomic_load(&s->stop) || (!storm_is_done(s) && mono_ms() - quiet_ms < QUIET_MS))) {
        for (unsigned i = 0; i < s->n; i++)
            p[i] = (struct pollfd){s->client[i].fd, POLLIN, 0};
        if (poll(p, s->n, 100) > 0)
            quiet_ms = mono_ms();
        for (unsigned i = 0; i < s->n; i++)
            if (p[i].fd >= 0 && p[i].revents)
                storm_read(s, i);
    }
    free(p);
    return NULL;
}

void ws_storm_begin(struct ws_storm *s, unsigned port, const char *target, unsigned n,
                    unsigned under_way)
{
    *s = (struct ws_storm){.client = calloc(n, sizeof *s->client), .n = n};
    assert_non_null(s->client);
    for (unsigned i = 0; i < n; i++)
        s->client[i].fd = open_ws(port, target);
    for (unsigned i = 0; i < n; i++) {
        s->client[i].heard_ms = mono_ms();
        for (unsigned k = 0; k < under_way; k++)
            storm_say(s, i);
    }
    assert_int_equal(pthread_create(&s->thread, NULL, storm_run, s), 0);
}

void ws_storm_end(struct ws_storm *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    assert_int_equal(atomic_load(&s->lost), 0);
    assert_int_equal(atomic_load(&s->wrong), 0);
    assert_true(storm_is_done(s));
    for (unsigned i = 0; i < s->n; i++)
        close(s->client[i].fd);
    free(s->client);
}
