/* SPDX-License-Identifier: BSD-2-Clause */
/* Usual mistakes in a file, and all that is said of each: the line, what is wrong, and what is expected. */
#include "polder/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct {
    const char *text, *said; /* without the name of the file */
} mistakes[] = {
    {"user = \"root\nupstream \"u\" { }\nroute \"/*\" { }\n",
     "1: a string that starts here does not end on its line; expected a closing \"\n"},
    {"cache {\n warm = {\"/a\", \"/b}\n}\nroute \"/*\" { }\n",
     "2: a string that starts here does not end on its line; expected a closing \"\n"},
    {"via = 'eu1\n",
     "1: a string that starts here does not end on its line; expected a closing '\n"},
    {"workers: 3\n", "1: unknown key \"workers:\"; expected workers = VALUE\n"},
    {"cache:\n  ttl: 5m\n", "1: unknown key \"cache:\"; expected cache { }\n"},
    {"cache { ttl: 5m }\n", "1: unknown key \"ttl:\" in cache; expected ttl = VALUE\n"},
    {"workers = 3;\n",
     "1: workers: \"3;\" is wrong; expected a whole number, and no \";\" behind it\n"},
    {"workers = {3}\n", "1: workers takes one value; expected workers = VALUE\n"},
    {"limit \"l\" { requests = 1  key = {client} }\n",
     "1: key takes one value; expected key = VALUE\n"},
    {"on_alert = /bin/send mail\n", "1: \"mail\" follows a value on its line; expected quotes "
                                    "around a value with spaces, or KEY = "
                                    "VALUE\n"},
    {"limits \"l\" { requests = 1 }\n",
     "1: unknown key \"limits\"; it belongs to route { }; or did you mean \"limit\"?\n"},
    {"upstream \"u\" { server = \"127.0.0.1:1\" }\n",
     "1: server is a section; expected server \"TITLE\" { }\n"},
    {"cache = on\n", "1: cache is a section; expected cache { }\n"},
    {"upstream \"u\" { server \"http://127.0.0.1:3000\" { } }\n",
     "1: server: \"http://127.0.0.1:3000\" is wrong; expected \"HOST:PORT\", \"[V6]:PORT\" or "
     "\"unix:/PATH\", without a scheme: backends are asked by HTTP\n"},
    {"upstream \"u\" { server \"https://api.example.org\" { } }\n",
     "1: server: \"https://api.example.org\" is wrong; expected \"HOST:PORT\", \"[V6]:PORT\" or "
     "\"unix:/PATH\", without a scheme: backends are asked by HTTP\n"},
    {"upstream \"u\" { server \"backend\" { } }\n",
     "1: server: \"backend\" is wrong; expected \"HOST:PORT\", \"[V6]:PORT\" or \"unix:/PATH\"\n"},
    {"ops { listen = \"127.0.0.1\" }\n",
     "1: listen: \"127.0.0.1\" is wrong; expected an address such as \"127.0.0.1:8000\", "
     "\"[::1]:8000\" or \"unix:/path\"\n"},
    {"cache { max_bytes = 8M  max_body = 64M }\n",
     "1: max_body is more than a quarter of max_bytes, which is the longest body that the store "
     "takes; expected at most 2M\n"},
    {"alert \"a\" { metric = \"hitrate\"  below = 3 }\n",
     "1: alert \"a\": there is no metric \"hitrate\"; did you mean \"hitRate\"? polder-metrics(7) "
     "lists them, in its section History\n"},
    {"alert \"a\" { metric = \"tickets\"  below = 3 }\n",
     "1: alert \"a\": there is no metric \"tickets\"; polder-metrics(7) lists them, in its section "
     "History\n"},
};

struct said {
    char text[4096];
    size_t prefix; /* "FILE:" */
};

static void collect(void *arg, const char *line)
{
    struct said *s = arg;
    const size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "%s\n", line + s->prefix);
}

static void a_mistake_is_told_with_its_line_and_what_is_expected(void **state)
{
    (void)state;
    char path[] = "/tmp/polder-messages.XXXXXX", *memory = malloc(1 << 20);
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        struct config_arena arena;
        struct said said = {.prefix = strlen(path) + 1};
        const size_t len = strlen(mistakes[i].text);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, mistakes[i].text, len, 0), len);
        config_arena_init(&arena, memory, 1 << 20);
        assert_null(config_load(&arena, path, collect, &said));
        if (strcmp(said.text, mistakes[i].said) != 0)
            fail_msg("of %s\n  %s\n  expected\n  %s", mistakes[i].text, said.text,
                     mistakes[i].said);
    }
    close(fd);
    unlink(path);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mistake_is_told_with_its_line_and_what_is_expected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
