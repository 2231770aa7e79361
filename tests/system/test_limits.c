/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of rate limits: exact over all workers, changed while running, whoever is killed. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_bool let_go; /* of /hold */

static bool answers(struct asked *a)
{
    if (!strncmp(a->target, "/hold", 5))
        while (!atomic_load(&let_go))
            nap_ms(5);
    return reply_ok(a, "", "ok");
}

static struct backend *backend;

static void start(struct house *h, unsigned workers, unsigned requests, const char *more)
{
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = %u window = \"60s\" key = \"client\" %s }\n"
                "route \"/limited\" { upstream = \"u\" limits = {\"status\"} }\nroute \"/*\" { "
                "upstream = \"u\" }\n",
                backend_port(backend), requests, more);
}

static unsigned admitted(struct house *h, unsigned n)
{
    unsigned ok = 0;
    for (unsigned i = 0; i < n; i++)
        ok += get(h->port, "/limited", NULL) == 200;
    return ok;
}

static void twenty_pass_and_five_are_told_when_to_come_back(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2, 20, "");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get(h.port, "/limited", &m), 200);
        assert_non_null(strstr(field_of(&m, "RateLimit-Policy"), "\"status\";q=20;w=60"));
        char want[32];
        snprintf(want, sizeof want, "\"status\";r=%d", 19 - i);
        assert_non_null(strstr(field_of(&m, "RateLimit"), want));
        message_free(&m);
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get(h.port, "/limited", &m), 429);
        assert_in_range(atoi(field_of(&m, "Retry-After")), 1, 72);
        assert_string_equal(field_of(&m, "Content-Type"), "application/problem+json");
        assert_non_null(strstr(m.body, "\"violated-policies\":[\"status\"]"));
        message_free(&m);
    }
    assert_int_equal(get(h.port, "/free", NULL), 200);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=40 window=60s"), 0);
    assert_int_equal(admitted(&h, 25), 20);
    assert_int_equal(ctl(&h, NULL, "limit reset status 127.0.0.1"), 0);
    assert_int_equal(admitted(&h, 45), 40);
    assert_int_equal(ctl(&h, NULL, "limit reset status"), 0);
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=0"), 0);
    assert_int_equal(get(h.port, "/limited", NULL), 429);
    assert_int_equal(ctl(&h, NULL, "limit set status dry_run=true"), 0);
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    house_remove(&h);
}

static void the_limit_is_exact_over_four_workers(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct house h;
        unsigned counts[1000] = {0};
        start(&h, 4, 1000, "");
        storm(h.port, "/limited", 10000, 50, counts, NULL);
        assert_int_equal(counts[200], 1000);
        assert_int_equal(counts[429], 9000);
        house_remove(&h);
    }
}

struct killer {
    struct house *h;
    atomic_bool stop;
    unsigned kills;
};

static void *kill_workers(void *arg)
{
    struct killer *k = arg;
    pid_t pid[8];
    while (!atomic_load(&k->stop)) {
        size_t n = house_children(k->h, "polderd: worker", pid, 8);
        if (n && !kill(pid[k->kills % n], SIGKILL))
            k->kills++;
        nap_ms(200);
    }
    return NULL;
}

static void the_limit_is_exact_while_workers_die(void **state)
{
    (void)state;
    struct house h;
    unsigned counts[1000] = {0};
    pthread_t t;
    start(&h, 4, 1000, "");
    backend_forget(backend);
    struct killer k = {.h = &h};
    pthread_create(&t, NULL, kill_workers, &k);
    uint64_t end = mono_ms() + 3000;
    storm(h.port, "/limited", 10000, 50, counts, NULL);
    while (mono_ms() < end) /* at least a dozen kills, however fast the machine */
        storm(h.port, "/limited", 1000, 50, counts, NULL);
    atomic_store(&k.stop, true);
    pthread_join(t, NULL);
    assert_true(k.kills >= 8);
    assert_true(counts[200] <= 1000);
    assert_true(backend_calls(backend) <= 1000);
    assert_true(counts[200] >= 1000 - 50 * k.kills);
    wait_until(house_ready(&h), 10000);
    assert_true(admitted(&h, 20) + counts[200] <= 1000);
    house_remove(&h);
}

static bool has_requests(struct house *h, const char *value)
{
    const char *out;
    char want[64];
    snprintf(want, sizeof want, "\"requests\": %s,", value);
    assert_int_equal(ctl(h, &out, "--json limit show status"), 0);
    return strstr(out, want) != NULL && strstr(out, want) < strstr(out, "\"file\"");
}

