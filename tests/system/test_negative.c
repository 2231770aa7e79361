/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of answers that say that something is not there, or went wrong: they are no content, and
 * what is made meanwhile is seen. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct backend *backend;
static atomic_bool there; /* is it, now? */

static bool answers(struct asked *a)
{
    const char *t = a->target, *status = strstr(t, "status=");
    if (strcmp(a->method, "GET")) {
        atomic_store(&there, true);
        return reply(a, "HTTP/1.1 201 Created\r\n%sContent-Length: 0\r\n\r\n",
                     strstr(t, "elsewhere") ? "Location: /things/7\r\n" : "");
    }
    if (status)
        return reply(a,
                     "HTTP/1.1 %.3s Status\r\n%sETag: \"1\"\r\nLocation: /x\r\n"
                     "Content-Length: 1\r\n\r\nx",
                     status + 7, strstr(t, "stated") ? "Cache-Control: max-age=60\r\n" : "");
    if (strstr(t, "long"))
        return reply(a, "HTTP/1.1 404 Not Found\r\nCache-Control: max-age=600\r\n"
                        "Content-Length: 0\r\n\r\n");
    if (!strncmp(t, "/things/", 8) && !atomic_load(&there))
        return reply(a, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    return reply_ok(a, "", "there");
}

static struct house house;

static int open_house(void **state)
{
    (void)state;
    atomic_store(&there, false);
    house_start(&house, 1,
                "cache { ttl = \"5m\" ttl_negative = \"1h\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n"
                "route \"/default/*\" { upstream = \"u\" cache { ttl_negative = \"5s\" } }\n"
                "route \"/none/*\" { upstream = \"u\" cache { ttl_negative = 0 } }\n",
                backend_port(backend));
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_remove(&house);
    return 0;
}

static int ttl_of(const char *target)
{
    struct message m;
    int ttl = -1;
    wait_until(house_ready(&house), 5000);
    get(house.port, target, NULL);
    for (int i = 0; i < 50 && ttl < 0; i++) { /* as soon as the keeper has it */
        get(house.port, target, &m);
        const char *status = field_of(&m, "Cache-Status"),
                   *at = status ? strstr(status, "ttl=") : 0;
        if (at && strstr(status, "hit"))
            ttl = atoi(at + 4);
        else if (status && strstr(status, "detail"))
            i = 50; /* it says why not */
        message_free(&m);
        if (ttl < 0)
            nap_ms(20);
    }
    return ttl;
}

static void errors_without_a_lifetime_are_not_kept_as_content(void **state)
{
    static const int never[] = {400, 401, 402, 403, 405, 406, 409,
                                413, 414, 422, 500, 501, 502, 503};
    static const int content[] = {200, 203, 300, 301, 308};
    char target[64];
    (void)state;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        snprintf(target, sizeof target, "/default/x?status=%d", never[i]);
        if (ttl_of(target) >= 0)
            fail_msg("%d is stored", never[i]);
    }
    for (size_t i = 0; i < sizeof content / sizeof *content; i++) {
        snprintf(target, sizeof target, "/default/x?status=%d", content[i]);
        if (ttl_of(target) < 200)
            fail_msg("%d is not stored for its ttl", content[i]);
    }
    assert_in_range(ttl_of("/default/x?status=404"), 0, 5);
    assert_in_range(ttl_of("/default/x?status=410"), 0, 5);
    assert_in_range(ttl_of("/y?status=404"), 3000, 3600);
    assert_int_equal(ttl_of("/none/x?status=404"), -1);
    /* What states a lifetime has it. */
    assert_in_range(ttl_of("/default/x?status=405&stated"), 30, 60);
    assert_in_range(ttl_of("/default/x?status=404&stated"), 30, 60);
}

static void what_is_made_is_seen_at_once(void **state)
{
    static const struct {
        const char *method, *target;
    } makes[] = {{"POST", "/things"},          {"POST", "/things/"},      {"PUT", "/things/7"},
                 {"PUT", "/things/7?y"},       {"POST", "/things?x=1"},   {"POST", "/elsewhere/x"},
                 {"PATCH", "/things/7/parts"}, {"DELETE", "/things/7/x/"}};
    const char *out;
    (void)state;
    for (size_t i = 0; i < sizeof makes / sizeof *makes; i++) {
        const bool above = strstr(makes[i].target, "7/x") != NULL;
        const char *gone = above ? "/things/7/x/y" : "/things/7";
        atomic_store(&there, false);
        assert_int_equal(ctl(&house, &out, "cache invalidate --all"), 0);
        wait_until(served_from_store(house.port, gone), 5000);
        assert_int_equal(get(house.port, gone, NULL), 404);
        assert_int_equal(request(house.port, makes[i].method, makes[i].target, "", "x", NULL), 201);
        if (get(house.port, gone, NULL) != 200)
            fail_msg("%s %s: still not there", makes[i].method, makes[i].target);
    }
}

