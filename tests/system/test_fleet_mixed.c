/* SPDX-License-Identifier: BSD-2-Clause */
/* Hosts of one store that run different programs, or are of different fleets: nothing old is served, and each
 * says with which of the others it cannot do what. */
#include "fleet_host.h"
#include "harness.h"
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET "a secret of sixteen or more"

static struct backend *backend;

/* Two hosts, each with a program of its own, which may be replaced. */
struct pair {
    struct redis redis;
    struct house host[2];
    char dir[2][64], built[256];
};

/* As a package does it. */
static void install(struct pair *p, int i, const char *program)
{
    char command[1200];
    snprintf(command, sizeof command,
             "cp %s/%s %s/polderd.new && mv %s/polderd.new %s/polderd && "
             "ln -sf %s/polderctl %s/polder-supervisor %s",
             p->built, program, p->dir[i], p->dir[i], p->dir[i], p->built, p->built, p->dir[i]);
    assert_int_equal(system(command), 0);
}

static void start_host(struct pair *p, int i, const char *program, const char *fleet,
                       const char *secret)
{
    snprintf(p->dir[i], sizeof p->dir[i], "/tmp/polder-mixed-XXXXXX");
    assert_non_null(mkdtemp(p->dir[i]));
    install(p, i, program);
    setenv("POLDER_BUILD", p->dir[i], 1);
    house_start(&p->host[i], 1,
                "fleet { store = {\"unix:%s\"} name = \"%s\" host = \"h%d\" secret = \"%s\" "
                "cut_off = \"revalidate\" }\n"
                "cache { shared = true shared_timeout = 2s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                p->redis.sock, fleet, i, secret, backend_port(backend));
    setenv("POLDER_BUILD", p->built, 1);
}

static void begin(struct pair *p)
{
    *p = (struct pair){0};
    assert_non_null(realpath(built("."), p->built));
    redis_start(&p->redis);
}

static void end(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        char command[100];
        assert_false(house_logged(&p->host[i], "died"));
        house_remove(&p->host[i]);
        snprintf(command, sizeof command, "rm -r %s", p->dir[i]);
        assert_int_equal(system(command), 0);
    }
    redis_remove(&p->redis);
}

static bool says(struct pair *p, int i, const char *command, const char *text)
{
    const char *out;
    ctl(&p->host[i], &out, "%s", command);
    return strstr(out, text) != NULL;
}

static bool is_member(struct pair *p, int i)
{
    return says(p, i, "fleet", "state     member");
}

static bool has_condition(struct pair *p, int i, const char *subject, const char *text)
{
    char sample[100];
    struct message m;
    snprintf(sample, sizeof sample,
             "\npolder_condition{name=\"fleet_versions\",subject=\"%s\"} 1\n", subject);
    get(p->host[i].ops_port, "/metrics", &m);
    const bool there = m.body && strstr(m.body, sample);
    message_free(&m);
    return there && says(p, i, "--json status", text);
}

static bool has_no_condition(struct pair *p, int i)
{
    return !says(p, i, "--json status", "fleet_versions");
}

