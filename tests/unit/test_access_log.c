/* SPDX-License-Identifier: BSD-2-Clause */
/* A line of the access log is one line whatever clients send, and none gets lost or mixed. */
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/conditions.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char out[ACCESS_LOG_LINE_MAX];

static struct str text(const char *t)
{
    return (struct str){t, strlen(t)};
}

static struct access_line usual(void)
{
    struct access_line l = {.real_ms = 1795968531123,
                            .method = text("GET"),
                            .host = text("api.example.org"),
                            .target = text("/api/items/1?a=b"),
                            .protocol = text("HTTP/1.1"),
                            .user_agent = text("curl/8.1"),
                            .referer = text("https://example.org/"),
                            .request_id = text("0011aabb"),
                            .upstream = text("127.0.0.1:8001"),
                            .upstream_us = 1234,
                            .route = text("/api/items/*"),
                            .cache = "miss",
                            .bytes = 42,
                            .us = 2345,
                            .status = 200};
    clientip_parse("192.0.2.7", 9, &l.client);
    return l;
}

static const char *format(enum config_access_log kind, const struct access_line *l)
{
    const size_t n = access_log_format(kind, l, out, sizeof out - 1);
    assert_true(n > 0);
    out[n] = 0;
    assert_ptr_equal(strchr(out, '\n'), out + n - 1);
    for (size_t i = 0; i + 1 < n; i++)
        assert_true((unsigned char)out[i] >= 0x20 && (unsigned char)out[i] < 0x7f);
    return out;
}

static void json_has_every_field_in_its_place(void **state)
{
    (void)state;
    struct access_line l = usual();
    assert_string_equal(
        format(CONFIG_LOG_JSON, &l),
        "{\"time\":\"2026-11-29T16:08:51.123Z\",\"client\":\"192.0.2.7\",\"method\":\"GET\","
        "\"host\":\"api.example.org\",\"target\":\"/api/items/1?a=b\",\"protocol\":\"HTTP/1.1\","
        "\"status\":200,\"bytes\":42,\"us\":2345,\"upstream\":\"127.0.0.1:8001\","
        "\"upstream_us\":1234,\"cache\":\"miss\",\"route\":\"/api/items/*\","
        "\"request_id\":\"0011aabb\",\"user_agent\":\"curl/8.1\","
        "\"referer\":\"https://example.org/\"}\n");
    l.limit = text("status");
    l.cut = "timeout";
    assert_non_null(strstr(format(CONFIG_LOG_STDERR, &l), "\"limit\":\"status\",\"route\""));
    assert_non_null(strstr(out, ",\"cut\":\"timeout\"}\n"));
}

static void a_websocket_has_its_own_fields(void **state)
{
    (void)state;
    struct access_line l = usual();
    l.websocket = true;
    l.status = 101;
    l.us = 1500999;
    l.messages_in = 3;
    l.messages_out = 4;
    l.close_code = 1001;
    l.reason = "client-closed";
    format(CONFIG_LOG_JSON, &l);
    assert_non_null(strstr(out, "\"status\":101,\"bytes\":42,\"ms\":1500,\"upstream\""));
    assert_null(strstr(out, "\"us\""));
    assert_non_null(strstr(out, ",\"messages_in\":3,\"messages_out\":4,\"close_code\":1001,"
                                "\"reason\":\"client-closed\"}"));
}

/* What AWStats, GoAccess and the like expect. */
static bool is_combined(const char *line)
{
    static const char pattern[] = "^[^ ]+ [^ ]+ [^ ]+ \\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:"
                                  "[0-9]{2}:[0-9]{2} [-+][0-9]{4}\\] \"[^\"]*\" [0-9]{3} [0-9]+ "
                                  "\"[^\"]*\" \"[^\"]*\"\n$";
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    const bool yes = regexec(&re, line, 0, NULL, 0) == 0;
    regfree(&re);
    return yes;
}

static void combined_is_read_by_the_usual_programs(void **state)
{
    (void)state;
    struct access_line l = usual();
    assert_true(is_combined(format(CONFIG_LOG_COMBINED, &l)));
    assert_non_null(strstr(out, "\"GET /api/items/1?a=b HTTP/1.1\" 200 42 \"https://example.org/\" "
                                "\"curl/8.1\"\n"));
    l.user_agent = text("a \"b\" \\ [c] \x1b[31m\xc3\xa9");
    l.target = text("/\"x\"");
    l.referer = (struct str){0};
    assert_true(is_combined(format(CONFIG_LOG_COMBINED, &l)));
    assert_non_null(strstr(out, "\"-\" \"a \\x22b\\x22 \\x5C [c] \\x1B[31m\\xC3\\xA9\"\n"));
    struct access_line nothing = {.status = 408};
    assert_true(is_combined(format(CONFIG_LOG_COMBINED, &nothing)));
    assert_non_null(strstr(out, "\"-\" 408 0 \"-\" \"-\"\n"));
}