static void counts_and_a_persisted_change_survive_a_reload_and_a_restart(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, 10, "");
    assert_int_equal(admitted(&h, 12), 10);
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    assert_int_equal(admitted(&h, 5), 0);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=15 --persist"), 0);
    assert_int_equal(admitted(&h, 10), 5);
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_int_equal(admitted(&h, 20), 0);
    assert_true(has_requests(&h, "15"));
    house_advance(&h, 130000);
    assert_int_equal(admitted(&h, 20), 15);
    assert_int_equal(ctl(&h, &out, "--json limit show status"), 0);
    assert_non_null(strstr(strstr(out, "\"file\""), "\"requests\": 10,"));
    house_remove(&h);
}

static void keys_tell_clients_apart(void **state)
{
    (void)state;
    struct house h;
    house_start(
        &h, 2,
        "trusted_proxies = {\"127.0.0.0/8\"}\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "limit \"ip\" { requests = 2 window = \"60s\" key = \"client\" }\n"
        "limit \"key\" { requests = 3 window = \"60s\" key = \"header:X-Api-Key\" }\n"
        "route \"/ip\" { upstream = \"u\" limits = {\"ip\"} }\nroute \"/key\" { upstream = \"u\" "
        "limits = {\"key\"} }\n",
        backend_port(backend));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(get_with(h.port, "/ip", "X-Forwarded-For: 198.51.100.1\r\n", NULL),
                         i < 2 ? 200 : 429);
        assert_int_equal(
            get_with(h.port, "/ip", "X-Forwarded-For: 10.9.8.7, 198.51.100.2\r\n", NULL),
            i < 2 ? 200 : 429);
        /* one /64 is one client */
        char line[80];
        snprintf(line, sizeof line, "X-Forwarded-For: 2001:db8::%d\r\n", i);
        assert_int_equal(get_with(h.port, "/ip", line, NULL), i < 2 ? 200 : 429);
        assert_int_equal(get_with(h.port, "/key", "X-Api-Key: a\r\n", NULL), i < 3 ? 200 : 429);
        assert_int_equal(get_with(h.port, "/key", "X-Api-Key: b\r\n", NULL), i < 3 ? 200 : 429);
    }
    house_remove(&h);
}

/* One request of three; of 40 more at once the limit of 25 admits 24. */
static void expect_24_more(struct house *h, const char *target)
{
    struct message m;
    unsigned counts[1000] = {0};
    assert_int_equal(get(h->port, target, &m), 200);
    if (!strcmp(target, "/fixed")) { /* at the beginning of its window */
        house_advance(h, 1000 * (unsigned)atoi(strstr(field_of(&m, "RateLimit"), ";t=") + 3));
        message_free(&m);
        wait_until(get(h->port, target, &m) == 200 &&
                       strstr(field_of(&m, "RateLimit"), ";r=24;") != NULL,
                   10000);
    }
    message_free(&m);
    storm(h->port, target, 40, 8, counts, NULL);
    if (strcmp(target, "/gcra"))
        assert_int_equal(counts[200], 24);
    else
        assert_in_range(counts[200], 24, 25); /* one comes back each 2.4 s */
    assert_int_equal(counts[200] + counts[429], 40);
}

static void each_algorithm_admits_what_it_says(void **state)
{
    (void)state;
    static const unsigned workers[] = {1, 2, 8};
    for (int i = 0; i < 3; i++) {
        struct house h;
        house_start(&h, workers[i],
                    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                    "limit \"s\" { requests = 25 window = \"60s\" algorithm = \"sliding\" }\n"
                    "limit \"f\" { requests = 25 window = \"60s\" algorithm = \"fixed\" }\n"
                    "limit \"g\" { requests = 25 window = \"60s\" algorithm = \"gcra\" }\n"
                    "route \"/sliding\" { upstream = \"u\" limits = {\"s\"} }\n"
                    "route \"/fixed\" { upstream = \"u\" limits = {\"f\"} }\n"
                    "route \"/gcra\" { upstream = \"u\" limits = {\"g\"} }\n",
                    backend_port(backend));
        expect_24_more(&h, "/sliding");
        expect_24_more(&h, "/gcra");
        expect_24_more(&h, "/fixed");
        house_remove(&h);
    }
}

static void no_spelling_of_a_path_avoids_its_limit(void **state)
{
    (void)state;
    static const char *const same[] = {"/limited",         "//limited",     "/limite%64",
                                       "/x/../limited",    "/.//./limited", "/limited?b",
                                       "/x/%2e%2E/limited"};
    struct house h;
    start(&h, 1, 1, "");
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (get(h.port, same[i], NULL) != 429)
            fail_msg("%s is not limited", same[i]);
    /* what is limited to some backends alone */
    assert_int_equal(get(h.port, "/x%2F..%2Flimited?a", NULL), 400);
    assert_int_equal(get(h.port, "/%2Flimited", NULL), 400);
    assert_int_equal(get(h.port, "/limited%", NULL), 400);
    assert_int_equal(get(h.port, "/limited%00", NULL), 400);
    assert_int_equal(get(h.port, "/limited/", NULL), 200);
    house_remove(&h);
}