static unsigned seen(struct pair *p, int i, const char *path)
{
    struct message m;
    const int fd = client_connect(p->host[i].port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n", path);
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

/* Each of them serves what is there now. */
static void both_see(struct pair *p, const char *path)
{
    for (int i = 0; i < 2; i++)
        wait_until(seen(p, i, path) == atomic_load(&backend_version), 8000);
}

/* What one has invalidated no other serves, once that is acknowledged. */
static void expect_told(struct pair *p, int by)
{
    const char *out;
    both_see(p, "/a");
    atomic_fetch_add(&backend_version, 1);
    if (ctl(&p->host[by], &out, "cache invalidate /a"))
        fail_msg("%s", out);
    assert_null(strstr(out, "cut off"));
    for (int i = 0; i < 2; i++)
        assert_int_equal(seen(p, i, "/a"), atomic_load(&backend_version));
}

/* polderctl upgrade, while the other one changes and invalidates. */
static void upgrade(struct pair *p, int i, const char *program)
{
    char command[400], text[4096];
    const char *out;
    install(p, i, program);
    snprintf(command, sizeof command, "%s -s %s upgrade >%s/said 2>&1; echo $? >%s/status",
             built("polderctl"), p->host[i].sock, p->dir[i], p->dir[i]);
    FILE *upgrading = popen(command, "r");
    assert_non_null(upgrading);
    snprintf(text, sizeof text, "%s/status", p->dir[i]);
    for (struct stat st; stat(text, &st) || !st.st_size;) {
        const unsigned n = atomic_fetch_add(&backend_version, 1) + 1;
        assert_int_equal(ctl(&p->host[!i], &out, "cache invalidate /a"), 0);
        assert_int_equal(seen(p, i, "/a"), n);
        assert_int_equal(seen(p, !i, "/a"), n);
    }
    assert_int_equal(pclose(upgrading), 0);
    FILE *f = fopen(text, "r");
    assert_non_null(f);
    assert_int_equal(fgetc(f), '0');
    fclose(f);
    unlink(text);
}

/* Log entries and shared objects. */
static void hosts_whose_entries_differ_live_side_by_side(void **state)
{
    (void)state;
    for (int newer = 0; newer < 2; newer++) { /* starts first, and second */
        struct pair p;
        const int older = !newer;
        begin(&p);
        for (int i = 0; i < 2; i++) {
            start_host(&p, i, i == newer ? "test/polderd-entries" : "polderd", "test", SECRET);
            wait_until(is_member(&p, i), 8000);
        }
        char subject[2][8] = {"h0", "h1"};
        wait_until(has_condition(&p, older, subject[newer],
                                 "writes entries of version 4, this host 3: what one invalidates"),
                   8000);
        wait_until(
            has_condition(&p, newer, subject[older], "writes entries of version 3, this host 4"),
            8000);
        assert_true(says(&p, older, "fleet", "+entries  2/4/3"));
        assert_true(says(&p, newer, "fleet", "2/3/2"));
        expect_told(&p, older);
        expect_told(&p, newer);
        assert_true(says(&p, older, "--json fleet", "\"strange\": 0"));
        assert_true(says(&p, older, "--json fleet", "\"rejected\": 0"));
        /* neither takes what the other shares */
        const unsigned before = backend_calls(backend);
        assert_int_equal(seen(&p, older, "/c"), atomic_load(&backend_version));
        assert_int_equal(seen(&p, newer, "/c"), atomic_load(&backend_version));
        assert_int_equal(backend_calls(backend), before + 2);
        /* and one host after the other, to the same */
        upgrade(&p, older, "test/polderd-entries");
        wait_until(is_member(&p, older) && has_no_condition(&p, 0) && has_no_condition(&p, 1),
                   15000);
        both_see(&p, "/b");
        expect_told(&p, newer);
        atomic_fetch_sub(&backend_version, 1); /* what was not invalidated is still there */
        assert_int_equal(seen(&p, older, "/b"), atomic_load(&backend_version));
        end(&p);
    }
}

static void hosts_of_one_format_are_members_at_a_time(void **state)
{
    (void)state;
    static const char *const programs[] = {"polderd", "test/polderd-format"};
    static const char *const whys[] = {"h0 runs polderd 0.1.0: upgrade all such hosts",
                                       "h0 runs polderd 0.1.0+format: upgrade this one"};
    for (int first = 0; first < 2; first++) {
        struct pair p;
        begin(&p);
        start_host(&p, 0, programs[first], "test", SECRET);
        wait_until(is_member(&p, 0), 8000);
        start_host(&p, 1, programs[!first], "test", SECRET);
        wait_until(says(&p, 1, "fleet", whys[first]), 8000);
        wait_until(has_condition(&p, 1, "h1", whys[first]), 8000);
        wait_until(has_condition(&p, 0, "h1", "it cannot enter"), 8000);
        assert_true(says(&p, 0, "fleet", "h1    no    cut off"));
        assert_true(is_member(&p, 0));
        expect_told(&p, 0);
        atomic_fetch_add(&backend_version, 1);
        assert_true(says(&p, 1, "cache invalidate /a", "cut off"));
        assert_int_equal(seen(&p, 1, "/a"), atomic_load(&backend_version));
        if (first == 0) {
            install(&p, 0, programs[1]);
            assert_true(says(&p, 0, "upgrade", ""));
            wait_until(is_member(&p, 0) && is_member(&p, 1), 15000);
            wait_until(has_no_condition(&p, 0) && has_no_condition(&p, 1), 8000);
            both_see(&p, "/a"); /* what the other had to tell came with it */
            expect_told(&p, 0);
            expect_told(&p, 1);
        } else { /* while the store cannot be asked it is not known */
            redis_kill(&p.redis);
            wait_until(!says(&p, 1, "fleet", whys[first]), 8000);
            assert_true(has_condition(&p, 1, "h1", whys[first]));
            house_advance(&p.host[1], 10000);
            wait_until(!has_condition(&p, 1, "h1", ""), 8000);
        }
        end(&p);
    }
}

/* Of one name, and of another. */
static void fleets_of_other_secrets_have_nothing_in_common(void **state)
{
    (void)state;
    static const char *const names[] = {"test", "other"};
    for (int k = 0; k < 2; k++) {
        struct pair p;
        const char *out;
        begin(&p);
        start_host(&p, 0, "polderd", "test", SECRET);
        start_host(&p, 1, "polderd", names[k], "another secret of sixteen or more");
        for (int i = 0; i < 2; i++)
            wait_until(is_member(&p, i), 8000);
        if (k == 0) { /* each names the other */
            wait_until(says(&p, 0, "--json status", "h1: a host that is not signed with this"),
                       8000);
            wait_until(says(&p, 1, "--json status", "h0: a host that is not signed with this"),
                       8000);
            assert_true(says(&p, 0, "fleet", "\nh1    no    stranger"));
        }
        both_see(&p, "/a");
        const unsigned calls = backend_calls(backend);
        atomic_fetch_add(&backend_version, 1);
        assert_int_equal(ctl(&p.host[0], &out, "cache invalidate --all"), 0);
        assert_non_null(strstr(out, "hosts        0"));
        assert_int_equal(seen(&p, 0, "/a"), atomic_load(&backend_version));
        assert_int_equal(seen(&p, 1, "/a"),
                         atomic_load(&backend_version) - 1); /* it was not told */
        assert_int_equal(backend_calls(backend), calls + 1);
        assert_int_equal(ctl(&p.host[1], &out, "cache invalidate --all"), 0);
        assert_int_equal(seen(&p, 1, "/a"), atomic_load(&backend_version));
        assert_int_equal(backend_calls(backend), calls + 2); /* and takes no object */
        end(&p);
    }
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(hosts_whose_entries_differ_live_side_by_side),
        cmocka_unit_test(hosts_of_one_format_are_members_at_a_time),
        cmocka_unit_test(fleets_of_other_secrets_have_nothing_in_common),
    };
    return run_with_backend(stories, &backend, backend_tells_version);
}
