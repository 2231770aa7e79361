/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the resolver: names of servers, and a name server that changes its mind, fails and
 * lies. */
#include "harness.h"
#include "ws_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct dns *dns;
static struct backend *one, *two; /* on 127.0.0.1 and 127.0.0.2, of one port */
static struct house house;

static atomic_bool slow, release;

static bool says_its_name(struct asked *a)
{
    if (!strcmp(a->target, "/slow")) {
        const uint64_t end = mono_ms() + 20000;
        atomic_store(&slow, true);
        while (!atomic_load(&release) && mono_ms() < end)
            nap_ms(2);
    }
    return reply_ok(a, "", a->arg);
}

static int begin(void **state)
{
    (void)state;
    dns = dns_start();
    one = backend_start_at(says_its_name, "one", "127.0.0.1", 0);
    two = backend_start_at(says_its_name, "two", "127.0.0.2", backend_port(one));
    atomic_store(&slow, false);
    atomic_store(&release, false);
    return 0;
}

static int end(void **state)
{
    (void)state;
    house_remove(&house);
    backend_stop(one);
    backend_stop(two);
    dns_stop(dns);
    return 0;
}

static void house_with(const char *name)
{
    house_start(&house, 2,
                "resolver = {\"127.0.0.1:%u\"}\n"
                "upstream \"n\" { server \"%s:%u\" { } park = \"0s\" idle_timeout = \"1m\" }\n"
                "route \"/*\" { upstream = \"n\" }\n",
                dns_port(dns), name, backend_port(one));
}

/* "one" and "two": what answers; "": no server does. */
static bool answered_by(const char *who)
{
    struct message m;
    const int status = get(house.port, "/", &m);
    const bool as_said = *who ? status == 200 && !strcmp(m.body, who) : status == 502;
    message_free(&m);
    return as_said;
}

static bool shows(const char *command, const char *what)
{
    const char *out;
    return ctl(&house, &out, "%s", command) == 0 && strstr(out, what);
}

static pid_t resolver(void)
{
    pid_t pid[2] = {0};
    return house_children(&house, "polderd: resolver", pid, 2) == 1 ? pid[0] : 0;
}

static unsigned times_logged(const char *text)
{
    char line[2048];
    unsigned n = 0;
    FILE *f = fopen(house.log, "r");
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* ---- as it should be ---- */

static void addresses_follow_the_name(void **state)
{
    (void)state;
    struct message m;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    assert_true(answered_by("one")); /* at once: names are resolved before workers start */
    const int fd = client_connect(house.port);
    client_send(fd, "GET /slow HTTP/1.1\r\nHost: test.example\r\n\r\n");
    wait_until(atomic_load(&slow), 10000);
    dns_has(dns, "app.test", 1, "127.0.0.2");
    wait_until(answered_by("two"), 10000);
    assert_true(shows("upstream list", "127.0.0.2:"));
    atomic_store(&release, true); /* what was under way goes on, ... */
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "one");
    message_free(&m);
    close(fd);
    for (unsigned i = 0; i < 20; i++) /* each worker sees the new list */
        assert_true(answered_by("two"));
    wait_until(backend_open(one) == 0, 10000); /* ... and what was kept is closed */
    assert_int_equal(times_logged("has other addresses now: 127.0.0.2:"), 1);
    assert_true(shows("status", "resolver"));
}

static void a_longer_time_to_live_is_kept(void **state)
{
    (void)state;
    dns_has(dns, "app.test", 100, "127.0.0.1");
    house_with("app.test");
    wait_until(resolver(), 10000);
    wait_until(shows("status", "resolver"), 10000);
    const unsigned asked = dns_asked(dns, "app.test");
    dns_has(dns, "app.test", 100, "127.0.0.2");
    house_advance(&house, 90000);
    pid_t now = 0;
    wait_until((now = resolver()) != 0, 10000);
    for (unsigned i = 0; i < 3; i++) { /* nor by a successor */
        const pid_t before = now;
        kill(before, SIGKILL);
        wait_until((now = resolver()) != 0 && now != before, 10000);
    }
    assert_true(answered_by("one"));
    assert_int_equal(dns_asked(dns, "app.test"), asked);
    house_advance(&house, 11000);
    wait_until(answered_by("two"), 10000);
    assert_true(dns_asked(dns, "app.test") <= asked + 2);
}

static void each_address_of_both_families_is_tried(void **state)
{
    (void)state;
    dns_alias(dns, "app.test", 5, "many.test");
    dns_has(dns, "many.test", 5, "127.0.0.9 127.0.0.8 ::1 127.0.0.1");
    house_with("app.test");
    for (unsigned i = 0; i < 10; i++)
        assert_true(answered_by("one"));
    assert_int_equal(request(house.port, "POST", "/", "", "x", NULL), 200);
    assert_true(shows("upstream list", "[::1]:"));
    assert_false(house_logged(&house, "refused")); /* the server has answered */
    assert_true(shows("upstream list --json", "\"errors\": 0"));
    assert_true(shows("upstream list --json", "\"next_lookup_ms\": "));
}