static void json_text_is_what_was_sent(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *shown;
    } cases[] = {{"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\\u00e9\\u20ac\\ud83d\\ude00"},
                 {"a\"b\\c\n\x7f", "a\\\"b\\\\c\\u000a\\u007f"},
                 {"\xc2\x9b", "\\u009b"},                   /* CSI of terminals */
                 {"\xe9x", "\\ufffdx"},                     /* Latin-1 */
                 {"\xc0\xaf", "\\ufffd\\ufffd"},            /* too long a form */
                 {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"}, /* half of a pair */
                 {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},
                 {"\xf0\x9f\x98", "\\ufffd\\ufffd\\ufffd"}, /* cut short */
                 {"\xff\xfe", "\\ufffd\\ufffd"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct access_line l = usual();
        char want[128];
        json_error_t error;
        l.user_agent = text(cases[i].bytes);
        snprintf(want, sizeof want, "\"user_agent\":\"%s\",", cases[i].shown);
        if (!strstr(format(CONFIG_LOG_JSON, &l), want))
            fail_msg("%s is not in %s", want, out);
        json_t *parsed = json_loads(out, JSON_REJECT_DUPLICATES, &error);
        assert_non_null(parsed);
        json_decref(parsed);
    }
}

/* All texts of that length, of that byte. */
static struct access_line hostile(char *bytes, size_t len, char byte)
{
    const struct str t = {memset(bytes, byte, len), len};
    return (struct access_line){.real_ms = UINT64_C(253402300799999),
                                .method = t,
                                .host = t,
                                .target = t,
                                .protocol = t,
                                .user_agent = t,
                                .referer = t,
                                .request_id = t,
                                .upstream = t,
                                .upstream_us = UINT64_MAX,
                                .route = t,
                                .limit = t,
                                .cache = "revalidated",
                                .cut = "client-timeout",
                                .bytes = UINT64_MAX,
                                .us = UINT64_MAX,
                                .status = UINT32_MAX,
                                .websocket = true,
                                .messages_in = UINT64_MAX,
                                .messages_out = UINT64_MAX,
                                .close_code = UINT32_MAX,
                                .reason = "closed-by-admin"};
}

static void the_worst_case_of_escaping_fits(void **state)
{
    (void)state;
    static char bytes[70000];
    static const size_t lengths[] = {1, 255, 256, 257, 8192, 8193, 65536};
    static const char byte[] = {'\xff', '\x01', '"', '\\', 'a', '\xe2'};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t k = 0; k < sizeof byte; k++) {
            json_error_t error;
            const struct access_line l = hostile(bytes, lengths[i], byte[k]);
            format(CONFIG_LOG_COMBINED, &l);
            json_t *parsed =
                json_loads(format(CONFIG_LOG_JSON, &l), JSON_DECODE_INT_AS_REAL, &error);
            assert_non_null(parsed);
            json_decref(parsed);
            assert_int_equal(!!strstr(out, "...\""), lengths[i] > 256);
        }
}

static void a_copy_owns_what_it_shows(void **state)
{
    (void)state;
    static char bytes[70000], first[ACCESS_LOG_LINE_MAX];
    const struct access_line l = hostile(bytes, sizeof bytes, '\xff');
    strcpy(first, format(CONFIG_LOG_JSON, &l));
    struct access_line *copy = access_line_copy(&l);
    assert_non_null(copy);
    memset(bytes, 'x', sizeof bytes);
    assert_string_equal(format(CONFIG_LOG_JSON, copy), first);
    free(copy);
}

static void the_first_line_of_what_is_refused_is_shown(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *method, *target, *protocol;
    } cases[] = {{"GET /a b HTTP/1.1\r\nHost: x\r\n", "GET", "/a b", "HTTP/1.1"},
                 {"\r\nBREW /pot HTTP/9.9\r\n", "BREW", "/pot", "HTTP/9.9"},
                 {"GET /long", "GET", "/long", ""},
                 {"GET /a HTTP", "GET", "/a HTTP", ""},
                 {"\x16\x03\x01", "", "\x16\x03\x01", ""},
                 {"", "", "", ""},
                 {" ", "", "", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct access_line l = usual();
        access_line_guess(&l, cases[i].bytes, strlen(cases[i].bytes));
        assert_int_equal(l.method.len, strlen(cases[i].method));
        assert_memory_equal(l.method.at, cases[i].method, l.method.len);
        assert_int_equal(l.target.len, strlen(cases[i].target));
        assert_memory_equal(l.target.at, cases[i].target, l.target.len);
        assert_int_equal(l.protocol.len, strlen(cases[i].protocol));
    }
}

/* ---- writing ---- */

