/* SPDX-License-Identifier: BSD-2-Clause */
/* problem: every error of our own is a correct HTTP response with a correct JSON document. */
#include "polder/problem.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* RFC 9457 3 */
static void every_problem_is_rendered_with_its_status(void **state)
{
    (void)state;
    for (unsigned p = 0; p < PROBLEMS; p++) {
        char out[PROBLEM_RENDER_MAX], line[64];
        size_t len = problem_render((enum problem)p, "", "", out, sizeof out);
        assert_in_range(len, 100, sizeof out - 1);
        int n = snprintf(line, sizeof line, "HTTP/1.1 %u %s\r\n", problem_status((enum problem)p),
                         problem_reason(problem_status((enum problem)p)));
        assert_memory_equal(out, line, (size_t)n);
        char *body = strstr(out, "\r\n\r\n");
        assert_non_null(body);
        body += 4;
        unsigned long length = strtoul(strstr(out, "Content-Length: ") + 16, NULL, 10);
        assert_int_equal(length, len - (size_t)(body - out));
        assert_non_null(strstr(out, "Content-Type: application/problem+json\r\n"));
        assert_non_null(strstr(out, "Cache-Control: no-store\r\n"));
        json_t *json = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(json);
        assert_int_equal(json_integer_value(json_object_get(json, "status")),
                         problem_status((enum problem)p));
        assert_string_equal(json_string_value(json_object_get(json, "title")),
                            problem_title((enum problem)p));
        assert_non_null(json_string_value(json_object_get(json, "type")));
        assert_true(strlen(json_string_value(json_object_get(json, "detail"))) > 10);
        json_decref(json);
    }
}

static void extra_lines_and_members_are_in_their_places(void **state)
{
    (void)state;
    char out[PROBLEM_RENDER_MAX];
    size_t len =
        problem_render(PROBLEM_QUOTA_EXCEEDED, "Retry-After: 7\r\nRateLimit: \"a\";r=0;t=7\r\n",
                       ",\"violated-policies\":[\"a\"]", out, sizeof out);
    assert_true(len > 0);
    char *blank = strstr(out, "\r\n\r\n");
    assert_true(strstr(out, "\r\nRetry-After: 7\r\n") < blank);
    json_t *json = json_loadb(blank + 4, len - (size_t)(blank + 4 - out), 0, NULL);
    assert_non_null(json);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(json, "violated-policies"), 0)), "a");
    json_decref(json);
}

static void nothing_is_rendered_where_there_is_no_room(void **state)
{
    (void)state;
    char out[PROBLEM_RENDER_MAX];
    size_t len = problem_render(PROBLEM_NOT_FOUND, "", "", out, sizeof out);
    assert_int_equal(problem_render(PROBLEM_NOT_FOUND, "", "", out, len + 1), len);
    for (size_t size = 0; size <= len; size++)
        assert_int_equal(problem_render(PROBLEM_NOT_FOUND, "", "", out, size), 0);
    char members[PROBLEM_RENDER_MAX + 1];
    memset(members, ' ', sizeof members - 1);
    members[sizeof members - 1] = '\0';
    assert_int_equal(problem_render(PROBLEM_NOT_FOUND, "", members, out, sizeof out), 0);
}

static void reasons_are_those_of_the_registry(void **state)
{
    (void)state;
    assert_string_equal(problem_reason(200), "OK");
    assert_string_equal(problem_reason(504), "Gateway Timeout");
    assert_string_equal(problem_reason(299), "");
    assert_string_equal(problem_reason(0), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_problem_is_rendered_with_its_status),
        cmocka_unit_test(extra_lines_and_members_are_in_their_places),
        cmocka_unit_test(nothing_is_rendered_where_there_is_no_room),
        cmocka_unit_test(reasons_are_those_of_the_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
