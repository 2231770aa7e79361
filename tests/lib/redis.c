/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * redis: see redis.h. Debian has the servers' programs in redis-tools and valkey-tools, under another name:
 * what they are depends on how they are called.
 */
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

/* In the directories of PATH, then where the Makefile unpacks what is not to be installed. */
static bool find_program(const char *name, char out[256])
{
    const char *path = getenv("PATH");
    char all[4096];
    snprintf(all, sizeof all, "%s:build/tools/usr/bin:/usr/bin", path ? path : "");
    for (char *rest = all, *dir; (dir = strsep(&rest, ":"));) {
        snprintf(out, 256, "%s/%s", dir, name);
        if (!access(out, X_OK))
            return true;
    }
    return false;
}

bool redis_program(const char **path, const char **name)
{
    static char found[256];
    const char *store = getenv("POLDER_STORE");
    const bool valkey = store && !strcmp(store, "valkey");
    *path = found;
    *name = valkey ? "valkey-server" : "redis-server";
    return find_program(valkey ? "valkey-check-rdb" : "redis-check-rdb", found);
}

bool redis_answers(const struct redis *r)
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

/* What both kinds have, then those of a server. */
static void write_conf(const struct redis *r, const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "port %u\nbind %s\nprotected-mode %s\nunixsocket %s\ndir %s\nlogfile %s/log\n",
            r->port, r->open ? "0.0.0.0" : "127.0.0.1", r->open ? "no" : "yes", r->sock, r->dir,
            r->dir);
    if (!r->sentinel)
        fprintf(f, "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n");
    if (r->master)
        fprintf(f, "replicaof %s %u\n", r->master_host ? r->master_host : "127.0.0.1", r->master);
    fprintf(f, "%s\n", r->conf);
    assert_int_equal(fclose(f), 0);
}

static void exec_with_conf(const struct redis *r, const char *program, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/conf", r->dir);
    execl(program, name, path, r->sentinel ? "--sentinel" : (char *)NULL, (char *)NULL);
}

static void exec_with_words(const struct redis *r, const char *program, const char *name)
{
    char port[16], master[32];
    snprintf(port, sizeof port, "%u", r->port);
    snprintf(master, sizeof master, "127.0.0.1 %u", r->master);
    execl(program, name, "--port", port, "--bind", r->open ? "0.0.0.0" : "127.0.0.1",
          "--protected-mode", r->open ? "no" : "yes", "--unixsocket", r->sock, "--dir", r->dir,
          "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
          r->master ? "--replicaof" : NULL, master, NULL);
}

void redis_run(struct redis *r)
{
    const char *program, *name;
    if (!redis_program(&program, &name))
        fail_msg("there is no %s: run `make deps-test`", name);
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (!r->pid) {
        const int null = open("/dev/null", O_RDWR);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 1);
        dup2(null, 2);
        if (r->conf)
            exec_with_conf(r, program, name);
        else
            exec_with_words(r, program, name);
        _exit(127);
    }
    wait_until(redis_answers(r), 10000);
}

void redis_start(struct redis *r)
{
    strcpy(r->dir, "/tmp/polder-redis.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->sock, sizeof r->sock, "%s/sock", r->dir);
    if (r->conf) {
        char path[128];
        snprintf(path, sizeof path, "%s/conf", r->dir);
        write_conf(r, path);
    }
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
    redisContext *c;
    redisReply *reply = NULL;
    for (int tries = 3; !reply && tries--;
         redisFree(c)) { /* Sentinel kills all clients now and then */
        c = redisConnectUnix(r->sock);
        if (!c || c->err)
            fail_msg("%s: %s", r->sock, c ? c->errstr : "no memory");
        reply = redisCommandArgv(c, n, (const char **)(void *)words, NULL);
    }
    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_INTEGER)
        snprintf(text, sizeof text, "%lld", reply->integer);
    else
        snprintf(text, sizeof text, "%s", reply->str ? reply->str : "");
    freeReplyObject(reply);
    return text;
}
