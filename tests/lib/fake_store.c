/* SPDX-License-Identifier: BSD-2-Clause */
/* fake_store: see fake_store.h. */
#include "fake_store.h"
#include "backend.h"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define EPOCH "1700000000000000001"

struct fake_store {
    struct backend *backend;
};
static const struct fake_fault *_Atomic fault;
static _Atomic unsigned logged, faults; /* how many there were */

static bool put(int fd, const char *text, size_t len)
{
    while (len) {
        const ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static bool say(int fd, const char *text)
{
    return put(fd, text, strlen(text));
}

static bool misbehave(int fd, const struct fake_fault *f)
{
    const size_t len = strlen(f->text);
    if (f->way == FAKE_SAYS)
        return put(fd, f->text, len);
    if (f->way != FAKE_DRIBBLES) {
        const int times = f->way == FAKE_FLOODS ? 60000 : 1000;
        if (f->way == FAKE_FLOODS && !say(fd, "*60000\r\n"))
            return false;
        for (int i = 0; i < times; i++)
            if (!put(fd, f->text, len))
                return false;
        return true;
    }
    for (size_t i = 0; i < len; i++) {
        nap_ms(100);
        if (!put(fd, f->text + i, 1) || atomic_load(&fault) != f)
            return false;
    }
    return true;
}

/* Its clock is well after the epoch began. */
static bool say_script(int fd, const char *name)
{
    char now[32], text[256];
    snprintf(now, sizeof now, "%llu", 1700000010000ULL + mono_ms() % 100000000);
    if (!strcmp(name, "ENTER"))
        snprintf(text, sizeof text, "*4\r\n$19\r\n" EPOCH "\r\n$1\r\n0\r\n$0\r\n\r\n$%zu\r\n%s\r\n",
                 strlen(now), now);
    else if (!strcmp(name, "RENEW"))
        snprintf(text, sizeof text,
                 "*5\r\n$19\r\n" EPOCH "\r\n$1\r\n0\r\n$%zu\r\n%s\r\n$0\r\n\r\n$1\r\n0\r\n",
                 strlen(now), now);
    else
        snprintf(text, sizeof text, "*2\r\n$19\r\n" EPOCH "\r\n$4\r\n%04u\r\n",
                 1000 + atomic_fetch_add(&logged, 1));
    return say(fd, text);
}

static const char *script_name(const char *sha)
{
    static const char *const names[] = {"ENTER", "RENEW", "APPEND"};
    const unsigned n = (unsigned)atoi(sha);
    return n < 3 ? names[n] : "OTHER";
}

static bool answer_well(int fd, const char *name, unsigned *loaded)
{
    char text[128];
    if (!strcmp(name, "PING"))
        return say(fd, "+PONG\r\n");
    if (!strcmp(name, "ROLE"))
        return say(fd, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
    if (!strcmp(name, "INFO"))
        return say(fd, "$14\r\nrun_id:abcde\r\n\r\n");
    if (!strcmp(name, "SCRIPT")) {
        snprintf(text, sizeof text, "$40\r\n%040u\r\n", (*loaded)++);
        return say(fd, text);
    }
    if (!strcmp(name, "XREAD")) {
        nap_ms(100);
        return say(fd, "*-1\r\n");
    }
    if (!strcmp(name, "AUTH") || !strcmp(name, "SELECT"))
        return say(fd, "+OK\r\n");
    return say_script(fd, name);
}

static bool answer(int fd, const redisReply *command, unsigned *loaded)
{
    if (command->type != REDIS_REPLY_ARRAY || !command->elements)
        return false;
    const char *name = command->element[0]->str;
    if (!strcmp(name, "EVALSHA") && command->elements > 1)
        name = script_name(command->element[1]->str);
    const struct fake_fault *f = atomic_load(&fault);
    return f && !strcmp(f->at, name) ? misbehave(fd, f) : answer_well(fd, name, loaded);
}

/* Commands have the form of replies. */
static void serve(int fd)
{
    redisReader *reader = redisReaderCreate();
    unsigned loaded = 0;
    char in[16384];
    bool good = true;
    const unsigned began = atomic_load(&faults);
    while (good && atomic_load(&faults) == began) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        void *command = NULL;
        if (!poll(&p, 1, 10))
            continue;
        const ssize_t n = read(fd, in, sizeof in);
        if (n <= 0)
            break;
        redisReaderFeed(reader, in, (size_t)n);
        while (good && redisReaderGetReply(reader, &command) == REDIS_OK && command) {
            good = answer(fd, command, &loaded);
            freeReplyObject(command);
        }
    }
    redisReaderFree(reader);
}

struct fake_store *fake_store_start(void)
{
    struct fake_store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    atomic_store(&fault, NULL);
    s->backend = backend_start_raw(serve, 0);
    return s;
}

unsigned fake_store_port(const struct fake_store *s)
{
    return backend_port(s->backend);
}

void fake_store_do(struct fake_store *s, const struct fake_fault *f)
{
    (void)s;
    atomic_store(&fault, f);
    if (f)
        atomic_fetch_add(&faults, 1);
}

void fake_store_stop(struct fake_store *s)
{
    backend_stop(s->backend);
    free(s);
}