static void negative_copies_elsewhere_stay(void **state)
{
    (void)state;
    wait_until(served_from_store(house.port, "/other/long"), 5000);
    assert_int_equal(request(house.port, "POST", "/things", "", "x", NULL), 201);
    assert_int_equal(request(house.port, "POST", "/login", "", "x", NULL), 201);
    assert_int_equal(request(house.port, "POST", "/", "", "x", NULL), 201);
    assert_int_equal(request(house.port, "POST", "/other/beside", "", "x", NULL), 201);
    assert_true(served_from_store(house.port, "/other/long"));
    assert_int_equal(request(house.port, "POST", "/other/long/below", "", "x", NULL), 201);
    assert_false(served_from_store(house.port, "/other/long"));
    wait_until(served_from_store(house.port, "/other/long"), 5000);
    assert_int_equal(request(house.port, "POST", "/other", "", "x", NULL), 201);
    assert_false(served_from_store(house.port, "/other/long"));
}

static void why_tells_of_the_change(void **state)
{
    const char *out;
    (void)state;
    wait_until(served_from_store(house.port, "/other/long"), 5000);
    assert_int_equal(request(house.port, "POST", "/other", "", "x", NULL), 201);
    assert_int_equal(ctl(&house, &out, "cache why http://test.example/other/long"), 0);
    if (!strstr(out, "a change at or above its path"))
        fail_msg("%s", out);
}

static void move_and_copy_end_what_is_stored_of_their_destination(void **state)
{
    static const char *const methods[] = {"MOVE", "COPY"};
    char lines[128];
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        wait_until(served_from_store(house.port, "/dav/b"), 5000);
        wait_until(served_from_store(house.port, "/dav/c"), 5000);
        if (i < 2)
            snprintf(lines, sizeof lines, "Destination: /dav/b\r\n");
        else
            snprintf(lines, sizeof lines, "Destination: http://test.example/dav/b\r\n");
        assert_int_equal(request(house.port, methods[i % 2], "/dav/a", lines, "", NULL), 201);
        assert_false(served_from_store(house.port, "/dav/b"));
        assert_true(served_from_store(house.port, "/dav/c"));
    }
    /* Another server's URL of that path is not ours, and other methods mean nothing by it. */
    wait_until(served_from_store(house.port, "/dav/b"), 5000);
    request(house.port, "MOVE", "/dav/a", "Destination: http://elsewhere/dav/b\r\n", "", NULL);
    request(house.port, "PUT", "/dav/a", "Destination: /dav/b\r\n", "", NULL);
    assert_true(served_from_store(house.port, "/dav/b"));
}

static void the_negative_ttl_is_changed_while_polder_runs(void **state)
{
    const char *out;
    (void)state;
    assert_int_equal(ctl(&house, &out, "cache set ttl_negative=10s"), 0);
    assert_in_range(ttl_of("/set?status=404"), 0, 10);
    assert_int_equal(ctl(&house, &out, "cache set ttl_negative=x"), 2);
    assert_int_equal(ctl(&house, &out, "cache set ttl=heuristic"), 0);
    if (!strstr(out, "ttl: 5 min -> heuristic"))
        fail_msg("%s", out);
    assert_int_equal(ctl(&house, &out, "cache set ttl=1m"), 0);
    assert_non_null(strstr(out, "ttl: heuristic -> "));
    assert_int_equal(ctl(&house, &out, "cache set ttl=1m"), 0);
    assert_non_null(strstr(out, "nothing changed"));
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test_setup_teardown(errors_without_a_lifetime_are_not_kept_as_content,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(what_is_made_is_seen_at_once, open_house, close_house),
        cmocka_unit_test_setup_teardown(negative_copies_elsewhere_stay, open_house, close_house),
        cmocka_unit_test_setup_teardown(why_tells_of_the_change, open_house, close_house),
        cmocka_unit_test_setup_teardown(move_and_copy_end_what_is_stored_of_their_destination,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(the_negative_ttl_is_changed_while_polder_runs, open_house,
                                        close_house),
    };
    return run_with_backend(stories, &backend, answers);
}
