/* SPDX-License-Identifier: BSD-2-Clause */
/* With fewer descriptors than max_connections needs, a worker takes the connections that they are
 * enough for; the others are told, and nobody waits in vain. */
#include "harness.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SOME  5000
#define FILES 400 /* some 300 of which a worker needs for itself */
#define IDLE  100

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "served");
}

static void what_is_not_stated_takes_what_there_is(void **state)
{
    const struct rlimit some = {SOME, SOME};
    struct house house;
    const char *said;
    (void)state;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &some), 0);
    house_start(
        &house, 1,
        "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n");
    assert_int_equal(ctl(&house, &said, "status"), 0);
    assert_null(strstr(said, "descriptors_short"));
    assert_false(house_logged(&house, "has room for"));
    house_remove(&house);
}

static void too_few_descriptors_starve_nobody(void **state)
{
    const struct rlimit few = {FILES, FILES};
    struct backend *backend = backend_start(answers, NULL);
    struct house house;
    int fd[IDLE];
    unsigned served = 0;
    (void)state;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    house_start(
        &house, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(backend));
    if (!house_logged(&house, "descriptors_short")) { /* it may raise the limit itself */
        house_remove(&house);
        backend_stop(backend);
        skip();
    }
    wait_until(house_logged(&house, "has room for"), 5000);
    for (unsigned i = 0; i < IDLE; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for (unsigned i = 0; i < IDLE; i++) {
        struct message m;
        client_read(fd[i], &m, false);
        if (m.status != 200 && m.status != 503)
            fail_msg("client %u: status %d", i, m.status);
        served += m.status == 200;
        message_free(&m);
    }
    assert_in_range(served, 10, IDLE - 10);
    for (unsigned i = 0; i < 300; i++) { /* each is answered, though all idle ones stay */
        const uint64_t start = mono_ms();
        assert_int_equal(get(house.port, "/", NULL), 503);
        assert_in_range(mono_ms() - start, 0, harness_patience(2000));
    }
    for (unsigned i = 0; i < IDLE; i++)
        close(fd[i]);
    wait_until(get(house.port, "/", NULL) == 200, 5000);
    assert_false(house_logged(&house, "out of descriptors"));
    house_remove(&house);
    backend_stop(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_stated_takes_what_there_is),
        cmocka_unit_test(too_few_descriptors_starve_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
