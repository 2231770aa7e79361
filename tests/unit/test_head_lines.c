/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines of stored heads and of selecting texts: whole names alone are found, whatever their case,
 * and nothing is read behind the end. */
#include "polder/head_lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(s) ((struct str){s, strlen(s)})

/* NULL: there is no such line; "-": it has no colon. */
static const char *find(const char *lines, size_t len, const char *name)
{
    static char text[64];
    char *copy = malloc(len ? len : 1); /* nothing lies behind it */
    struct str value;
    memcpy(copy, lines, len);
    const bool found = head_lines_find((struct str){copy, len}, TEXT(name), &value);
    if (found && value.at) {
        memcpy(text, value.at, value.len);
        text[value.len] = 0;
    } else if (found) {
        strcpy(text, "-");
    }
    assert_int_equal(head_lines_find((struct str){copy, len}, TEXT(name), NULL), found);
    free(copy);
    return found ? text : NULL;
}

static void whole_names_are_found_whatever_their_case(void **state)
{
    (void)state;
    static const char head[] = "HTTP/1.1 200 OK: all\r\nETag-Of: no\r\nETag: \"a:b\"\r\n"
                               "Empty:\r\nAge: \t 7 \r\netag: \"second\"\r\nlast";
    const size_t len = sizeof head - 1;
    assert_string_equal(find(head, len, "etag"), "\"a:b\"");
    assert_string_equal(find(head, len, "age"), "7");
    assert_string_equal(find(head, len, "empty"), "");
    assert_string_equal(find(head, len, "last"), "-");
    assert_null(find(head, len, "eta"));
    assert_null(find(head, len, "etag-o"));
    assert_null(find(head, len, "date"));
    assert_null(find("", 0, "etag"));
    for (size_t cut = 0; cut < len; cut++) /* however it is cut */
        find(head, cut, "etag");
    assert_null(find(head, strlen("HTTP/1.1 200 OK: all\r\nETag"), "etag-of"));
}

static void lines_are_walked_with_their_ends(void **state)
{
    (void)state;
    struct str rest = TEXT("a: 1\nb\n\nc"), line, value;
    static const char *const lines[] = {"a: 1\n", "b\n", "\n", "c"}, *const names[] = {"a", "b", "",
                                                                                       "c"};
    for (size_t i = 0; i < 4; i++) {
        assert_true(head_line_next(&rest, &line));
        assert_int_equal(line.len, strlen(lines[i]));
        assert_memory_equal(line.at, lines[i], line.len);
        const struct str name = head_line_name(line, &value);
        assert_int_equal(name.len, strlen(names[i]));
        assert_memory_equal(name.at, names[i], name.len);
        assert_int_equal(value.at != NULL, i == 0);
    }
    assert_false(head_line_next(&rest, &line));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_names_are_found_whatever_their_case),
        cmocka_unit_test(lines_are_walked_with_their_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
