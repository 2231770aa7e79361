/* SPDX-License-Identifier: BSD-2-Clause */
/* The example of a fleet with TLS, admin/examples/fleet-*.conf, as it stands but for ports, paths, passwords
 * and patience: real Redis servers, Sentinels, stunnel, three hosts. */
#include "harness.h"
#include "redis.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS    3
#define STORES   3
#define PASSWORD "the password of the test"

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", "here");
}

struct fleet {
    char dir[64];
    unsigned store_port[STORES], end_port[STORES], sentinel_port[STORES];
    pid_t store[STORES], sentinel[STORES], stunnel;
    struct house host[HOSTS];
};

static void run(const char *format, ...)
{
    char command[2000];
    va_list ap;
    va_start(ap, format);
    vsnprintf(command, sizeof command, format, ap);
    va_end(ap);
    if (system(command) != 0)
        fail_msg("%s", command);
}

/* ---- the example's files ---- */

static char *read_example(const char *name)
{
    char path[120], *text = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "admin/examples/%s", name);
    FILE *f = fopen(path, "r");
    if (!f || getdelim(&text, &size, 0, f) < 0)
        fail_msg("cannot read %s", path);
    fclose(f);
    return text;
}

/* What is not there is no part of the example any more. */
static char *put(char *text, const char *from, const char *format, ...)
{
    char to[400], *out = NULL;
    size_t size;
    va_list ap;
    va_start(ap, format);
    vsnprintf(to, sizeof to, format, ap);
    va_end(ap);
    if (!strstr(text, from))
        fail_msg("the example has no \"%s\"", from);
    FILE *f = open_memstream(&out, &size);
    const char *at = text;
    for (const char *hit; (hit = strstr(at, from)); at = hit + strlen(from))
        fprintf(f, "%.*s%s", (int)(hit - at), at, to);
    fputs(at, f);
    fclose(f);
    free(text);
    return out;
}

static void write_file(const struct fleet *f, const char *name, char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    free(text);
}

/* A certificate of that authority for that name. */
static void make_certificate(const struct fleet *f, const char *name, const char *authority)
{
    run("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=%s "
        "-addext subjectAltName=DNS:%s.internal -keyout %s.key -out %s.csr 2>/dev/null && "
        "openssl x509 -req -in %s.csr -CA %s.crt -CAkey %s.key -CAcreateserial -days 2 "
        "-copy_extensions copy -out %s.crt 2>/dev/null",
        f->dir, name, name, name, name, name, authority, authority, name);
}

static void make_authority(const struct fleet *f, const char *name)
{
    run("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=%s -keyout %s.key -out %s.crt 2>/dev/null",
        f->dir, name, name, name);
}

/* ---- processes ---- */

