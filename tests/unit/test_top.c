/* SPDX-License-Identifier: BSD-2-Clause */
/* The frame of polderctl top: what is not well first, unknown figures as such, rates of two answers. */
#include "admin/tables/bars.c"
#include "admin/tables/name.c"
#include "admin/tables/value.c"
#include "admin/top/frame.c"
#include "polder/rpc_in.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

static void put_answer(struct rpc_out *o, uint64_t mono_ms, uint64_t refused, bool well)
{
    rpc_out_init(o);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "version", "0.1.0");
    rpc_out_u64(o, "uptime_ms", 11520000);
    rpc_out_u64(o, "mono_ms", mono_ms);
    rpc_out_bool(o, "ready", well);
    rpc_out_str(o, "currency", "EUR");
    rpc_out_bool(o, "websockets", well);
    rpc_out_list(o, "alerts");
    rpc_out_end(o);
    rpc_out_list(o, "conditions");
    for (int i = 0; !well && i < 8; i++) {
        rpc_out_map(o, NULL);
        rpc_out_str(o, "condition", "backend_down");
        rpc_out_str(o, "severity", "error");
        rpc_out_str(o, "subject", "api/\x1b[2J");
        rpc_out_u64(o, "since_ms", 298000);
        rpc_out_str(o, "reason", "connection refused");
        rpc_out_end(o);
    }
    rpc_out_end(o);
    rpc_out_map(o, "now");
    rpc_out_f64(o, "requests", 812.4);
    rpc_out_nil(o, "hitRate");
    rpc_out_f64(o, "p95", 0.0021);
    rpc_out_f64(o, "wsOpen", 3);
    rpc_out_f64(o, "wsMax", 50);
    rpc_out_end(o);
    rpc_out_list(o, "limits");
    rpc_out_map(o, NULL);
    rpc_out_str(o, "limit", "few");
    rpc_out_u64(o, "requests", 20);
    rpc_out_u64(o, "window_ms", 60000);
    rpc_out_u64(o, "admitted", 7);
    rpc_out_u64(o, "refused", refused);
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_out_end(o);
}

static char *frame_of(struct rpc_out *now, struct rpc_out *before)
{
    static char text[8192];
    msgpack_unpacked u[2];
    struct rpc_out *o[] = {now, before};
    FILE *to = fmemopen(text, sizeof text, "w");
    for (int i = 0; i < 2; i++) {
        msgpack_unpacked_init(&u[i]);
        if (o[i])
            assert_int_equal(msgpack_unpack_next(&u[i], o[i]->buffer.data, o[i]->buffer.size, NULL),
                             MSGPACK_UNPACK_SUCCESS);
    }
    frame_print(to, &u[0].data, before ? &u[1].data : NULL, false);
    fclose(to);
    for (int i = 0; i < 2; i++) {
        msgpack_unpacked_destroy(&u[i]);
        if (o[i])
            rpc_out_fini(o[i]);
    }
    return text;
}

static void what_is_wrong_stands_first_and_is_bounded(void **state)
{
    struct rpc_out now;
    (void)state;
    put_answer(&now, 1000, 5, false);
    const char *text = frame_of(&now, NULL);
    assert_int_equal(strncmp(text,
                             "polder 0.1.0  up 3 h 12 min  NOT READY\n"
                             "! error backend_down api/?[2J for 4 min 58 s: connection refused\n",
                             100),
                     0);
    assert_non_null(strstr(text, "! and 2 more: polderctl status\n"));
    assert_null(strchr(text, '\x1b'));
    assert_null(strstr(text, "all is well"));
    assert_null(strstr(text, "websockets"));
}

static void figures_have_units_and_rates_need_two_answers(void **state)
{
    struct rpc_out now, before;
    (void)state;
    put_answer(&now, 3000, 15, true);
    const char *text = frame_of(&now, NULL);
    assert_non_null(strstr(text, "\nall is well\n"));
    assert_non_null(strstr(text, "812/s"));
    assert_non_null(strstr(text, "hits -"));
    assert_non_null(strstr(text, "p95 2.1 ms"));
    assert_non_null(strstr(text, "open 3  of 50"));
    assert_non_null(strstr(
        text, "few                           20 in 1 min          -          -         15\n"));
    put_answer(&now, 3000, 15, true);
    put_answer(&before, 1000, 5, true);
    text = frame_of(&now, &before);
    assert_non_null(strstr(
        text, "few                           20 in 1 min          0          5         15\n"));
}

static void an_answer_of_anything_is_shown_without_harm(void **state)
{
    struct rpc_out o;
    (void)state;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_str(&o, "conditions", "none");
    rpc_out_list(&o, "limits");
    rpc_out_u64(&o, NULL, 7);
    rpc_out_end(&o);
    rpc_out_list(&o, "now");
    rpc_out_end(&o);
    rpc_out_end(&o);
    assert_non_null(strstr(frame_of(&o, NULL), "requests"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_stands_first_and_is_bounded),
        cmocka_unit_test(figures_have_units_and_rates_need_two_answers),
        cmocka_unit_test(an_answer_of_anything_is_shown_without_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