static char path[] = "/tmp/polder-access-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    strcpy(path + sizeof path - 7, "XXXXXX");
    const int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static int open_file(void)
{
    return open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
}

static unsigned lines_of(const char *starts, unsigned *others)
{
    static char line[ACCESS_LOG_BUFFER];
    unsigned n = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    *others = 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, starts, strlen(starts)) && line[strlen(line) - 1] == '\n' &&
            !strstr(line + 1, starts))
            n++;
        else
            ++*others;
    fclose(f);
    return n;
}

static void agents_of_nothing_but_escapes_hide_no_line(void **state)
{
    (void)state;
    static char long_agent[7500], two[2500];
    struct access_log log;
    struct access_line a = usual(), b = usual();
    unsigned others;
    memset(long_agent, '\xff', sizeof long_agent);
    memset(two, '\xff', sizeof two);
    a.user_agent = a.referer = (struct str){two, sizeof two};
    b.user_agent = b.referer = (struct str){long_agent, sizeof long_agent};
    for (int kind = CONFIG_LOG_JSON; kind <= CONFIG_LOG_COMBINED; kind++) {
        assert_int_equal(truncate(path, 0), 0);
        assert_int_equal(access_log_start(&log, (enum config_access_log)kind, open_file()), 0);
        for (int i = 0; i < 30; i++)
            access_log_put(&log, i % 2 ? &b : &a); /* in one turn of the loop */
        access_log_stop(&log);
        assert_int_equal(lines_of(kind == CONFIG_LOG_JSON ? "{\"time\"" : "192.0.2.7", &others),
                         30);
        assert_int_equal(others, 0);
    }
}

