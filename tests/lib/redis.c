/* SPDX-License-Identifier: BSD-2-Clause */
/* redis: see redis.h. Debian has the server's program in redis-tools, under another name. */
#include "redis.h"
#include "patience.h"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM "/usr/bin/redis-check-rdb"

static bool answers(struct redis *r)
{
    redisContext *c = redisConnectUnix(r->sock);
    redisReply *reply = c && !c->err ? redisCommand(c, "PING") : NULL;
    const bool good = reply && reply->type == REDIS_REPLY_STATUS;
    if (reply)
        freeReplyObject(reply);
    if (c)
        redisFree(c);
    return good;
}

void redis_run(struct redis *r)
{
    char port[16], master[32];
    snprintf(port, sizeof port, "%u", r->port);
    snprintf(master, sizeof master, "127.0.0.1 %u", r->master);
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (!r->pid) {
        const int null = open("/dev/null", O_RDWR);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 1);
        dup2(null, 2);
        execl(PROGRAM, "redis-server", "--port", port, "--bind", r->open ? "0.0.0.0" : "127.0.0.1",
              "--protected-mode", r->open ? "no" : "yes", "--unixsocket", r->sock, "--dir", r->dir,
              "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
              r->master ? "--replicaof" : NULL, master, NULL);
        _exit(127);
    }
    wait_until(answers(r), 10000);
}

void redis_start(struct redis *r)
{
    strcpy(r->dir, "/tmp/polder-redis.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->sock, sizeof r->sock, "%s/sock", r->dir);
    redis_run(r);
}

void redis_kill(struct redis *r)
{
    if (r->pid) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, NULL, 0);
    }
    r->pid = 0;
}

void redis_remove(struct redis *r)
{
    char command[128];
    redis_kill(r);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
}

/* Cuts the next word off; NULL: there is none. */
static char *next_word(char **rest)
{
    if (!*rest || **rest != '"')
        return strsep(rest, " ");
    char *word = *rest + 1;
    *rest = word;
    strsep(rest, "\"");
    if (*rest && !*(*rest)++)
        *rest = NULL;
    return word;
}

const char *redis_do(struct redis *r, const char *format, ...)
{
    static char text[65536];
    char line[4096], *words[64], *next = line;
    int n = 0;
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    for (char *word; n < 64 && (word = next_word(&next));)
        words[n++] = word;
    redisContext *c = redisConnectUnix(r->sock);
    assert_true(c && !c->err);
    redisReply *reply = redisCommandArgv(c, n, (const char **)(void *)words, NULL);
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof text, "%lld", reply->integer);
    else
        snprintf(text, sizeof text, "%s", reply->str ? reply->str : "");
    freeReplyObject(reply);
    redisFree(c);
    return text;
}