static void of_fifty_addresses_the_right_one_is_found(void **state)
{
    (void)state;
    char addresses[2048] = "127.0.0.1";
    for (unsigned i = 100; i < 149; i++)
        snprintf(addresses + strlen(addresses), sizeof addresses - strlen(addresses), " 127.0.0.%u",
                 i);
    dns_has(dns, "app.test", 1, addresses);
    house_with("app.test");
    wait_until(answered_by("one"), 10000);
    const unsigned asked = dns_asked(dns, "app.test");
    wait_until(dns_asked(dns, "app.test") >= asked + 2, 10000); /* the list stays as it was */
    assert_int_equal(times_logged("other addresses"), 0);
}

/* Those that are open stay where they are. */
static void websockets_go_to_the_same_addresses(void **state)
{
    (void)state;
    struct scripted b;
    int client, other;
    scripted_open(&b);
    dns_has(dns, "app.test", 1, "127.0.0.9 127.0.0.1");
    house_start(&house, 1,
                "resolver = {\"127.0.0.1:%u\"}\nupstream \"n\" { server \"app.test:%u\" { } }\n"
                "route \"/*\" { upstream = \"n\" websocket { } }\n",
                dns_port(dns), b.port);
    wait_for_supervisor(&house);
    const int fd = scripted_agree(&b, &client, house.port, "/", "");
    struct backend *nine = backend_start_at(says_its_name, "nine", "127.0.0.9", b.port);
    const int fd2 = scripted_agree(&b, &other, house.port, "/", ""); /* where one has agreed */
    dns_has(dns, "app.test", 1, "127.0.0.9");
    wait_until(shows("upstream list", "127.0.0.9:") && !shows("upstream list", "127.0.0.1:"),
               10000);
    assert_int_equal(status_of(house.port, "/"), 200); /* no WebSocket there */
    client_send_bytes(fd, "\x81\5hello", 7);
    expect_text(client, "hello");
    close(fd);
    close(fd2);
    close(client);
    close(other);
    close(b.fd);
    backend_stop(nine);
}

static void there_is_no_resolver_without_names(void **state)
{
    (void)state;
    dns_has(dns, "app.test", 1, "127.0.0.2");
    house_with("127.0.0.1");
    assert_true(answered_by("one"));
    assert_int_equal(resolver(), 0);
    char routes[400];
    snprintf(routes, sizeof routes,
             "resolver = {\"127.0.0.1:%u\"}\nupstream \"n\" { server \"app.test:%u\" { } }\n"
             "route \"/*\" { upstream = \"n\" }\n",
             dns_port(dns), backend_port(one));
    house_write_conf(&house, 2, routes);
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    assert_true(answered_by("two"));
    wait_until(resolver(), 10000);
    snprintf(routes, sizeof routes,
             "upstream \"n\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"n\" }\n",
             backend_port(one));
    house_write_conf(&house, 2, routes);
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    wait_until(!resolver(), 10000);
    assert_true(answered_by("one"));
}

/* ---- failures ---- */

static void what_was_known_serves_while_the_name_server_fails(void **state)
{
    (void)state;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    assert_true(answered_by("one"));
    dns_behaves(dns, "app.test", DNS_SERVFAIL);
    wait_until(times_logged("does not resolve now: ") == 1, 10000);
    for (unsigned i = 0; i < 4 && !shows("status", "name_unresolved"); i++)
        house_advance(&house, 40000);
    wait_until(shows("status", "name_unresolved"), 10000);
    assert_true(answered_by("one"));
    dns_has(dns, "app.test", 1, "127.0.0.2");
    house_advance(&house, 40000);
    wait_until(answered_by("two"), 10000);
    wait_until(!shows("status", "name_unresolved"), 10000);
    assert_int_equal(times_logged("does not resolve now"), 1);
    assert_int_equal(times_logged("resolves again"), 1);
}

static void a_name_that_does_not_resolve_yet_is_a_condition(void **state)
{
    (void)state;
    house_with("late.test");
    assert_true(answered_by(""));
    assert_true(shows("status", "name_unresolved"));
    assert_true(shows("status", "Domain name not found"));
    dns_has(dns, "late.test", 60, "127.0.0.1");
    house_advance(&house, 40000);
    wait_until(answered_by("one"), 10000);
    wait_until(!shows("status", "name_unresolved"), 10000);
}

#define MANNERS 6

static bool all_asked_again(const unsigned *before)
{
    char name[32];
    bool all = true;
    for (unsigned i = 0; i < MANNERS; i++) {
        snprintf(name, sizeof name, "bad%u.test", i);
        all &= dns_asked(dns, name) > before[i];
    }
    return all;
}