static void lines_of_several_processes_do_not_mix(void **state)
{
    (void)state;
    enum { WRITERS = 4, LINES = 3000 };
    unsigned others;
    for (int i = 0; i < WRITERS; i++) {
        if (fork())
            continue;
        struct access_log log;
        struct access_line l = usual();
        if (access_log_start(&log, CONFIG_LOG_JSON, open_file()) < 0)
            _exit(1);
        for (int k = 0; k < LINES; k++) {
            access_log_put(&log, &l);
            if (k % 50 == i)
                access_log_flush(&log);
        }
        access_log_stop(&log);
        _exit(0);
    }
    for (int i = 0, status; i < WRITERS; i++)
        assert_true(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(lines_of("{\"time\"", &others), WRITERS * LINES);
    assert_int_equal(others, 0);
}

static void what_is_collected_goes_to_the_old_file_when_it_changes(void **state)
{
    (void)state;
    struct access_log log;
    struct access_line l = usual();
    struct stat st;
    char old[64];
    snprintf(old, sizeof old, "%s.1", path);
    assert_int_equal(access_log_start(&log, CONFIG_LOG_JSON, open_file()), 0);
    access_log_put(&log, &l);
    assert_int_equal(rename(path, old), 0);
    access_log_change(&log, open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    access_log_put(&log, &l);
    access_log_put(&log, &l);
    access_log_stop(&log);
    assert_int_equal(stat(old, &st), 0);
    const off_t one = st.st_size;
    assert_true(one > 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, one * 2);
    unlink(old);
}

/* The first of these fills the file in the middle of a line. */
static int write_to_a_full_disk(void)
{
    struct access_log log;
    struct access_line l = usual();
    const struct rlimit small = {1000, RLIM_INFINITY}, large = {RLIM_INFINITY, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    if (access_log_start(&log, CONFIG_LOG_JSON, open_file()) < 0)
        return 1;
    setrlimit(RLIMIT_FSIZE, &small);
    for (int i = 0; i < 10; i++)
        access_log_put(&log, &l);
    access_log_flush(&log);
    if (log.lost < 7 || log.error != EFBIG || log.len)
        return 2;
    setrlimit(RLIMIT_FSIZE, &large);
    for (int i = 0; i < 10; i++)
        access_log_put(&log, &l);
    access_log_stop(&log);
    return 0;
}

static void a_full_disk_loses_lines_and_merges_none(void **state)
{
    (void)state;
    int status;
    unsigned others;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(write_to_a_full_disk());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    /* two or three whole ones before, one that is cut, all of those after */
    assert_true(
        lines_of("{\"time\":\"2026-11-29T16:08:51.123Z\",\"client\":\"192.0.2.7\"", &others) >= 12);
    assert_true(others <= 1);
    char last[8] = "";
    FILE *f = fopen(path, "r");
    fseek(f, -3, SEEK_END);
    assert_int_equal(fread(last, 1, 3, f), 3);
    fclose(f);
    assert_string_equal(last, "\"}\n");
}

static void lost_lines_are_a_condition_until_lines_are_written_again(void **state)
{
    (void)state;
    struct access_log log;
    struct access_line l = usual();
    struct shm_segment segment;
    assert_int_equal(conditions_open(&segment, NULL, CONDITIONS_OF_POLDERD), 0);
    struct condition_table *t = conditions_of(&segment);
    assert_int_equal(access_log_start(&log, CONFIG_LOG_JSON, open("/dev/full", O_WRONLY)), 0);
    access_log_put(&log, &l);
    access_log_put(&log, &l);
    access_log_flush(&log);
    assert_int_equal(access_log_report(&log, t, "/dev/full", 1000), 2);
    assert_true(condition_is_raised(t, COND_ACCESS_LOG_FAILED, "/dev/full", 1000));
    assert_int_equal(access_log_report(&log, t, "/dev/full", 9000), 0);
    assert_true(condition_is_raised(t, COND_ACCESS_LOG_FAILED, "/dev/full", 9000));
    access_log_change(&log, open_file());
    access_log_put(&log, &l);
    access_log_flush(&log);
    assert_int_equal(access_log_report(&log, t, "/dev/full", 9500), 0);
    assert_false(condition_is_raised(t, COND_ACCESS_LOG_FAILED, "/dev/full", 9500));
    access_log_stop(&log);
    shm_close(&segment);
}

static void a_pipe_that_nobody_reads_is_not_waited_for(void **state)
{
    (void)state;
    struct access_log log;
    struct access_line l = usual();
    int fds[2];
    assert_int_equal(pipe(fds), 0); /* its description may wait */
    assert_int_equal(access_log_start(&log, CONFIG_LOG_JSON, fds[1]), 0);
    const uint64_t began = clock_mono_ms();
    unsigned put = 0;
    while (!log.lost && put < 100000) {
        access_log_put(&log, &l);
        put++;
        access_log_flush(&log);
    }
    assert_true(log.lost > 0);
    assert_true(clock_mono_ms() - began < 60000);
    /* what was not lost comes whole, in pieces that a pipe takes as one */
    static char bytes[1 << 20];
    size_t len = 0;
    const uint64_t lost = log.lost;
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    for (ssize_t n = 1; n > 0 || log.len;) {
        access_log_flush(&log);
        n = read(fds[0], bytes + len, sizeof bytes - len);
        len += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(log.lost, lost);
    unsigned lines = 0;
    for (const char *at = bytes, *end = bytes + len; at < end; lines++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        assert_non_null(stop);
        assert_memory_equal(at, "{\"time\"", 7);
        assert_int_equal(stop[-1], '}');
        at = stop + 1;
    }
    assert_int_equal(lines, put - lost);
    access_log_stop(&log);
    close(fds[0]);
}

static void a_log_that_is_off_costs_nothing(void **state)
{
    (void)state;
    struct access_log log;
    struct access_line l = usual();
    assert_int_equal(access_log_start(&log, CONFIG_LOG_OFF, -1), 0);
    assert_false(access_log_is_on(&log));
    access_log_put(&log, &l);
    access_log_flush(&log);
    access_log_stop(&log);
    assert_int_equal(log.lost, 0);
}

static void what_cannot_be_opened_is_explained(void **state)
{
    (void)state;
    char why[512];
    int fd;
    struct config c = {.access_log = CONFIG_LOG_JSON, .access_log_path = "/no/such/place"};
    assert_int_equal(access_log_open(&c, &fd), -ENOENT);
    assert_int_equal(fd, -1);
    access_log_explain(&c, -ENOENT, why, sizeof why);
    assert_non_null(strstr(why, "/no/such/place"));
    assert_non_null(strstr(why, "No such file"));
    access_log_explain(&c, -EACCES, why, sizeof why);
    assert_non_null(strstr(why, "user ")); /* whose directory it should be */
    c.access_log = CONFIG_LOG_OFF;
    assert_int_equal(access_log_open(&c, &fd), 0);
    assert_int_equal(fd, -1);
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_every_field_in_its_place),
        cmocka_unit_test(a_websocket_has_its_own_fields),
        cmocka_unit_test(combined_is_read_by_the_usual_programs),
        cmocka_unit_test(json_text_is_what_was_sent),
        cmocka_unit_test(the_worst_case_of_escaping_fits),
        cmocka_unit_test(a_copy_owns_what_it_shows),
        cmocka_unit_test(the_first_line_of_what_is_refused_is_shown),
        cmocka_unit_test_setup_teardown(agents_of_nothing_but_escapes_hide_no_line, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(lines_of_several_processes_do_not_mix, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(what_is_collected_goes_to_the_old_file_when_it_changes,
                                        make_file, remove_file),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_lines_and_merges_none, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(lost_lines_are_a_condition_until_lines_are_written_again,
                                        make_file, remove_file),
        cmocka_unit_test(a_pipe_that_nobody_reads_is_not_waited_for),
        cmocka_unit_test(a_log_that_is_off_costs_nothing),
        cmocka_unit_test(what_cannot_be_opened_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