static void no_spelling_of_a_key_has_its_own_budget(void **state)
{
    (void)state;
    static const char *const queries[] = {"?key=a+bc", "?key=%61%20bc", "?key=a%20b%63&x=1",
                                          "?k%65y=a+bc"};
    static const char *const cookies[] = {"Cookie: sid=one\r\n", "Cookie: sid=\"one\"\r\n",
                                          "Cookie: x=y; sid=%6fne\r\n"};
    struct house h;
    char target[64], lines[64];
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"q\" { requests = 4 window = \"60s\" key = \"query:key\" }\n"
                "limit \"c\" { requests = 3 window = \"60s\" key = \"cookie:sid\" }\n"
                "route \"/q\" { upstream = \"u\" limits = {\"q\"} }\n"
                "route \"/c\" { upstream = \"u\" limits = {\"c\"} }\n",
                backend_port(backend));
    for (int i = 0; i < 8; i++) {
        snprintf(target, sizeof target, "/q%s", queries[i % 4]);
        assert_int_equal(get(h.port, target, NULL), i < 4 ? 200 : 429);
    }
    for (int i = 0; i < 6; i++)
        assert_int_equal(get_with(h.port, "/c", cookies[i % 3], NULL), i < 3 ? 200 : 429);
    /* twice with two values: nobody knows which one counts, so the client does */
    for (int i = 0; i < 6; i++) {
        snprintf(target, sizeof target, "/q?key=new%d&key=mine", i);
        assert_int_equal(get(h.port, target, NULL), i < 4 ? 200 : 429);
        snprintf(lines, sizeof lines, "Cookie: sid=new%d; sid=mine\r\n", i);
        assert_int_equal(get_with(h.port, "/c", lines, NULL), i < 3 ? 200 : 429);
    }
    house_remove(&h);
}

static void the_heaviest_and_the_refused_are_named(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    char lines[64];
    house_start(
        &h, 2,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "limit \"keyed\" { requests = 200 window = \"60s\" key = \"client+header:x-key\" }\n"
        "route \"/*\" { upstream = \"u\" limits = {\"keyed\"} cache { } }\n",
        backend_port(backend));
    for (int i = 0; i < 1500; i++) {
        snprintf(lines, sizeof lines, "X-Key: %s\r\n", i % 3 ? "greedy" : i % 2 ? "modest" : "shy");
        get_with(h.port, "/x", lines, NULL);
    }
    assert_int_equal(ctl(&h, &out, "--json limit top keyed"), 0);
    const char *heaviest = strstr(out, "\"heaviest\""), *refused = strstr(out, "\"refused\"");
    assert_non_null(heaviest);
    assert_non_null(refused);
    const char *greedy = strstr(heaviest, "\"127.0.0.1+greedy\""),
               *modest = strstr(heaviest, "\"127.0.0.1+modest\"");
    assert_non_null(greedy);
    assert_non_null(modest);
    assert_true(greedy < modest);
    assert_non_null(strstr(refused, "\"127.0.0.1+greedy\""));
    /* what it names is what limit reset takes */
    assert_int_equal(get_with(h.port, "/x", "X-Key: greedy\r\n", NULL), 429);
    assert_int_equal(ctl(&h, &out, "limit reset keyed 127.0.0.1+greedy"), 0);
    assert_int_equal(get_with(h.port, "/x", "X-Key: greedy\r\n", NULL), 200);
    /* without a value it is counted too */
    unsigned admitted_empty = 0;
    for (int i = 0; i < 250; i++)
        admitted_empty += get_with(h.port, "/x", "X-Key: \r\n", NULL) == 200;
    assert_int_equal(admitted_empty, 200);
    house_remove(&h);
}

static void what_nobody_confirms_comes_back(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    pid_t control;
    start(&h, 2, 20, "");
    assert_int_equal(ctl(&h, &out, "limit confirm status"), 1);
    assert_int_equal(ctl(&h, &out, "limit set status requests=5 --confirm-within 1ms"), 2);
    assert_int_equal(ctl(&h, &out, "limit set status requests=5 --confirm-within 1m --persist"), 2);
    assert_int_equal(ctl(&h, &out, "limit set status requests=5 --confirm-within 2s"), 0);
    assert_true(has_requests(&h, "5"));
    assert_int_equal(admitted(&h, 10), 5);
    assert_int_equal(ctl(&h, &out, "limit set status requests=6 --confirm-within 2s"), 0);
    wait_until(has_requests(&h, "20"), 8000); /* as before both */
    assert_true(house_logged(&h, "was not confirmed in time"));
    assert_int_equal(admitted(&h, 20), 15);
    /* whoever kills control does not make it stay */
    assert_int_equal(ctl(&h, &out, "limit set status requests=5 --confirm-within 2s"), 0);
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    kill(control, SIGKILL);
    wait_until(ctl(&h, &out, "status") == 0, 5000);
    wait_until(has_requests(&h, "20"), 8000);
    /* confirmed, it stays */
    assert_int_equal(ctl(&h, &out, "limit set status requests=7 --confirm-within 2s"), 0);
    assert_int_equal(ctl(&h, &out, "limit confirm status"), 0);
    assert_int_equal(ctl(&h, &out, "limit confirm status"), 1);
    house_advance(&h, 3500); /* longer than the trial would have lasted */
    nap_ms(1200);            /* control has looked meanwhile */
    assert_true(has_requests(&h, "7"));
    house_remove(&h);
}