static void answers_that_are_none_harm_nothing(void **state)
{
    static const enum dns_manner manner[MANNERS] = {DNS_NOISE,    DNS_LOOP,  DNS_LIES,
                                                    DNS_STRANGER, DNS_EMPTY, DNS_CUT_TWICE};
    char name[MANNERS][32], servers[800] = "";
    unsigned asked[MANNERS];
    (void)state;
    for (unsigned i = 0; i < MANNERS; i++) {
        snprintf(name[i], sizeof name[i], "bad%u.test", i);
        dns_has(dns, name[i], 1, "127.0.0.1");
        snprintf(servers + strlen(servers), sizeof servers - strlen(servers),
                 "server \"%s:%u\" { }\n", name[i], backend_port(one));
    }
    house_start(&house, 2,
                "resolver = {\"127.0.0.1:%u\"}\nupstream \"n\" { %s park = \"0s\" }\n"
                "route \"/*\" { upstream = \"n\" }\n",
                dns_port(dns), servers);
    wait_until(resolver(), 10000);
    const pid_t pid = resolver();
    for (unsigned i = 0; i < MANNERS; i++) {
        dns_behaves(dns, name[i], manner[i]);
        asked[i] = dns_asked(dns, name[i]);
    }
    house_advance(&house, 60000);
    wait_until(all_asked_again(asked), 10000);
    for (unsigned i = 0; i < 3 * MANNERS; i++)
        assert_true(answered_by("one"));
    for (unsigned i = 0; i < MANNERS; i++)
        dns_has(dns, name[i], 300, "127.0.0.2");
    house_advance(&house, 60000);
    wait_until(times_logged("has other addresses now: 127.0.0.2:") == MANNERS, 20000);
    for (unsigned i = 0; i < 3 * MANNERS; i++)
        assert_true(answered_by("two"));
    assert_int_equal(resolver(), pid);
}

static void a_dead_resolver_is_replaced_and_nothing_notices(void **state)
{
    (void)state;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    for (unsigned i = 0; i < 10; i++) {
        wait_until(resolver(), 10000);
        nap_ms(i * 7 % 40); /* at any moment of its work */
        const pid_t pid = resolver();
        if (pid)
            kill(pid, SIGKILL);
        assert_true(answered_by("one"));
    }
    dns_has(dns, "app.test", 1, "127.0.0.2");
    wait_until(answered_by("two"), 20000);
}

static void an_upgrade_goes_on_with_a_resolver(void **state)
{
    (void)state;
    const char *out;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    wait_until(resolver() && shows("status", "resolver"), 10000);
    const pid_t before = resolver();
    if (ctl(&house, &out, "upgrade"))
        fail_msg("upgrade: %s", out);
    assert_true(answered_by("one"));
    wait_until(resolver() && resolver() != before, 10000); /* of the new program */
    dns_has(dns, "app.test", 1, "127.0.0.2");
    wait_until(answered_by("two"), 10000);
}

static void a_hung_resolver_is_replaced(void **state)
{
    (void)state;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    wait_until(resolver() && shows("status", "resolver"), 10000);
    const pid_t pid = resolver();
    kill(pid, SIGSTOP);
    dns_has(dns, "app.test", 1, "127.0.0.2");
    wait_until(resolver() && resolver() != pid, 20000);
    wait_until(answered_by("two"), 10000);
    assert_true(answered_by("two"));
}

static void the_check_of_a_file_asks_the_stated_name_server(void **state)
{
    char command[400], line[512], all[4096] = "";
    (void)state;
    dns_has(dns, "app.test", 1, "127.0.0.1");
    house_with("app.test");
    for (unsigned missing = 0; missing < 2; missing++) {
        if (missing)
            dns_behaves(dns, "app.test", DNS_NXDOMAIN);
        snprintf(command, sizeof command, "%s -c %s -t 2>&1", built("polderd"), house.conf);
        FILE *p = popen(command, "r");
        while (fgets(line, sizeof line, p))
            snprintf(all + strlen(all), sizeof all - strlen(all), "%s", line);
        assert_int_equal(pclose(p), 0);
        assert_int_equal(strstr(all, "warning: server \"app.test:") != NULL, missing);
    }
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(addresses_follow_the_name),
        STORY(a_longer_time_to_live_is_kept),
        STORY(each_address_of_both_families_is_tried),
        STORY(of_fifty_addresses_the_right_one_is_found),
        STORY(websockets_go_to_the_same_addresses),
        STORY(there_is_no_resolver_without_names),
        STORY(what_was_known_serves_while_the_name_server_fails),
        STORY(a_name_that_does_not_resolve_yet_is_a_condition),
        STORY(answers_that_are_none_harm_nothing),
        STORY(a_dead_resolver_is_replaced_and_nothing_notices),
        STORY(an_upgrade_goes_on_with_a_resolver),
        STORY(a_hung_resolver_is_replaced),
        STORY(the_check_of_a_file_asks_the_stated_name_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