static pid_t begin(const struct fleet *f, const char *program, const char *name, const char *conf)
{
    char path[200], log[200];
    snprintf(path, sizeof path, "%s/%s", f->dir, conf);
    snprintf(log, sizeof log, "%s/%s.log", f->dir, conf);
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen(log, "w", stdout))
            _exit(127);
        dup2(1, 2);
        execlp(program, name, path, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void end(pid_t *pid)
{
    if (*pid) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

/* certificate: "store-a" */
static void start_store(struct fleet *f, int i, const char *certificate)
{
    char name[16];
    const char *program, *called;
    char *text = read_example("fleet-redis.conf");
    snprintf(name, sizeof name, "redis-%d", i);
    text = put(text, "tls-port 6390", "tls-port %u", f->store_port[i]);
    text = put(text, "/var/lib/redis", "%s", f->dir);
    text = put(text, "bind * -::*", "bind 127.0.0.1");
    text = put(text, "/etc/redis/store", "%s/%s", f->dir, certificate);
    text = put(text, "/etc/polder/store-ca", "%s/store-ca", f->dir);
    text = put(text, ">STORE-PASSWORD", "\">" PASSWORD "\"");
    text = put(text, "REPLICA-PASSWORD", "of-replicas");
    text = put(text, "SENTINEL-PASSWORD", "of-sentinels");
    if (i)
        text = put(text, "# replicaof store-a.internal 6390", "replicaof 127.0.0.1 %u",
                   f->store_port[0]);
    write_file(f, name, text);
    if (!redis_program(&program, &called))
        fail_msg("there is no %s: run `make deps-test`", called);
    f->store[i] = begin(f, program, called, name);
}

/* As it is queried here. */
static struct redis sentinel_of(const struct fleet *f, int i)
{
    struct redis r = {.pid = f->sentinel[i]};
    snprintf(r.sock, sizeof r.sock, "%s/s%d", f->dir, i);
    return r;
}

static void start_sentinel(struct fleet *f, int i)
{
    char name[24];
    const char *program, *called;
    char *text = read_example("fleet-sentinel.conf");
    f->sentinel_port[i] = free_port();
    snprintf(name, sizeof name, "sentinel-%d", i);
    text = put(text, "tls-port 26390", "tls-port %u\nunixsocket %s", f->sentinel_port[i],
               sentinel_of(f, i).sock);
    text = put(text, "bind * -::*", "bind 127.0.0.1");
    text = put(text, "/var/lib/redis", "%s", f->dir);
    text = put(text, "/etc/redis/store", "%s/store-%c", f->dir, 'a' + i);
    text = put(text, "/etc/polder/store-ca", "%s/store-ca", f->dir);
    text = put(text, "store-a.internal 6390", "127.0.0.1 %u", f->store_port[0]);
    text = put(text, "SENTINEL-PASSWORD", "of-sentinels");
    text = put(text, "down-after-milliseconds prod 6000", "down-after-milliseconds prod 1000");
    write_file(f, name, text);
    redis_program(&program, &called);
    f->sentinel[i] =
        begin(f, program, strstr(called, "valkey") ? "valkey-sentinel" : "redis-sentinel", name);
}

static bool knows_the_others(struct fleet *f, int i)
{
    struct redis r = sentinel_of(f, i);
    return redis_answers(&r) &&
           strstr(redis_do(&r, "INFO sentinel"), "status=ok,address=127.0.0.1") &&
           strstr(redis_do(&r, "INFO sentinel"), "slaves=2,sentinels=3");
}

/* As polder-runbook(7) has it, of the machine with store-a. */
static bool client_says(const struct fleet *f, unsigned port, const char *command, const char *text)
{
    char line[512], out[2048] = "";
    snprintf(line, sizeof line,
             "REDISCLI_AUTH='" PASSWORD "' redis-cli --tls --cacert %s/store-ca.crt "
             "--cert %s/store-a.crt --key %s/store-a.key -p %u %s 2>&1",
             f->dir, f->dir, f->dir, port, command);
    FILE *in = popen(line, "r");
    assert_non_null(in);
    out[fread(out, 1, sizeof out - 1, in)] = 0;
    pclose(in);
    return strstr(out, text);
}

static void start_stunnel(struct fleet *f)
{
    char *text = read_example("fleet-stunnel.conf");
    for (int i = 0; i < STORES; i++) {
        char end_at[32], store_at[32];
        snprintf(end_at, sizeof end_at, "127.0.0.1:639%d", 1 + i);
        snprintf(store_at, sizeof store_at, "store-%c.internal:6390", 'a' + i);
        text = put(text, end_at, "127.0.0.1:%u", f->end_port[i]);
        text = put(text, store_at, "127.0.0.1:%u", f->store_port[i]);
    }
    text = put(text, "/etc/polder", "%s", f->dir);
    write_file(f, "stunnel.conf", text);
    f->stunnel = begin(f, "stunnel", "stunnel", "stunnel.conf");
}

/* Without the lines that the harness has of its own. */
static void start_host(struct fleet *f, int i)
{
    char *text = read_example("fleet-polder.conf");
    text = put(text, "\nlisten", "\n# listen");
    text = put(text, "\nuser ", "\n# user ");
    text = put(text, "\nops ", "\n# ops ");
    for (int k = 0; k < STORES; k++) {
        char end_at[32];
        snprintf(end_at, sizeof end_at, "127.0.0.1:639%d", 1 + k);
        text = put(text, end_at, "127.0.0.1:%u", f->end_port[k]);
    }
    text = put(text, "  # host: ", "  host = \"h%d\" # ", i);
    text = put(text, "127.0.0.1:3000", "127.0.0.1:%u", backend_port(backend));
    house_start(&f->host[i], 1, "%s", text);
    free(text);
}

static bool fleet_says(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, text);
}

static void start(struct fleet *f)
{
    *f = (struct fleet){.dir = "/tmp/polder-tls.XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    setenv("POLDER_STORE_PASSWORD", "the%20password%20of%20the%20test", 1);
    setenv("POLDER_FLEET_SECRET", "sixteen characters", 1);
    make_authority(f, "store-ca");
    make_certificate(f, "store-a", "store-ca");
    make_certificate(f, "store-b", "store-ca");
    make_certificate(f, "store-c", "store-ca");
    make_certificate(f, "host", "store-ca");
    for (int i = 0; i < STORES; i++) {
        f->store_port[i] = free_port();
        f->end_port[i] = free_port();
    }
    start_store(f, 0, "store-a");
    start_store(f, 1, "store-b");
    start_store(f, 2, "store-c");
    start_stunnel(f);
    for (int i = 0; i < HOSTS; i++)
        start_host(f, i);
    for (int i = 0; i < HOSTS; i++)
        wait_until(fleet_says(&f->host[i], "state     member"), 15000);
}

static void stop(struct fleet *f)
{
    for (int i = 0; i < HOSTS; i++)
        house_remove(&f->host[i]);
    for (int i = 0; i < STORES; i++)
        end(&f->store[i]), end(&f->sentinel[i]);
    end(&f->stunnel);
    run("rm -rf %s", f->dir);
}

/* ---- the story ---- */

/* Another URL each time: one that the store was too slow for is not asked for again. */
static bool is_shared(struct fleet *f)
{
    static unsigned n;
    char path[16];
    snprintf(path, sizeof path, "/%u", n++);
    get(f->host[0].port, path, NULL);
    nap_ms(20);
    get(f->host[2].port, path, NULL);
    return !fleet_says(&f->host[2], "hits      0");
}

static void the_example_with_tls_works_as_it_stands(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    char first[64], first_in_use[80];
    if (system("command -v stunnel >/dev/null && command -v openssl >/dev/null") != 0) {
        fprintf(stderr,
                "test_fleet_tls: NOT TESTED: there is no stunnel (stunnel4), or no openssl\n");
        skip();
    }
    start(&f);
    snprintf(first, sizeof first, "redis://127.0.0.1:%u/0", f.end_port[0]);
    snprintf(first_in_use, sizeof first_in_use, "store     %s", first);
    for (int i = 0; i < HOSTS; i++)
        assert_true(fleet_says(&f.host[i], first));
    assert_int_equal(ctl(&f.host[1], &out, "cache invalidate --all"), 0);
    assert_non_null(strstr(out, "hosts        2"));
    /* of what the store may be asked nothing is forbidden */
    for (int i = 0; i < HOSTS; i++)
        wait_until(fleet_says(&f.host[i], "granted"), 15000);
    wait_until(is_shared(&f), 15000);
    for (int i = 0; i < HOSTS; i++) {
        assert_false(house_logged(&f.host[i], "NOPERM"));
        assert_false(house_logged(&f.host[i], PASSWORD));
    }
    /* another program in the place of the store */
    end(&f.store[0]);
    make_authority(&f, "stranger");
    make_certificate(&f, "mallory", "stranger");
    start_store(&f, 0, "mallory");
    wait_until(fleet_says(&f.host[0], "state     cut off"), 10000);
    wait_until(fleet_says(&f.host[0], "it is not the master"), 10000); /* store-b */
    wait_until(fleet_says(&f.host[0], first), 10000);
    assert_true(fleet_says(&f.host[0], "state     cut off"));
    /* the store itself, and then none: another one becomes the master */
    end(&f.store[0]);
    start_store(&f, 0, "store-a");
    wait_until(fleet_says(&f.host[0], "state     member"), 15000); /* it has replicas */
    for (int i = 0; i < STORES; i++)
        start_sentinel(&f, i);
    for (int i = 0; i < STORES; i++)
        wait_until(knows_the_others(&f, i), 20000);
    assert_true(client_says(&f, f.sentinel_port[0], "sentinel ckquorum prod", "OK 3 usable"));
    assert_true(client_says(&f, f.store_port[0], "--user polder role", "master"));
    end(&f.store[0]);
    for (int i = 0; i < HOSTS; i++)
        wait_until(!fleet_says(&f.host[i], first_in_use) &&
                       fleet_says(&f.host[i], "state     member"),
                   20000);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(the_example_with_tls_works_as_it_stands),
    };
    return run_with_backend(stories, &backend, answers);
}