static int hold(struct house *h)
{
    const int fd = client_connect(h->port);
    client_send(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    return fd;
}

/* Three of them are under way; the places of earlier ones may be given back only now. */
static void hold_three(struct house *h, int fd[3])
{
    struct message m;
    atomic_store(&let_go, false);
    backend_forget(backend);
    for (int i = 0; i < 3; i++) {
        const uint64_t end = mono_ms() + harness_patience(10000);
        for (;;) {
            fd[i] = hold(h);
            struct pollfd answer = {fd[i], POLLIN, 0};
            while (backend_calls(backend) <= (unsigned)i && poll(&answer, 1, 5) == 0)
                assert_true(mono_ms() < end);
            if (backend_calls(backend) > (unsigned)i)
                break;
            client_read(fd[i], &m, false); /* refused, then */
            assert_int_equal(m.status, 429);
            message_free(&m);
            close(fd[i]);
        }
    }
}

static void requests_under_way_are_bounded_and_never_leak(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[4];
    pid_t pid[8];
    house_start(&h, 3,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 1000 window = \"60s\" concurrent = 3 }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"few\"} }\n",
                backend_port(backend));
    for (int round = 0; round < 3; round++) {
        hold_three(&h, fd);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(get(h.port, "/x", &m), 429);
            assert_string_equal(field_of(&m, "Retry-After"), "1");
            assert_string_equal(field_of(&m, "RateLimit-Policy"), "\"few\";q=1000;w=60");
            const char *left = field_of(&m, "RateLimit"); /* it is not charged */
            assert_true(left && !strncmp(left, "\"few\";r=9", 9));
            assert_non_null(strstr(m.body, "\"violated-policies\":[\"few\"]"));
            message_free(&m);
        }
        if (round < 2) { /* each ends with its answer, or when its client goes */
            const struct linger reset = {1, 0}; /* a FIN alone may come from who still reads */
            if (round == 1) {
                setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
                close(fd[0]);
                wait_until(get(h.port, "/none", NULL) != 429, 5000);
            }
            atomic_store(&let_go, true);
            for (int i = round; i < 3; i++) {
                client_read(fd[i], &m, false);
                assert_int_equal(m.status, 200);
                message_free(&m);
            }
        } else { /* or with its worker */
            const size_t n = house_children(&h, "polderd: worker", pid, 8);
            for (size_t i = 0; i < n; i++)
                kill(pid[i], SIGKILL);
            atomic_store(&let_go, true);
        }
        for (int i = round == 1; i < 3; i++)
            close(fd[i]);
        wait_until(get(h.port, "/x", NULL) == 200, 5000);
        if (round == 2)
            break;
    }
    /* exactly three again, and one more where that is allowed at runtime */
    wait_until(house_children(&h, "polderd: worker", pid, 8) == 3 && house_ready(&h), 5000);
    hold_three(&h, fd);
    assert_int_equal(get(h.port, "/x", NULL), 429);
    assert_int_equal(ctl(&h, NULL, "limit set few concurrent=4"), 0);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    atomic_store(&let_go, true);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_pass_and_five_are_told_when_to_come_back),
        cmocka_unit_test(the_limit_is_exact_over_four_workers),
        cmocka_unit_test(the_limit_is_exact_while_workers_die),
        cmocka_unit_test(counts_and_a_persisted_change_survive_a_reload_and_a_restart),
        cmocka_unit_test(keys_tell_clients_apart),
        cmocka_unit_test(each_algorithm_admits_what_it_says),
        cmocka_unit_test(no_spelling_of_a_path_avoids_its_limit),
        cmocka_unit_test(no_spelling_of_a_key_has_its_own_budget),
        cmocka_unit_test(requests_under_way_are_bounded_and_never_leak),
        cmocka_unit_test(the_heaviest_and_the_refused_are_named),
        cmocka_unit_test(what_nobody_confirms_comes_back),
    };
    return run_with_backend(tests, &backend, answers);
}
