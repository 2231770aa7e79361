/* SPDX-License-Identifier: BSD-2-Clause */
/* The example of a fleet with TLS, admin/examples/fleet-*.conf, as it stands but for ports, paths and
 * passwords: real Redis servers, real stunnel, three hosts. */
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
#define STORES   2
#define PASSWORD "the password of the test"

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", "here");
}

struct fleet {
    char dir[64];
    unsigned store_port[STORES], end_port[STORES];
    pid_t store[STORES], stunnel;
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
    text =
        put(text, "tls-port 6390", "tls-port %u\nbind 127.0.0.1\ndir %s", f->store_port[i], f->dir);
    text = put(text, "/etc/redis/store", "%s/%s", f->dir, certificate);
    text = put(text, "/etc/polder/store-ca", "%s/store-ca", f->dir);
    text = put(text, ">STORE-PASSWORD", "\">" PASSWORD "\"");
    text = put(text, "REPLICA-PASSWORD", "of-replicas");
    if (i) {
        text = put(text, "# replicaof store-a.internal 6390", "replicaof 127.0.0.1 %u",
                   f->store_port[0]);
        text = put(text, "# masteruser", "masteruser");
        text = put(text, "# masterauth", "masterauth");
    }
    write_file(f, name, text);
    if (!redis_program(&program, &called))
        fail_msg("there is no %s: run `make deps-test`", called);
    f->store[i] = begin(f, program, called, name);
}

static void start_stunnel(struct fleet *f)
{
    char *text = read_example("fleet-stunnel.conf");
    text = put(text, "127.0.0.1:6391", "127.0.0.1:%u", f->end_port[0]);
    text = put(text, "127.0.0.1:6392", "127.0.0.1:%u", f->end_port[1]);
    text = put(text, "store-a.internal:6390", "127.0.0.1:%u", f->store_port[0]);
    text = put(text, "store-b.internal:6390", "127.0.0.1:%u", f->store_port[1]);
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
    text = put(text, "127.0.0.1:6391", "127.0.0.1:%u", f->end_port[0]);
    text = put(text, "127.0.0.1:6392", "127.0.0.1:%u", f->end_port[1]);
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
    make_certificate(f, "host", "store-ca");
    for (int i = 0; i < STORES; i++) {
        f->store_port[i] = free_port();
        f->end_port[i] = free_port();
    }
    start_store(f, 0, "store-a");
    start_store(f, 1, "store-b");
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
        end(&f->store[i]);
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
    char first[64];
    if (system("command -v stunnel >/dev/null && command -v openssl >/dev/null") != 0) {
        fprintf(stderr,
                "test_fleet_tls: NOT TESTED: there is no stunnel (stunnel4), or no openssl\n");
        skip();
    }
    start(&f);
    snprintf(first, sizeof first, "redis://127.0.0.1:%u/0", f.end_port[0]);
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
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(the_example_with_tls_works_as_it_stands),
    };
    return run_with_backend(stories, &backend, answers);
}
