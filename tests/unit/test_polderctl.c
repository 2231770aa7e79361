/* SPDX-License-Identifier: BSD-2-Clause */
/* polderctl: words become parameters, answers become tables and JSON, and the manual has it all. */
#include "admin/command.c"
#include "admin/help.c"
#include "admin/json.c"
#include "admin/rpc_client.c"
#include "admin/tables/bars.c"
#include "admin/tables/alert_list.c"
#include "admin/tables/changes.c"
#include "admin/tables/list.c"
#include "admin/tables/map.c"
#include "admin/tables/name.c"
#include "admin/tables/print.c"
#include "admin/tables/rows.c"
#include "admin/tables/value.c"
#include "admin/tables/history.c"
#include "admin/tables/ws_stats.c"
#include "admin/try.c"
#include "polder/rpc_in.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
/* after the others: it wants them */
#include <cmocka.h>

/* ---- words ---- */

static char why[COMMAND_WHY];

static int split(const char *line, char **words, char *space)
{
    int n = 0;
    strcpy(space, line);
    for (char *at = strtok(space, " "); at; at = strtok(NULL, " "))
        words[n++] = at;
    words[n] = NULL;
    return n;
}

/* The parameters of a command line as one line of JSON; NULL: it was refused, see why. */
static const char *params_of(const char *line)
{
    static char text[2048];
    char *words[32], space[512];
    struct rpc_out out;
    int used;
    const int n = split(line, words, space);
    const int method = command_find(words, n, &used, why);
    if (method < 0)
        return NULL;
    const bool good = command_params((enum rpc_method)method, words + used, n - used, &out, why);
    if (good) {
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        assert_int_equal(rpc_scan((uint8_t *)out.buffer.data, out.buffer.size), out.buffer.size);
        assert_int_equal(msgpack_unpack_next(&u, out.buffer.data, out.buffer.size, NULL),
                         MSGPACK_UNPACK_SUCCESS);
        /* what polderctl sends is what the daemon takes */
        char complaint[256] = "";
        if (rpc_in_check((enum rpc_method)method, &u.data, complaint, sizeof complaint))
            fail_msg("%s: %s", line, complaint);
        json_t *j = convert(&u.data);
        char *dumped = json_dumps(j, JSON_COMPACT);
        snprintf(text, sizeof text, "%s", dumped);
        free(dumped);
        json_decref(j);
        msgpack_unpacked_destroy(&u);
    }
    rpc_out_fini(&out);
    return good ? text : NULL;
}

static void refused(const char *line, const char *because)
{
    why[0] = 0;
    const char *got = params_of(line);
    if (got)
        fail_msg("\"%s\" was taken: %s", line, got);
    if (!strstr(why, because))
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", line, why, because);
}

static void words_become_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *line, *params;
    } cases[] = {
        {"status", "{}"},
        {"cache list", "{}"},
        {"cache list h/p --limit 5", "{\"prefix\":\"h/p\",\"limit\":\"5\"}"},
        {"cache list --limit=5 h/p", "{\"limit\":\"5\",\"prefix\":\"h/p\"}"},
        {"cache invalidate /a --soft", "{\"url\":\"/a\",\"soft\":true}"},
        {"cache invalidate --soft --tag --all", "{\"soft\":true,\"tag\":\"--all\"}"},
        {"cache invalidate --all", "{\"all\":true}"},
        {"cache invalidate -- --odd", "{\"url\":\"--odd\"}"},
        {"limit set s requests=4 window=1m", "{\"name\":\"s\",\"set\":{\"requests\":\"4\","
                                             "\"window\":\"1m\"}}"},
        {"limit set --persist s a=b=c",
         "{\"persist\":true,\"name\":\"s\",\"set\":{\"a\":\"b=c\"}}"},
        {"limit set s a=1 --persist b=", "{\"name\":\"s\",\"set\":{\"a\":\"1\",\"b\":\"\"},"
                                         "\"persist\":true}"},
        {"upstream weight u 1.2.3.4:5 7",
         "{\"upstream\":\"u\",\"server\":\"1.2.3.4:5\",\"weight\":\"7\"}"},
        {"reload --wait", "{\"wait\":true}"},
        {"limit reset s", "{\"name\":\"s\"}"},
        {"limit set s exempt=10.0.0.0/8,k", "{\"name\":\"s\",\"set\":{\"exempt\":"
                                            "\"10.0.0.0/8,k\"}}"},
        {"limit set s exempt=", "{\"name\":\"s\",\"set\":{\"exempt\":\"\"}}"},
        {"limit try s", "{\"name\":\"s\"}"},
        {"limit try s requests=4 --for 5m",
         "{\"name\":\"s\",\"set\":{\"requests\":\"4\"},\"for\":\"5m\"}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = params_of(cases[i].line);
        if (!got || strcmp(got, cases[i].params))
            fail_msg("%s: %s, not %s (%s)", cases[i].line, got ? got : "refused", cases[i].params,
                     got ? "" : why);
    }
}

static void what_is_wrong_is_told_with_what_would_be_right(void **state)
{
    (void)state;
    refused("cahce stats", "did you mean \"cache\"?");
    refused("limit lsit", "did you mean \"limit list\"?");
    refused("nothing-like-it", "there is status, cache");
    refused("limit", "there is limit list, limit show");
    refused("limit frobnicate", "there is limit list, limit show");
    refused("cache invalidate", "one of these is needed");
    refused("cache invalidate /a --all", "only one of these");
    refused("cache invalidate --sotf /a", "did you mean --soft?");
    refused("cache invalidate --al", "did you mean --all?");
    refused("cache purge /a", "did you mean \"cache invalidate\"?");
    refused("cache invalidate --zzzzzz /a", "unknown option");
    refused("cache invalidate --all=1", "takes no value");
    refused("cache invalidate --tag", "a value is missing");
    refused("cache invalidate /a /b", "too many words");
    refused("cache show", "URL");
    refused("limit set s", "KEY=VALUE");
    refused("limit set s requests", "KEY=VALUE");
    refused("limit set s =4", "KEY=VALUE");
    refused("limit set s a=1 a=2", "given twice");
    refused("reload --wait --wait", "given twice");
    refused("status now", "too many words");
}

/* ---- answers ---- */

static char *shown(enum rpc_method method, struct rpc_out *o, bool json)
{
    static char text[8192];
    msgpack_unpacked u;
    FILE *to = fmemopen(text, sizeof text, "w");
    msgpack_unpacked_init(&u);
    assert_false(o->failed);
    assert_int_equal(msgpack_unpack_next(&u, o->buffer.data, o->buffer.size, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    if (json)
        assert_true(json_print(to, &u.data));
    else
        table_print(to, method, &u.data);
    fclose(to);
    msgpack_unpacked_destroy(&u);
    rpc_out_fini(o);
    return text;
}

static void a_list_of_maps_is_a_table(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_list(&o, NULL);
    for (unsigned i = 0; i < 2; i++) {
        rpc_out_map(&o, NULL);
        rpc_out_str(&o, "upstream", "api");
        rpc_out_str(&o, "server", i ? "b" : "long-name");
        rpc_out_str(&o, "state", i ? "up" : "down");
        rpc_out_u64(&o, "since_ms", 2000);
        if (!i)
            rpc_out_str(&o, "last_error", "response timeout");
        rpc_out_u64(&o, "weight", 100 * i);
        rpc_out_map(&o, "file");
        rpc_out_u64(&o, "weight", 100);
        rpc_out_end(&o);
        rpc_out_end(&o);
    }
    rpc_out_end(&o);
    assert_string_equal(
        shown(RPC_METHOD_UPSTREAM_LIST, &o, false),
        "UPSTREAM  SERVER     STATE  SINCE         WEIGHT  REQUESTS  "
        "CONNECTS  ERRORS  LAST ERROR        MEAN\n"
        "api       long-name  down     2 s  0 (file: 100)  -         -         -       "
        "response timeout  -\n"
        "api       b          up       2 s            100  -         -         -       "
        "-                 -\n");
}

static void each_table_of_an_answer_has_a_name_and_columns_of_its_own(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_list(&o, "conditions");
    rpc_out_map(&o, NULL);
    rpc_out_str(&o, "condition", "limit_table_full");
    rpc_out_u64(&o, "since_ms", 5000);
    rpc_out_end(&o);
    rpc_out_end(&o);
    rpc_out_list(&o, "processes");
    rpc_out_map(&o, NULL);
    rpc_out_str(&o, "process", "master");
    rpc_out_u64(&o, "pid", 7);
    rpc_out_end(&o);
    rpc_out_end(&o);
    rpc_out_end(&o);
    assert_string_equal(
        shown(RPC_METHOD_STATUS, &o, false),
        "\nconditions:\nCONDITION         SINCE\nlimit_table_full    5 s\n"
        "\nprocesses:\nPROCESS  NUMBER  PID  STATE  UPTIME  CONNECTIONS  CRASHES  GENERATION\n"
        "master   -         7  -      -       -            -        -\n");
}

static void an_empty_list_says_so(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_list(&o, NULL);
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_WS_LIST, &o, false), "none\n");
}

/* A daemon of another version, or none of ours: whatever stands where a row or a map is expected. */
static void answers_of_another_shape_are_shown_as_they_are(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_list(&o, NULL);
    rpc_out_u64(&o, NULL, 7);
    rpc_out_str(&o, NULL, "x");
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_WS_LIST, &o, false), "7, x\n");
    rpc_out_init(&o);
    rpc_out_list(&o, NULL);
    rpc_out_u64(&o, NULL, 7);
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_CACHE_LIST, &o, false), "7\n");
    rpc_out_init(&o); /* of one row too many members for a table, and then one that has none */
    rpc_out_list(&o, NULL);
    rpc_out_map(&o, NULL);
    for (unsigned i = 0; i < 12; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%u", i);
        rpc_out_u64(&o, name, i);
    }
    rpc_out_end(&o);
    rpc_out_u64(&o, NULL, 7);
    rpc_out_end(&o);
    assert_non_null(strstr(shown(RPC_METHOD_CACHE_SHOW, &o, false), "n11"));
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "before", 7);
    rpc_out_map(&o, "after");
    rpc_out_u64(&o, "requests", 40);
    rpc_out_end(&o);
    rpc_out_end(&o);
    assert_non_null(strstr(shown(RPC_METHOD_LIMIT_SET, &o, false), "requests: - -> 40\n"));
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_list(&o, "after");
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "requests", 40);
    rpc_out_end(&o);
    rpc_out_end(&o);
    rpc_out_end(&o);
    assert_non_null(strstr(shown(RPC_METHOD_LIMIT_SET, &o, false), "40"));
}

static void changes_are_shown_from_old_to_new(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    for (unsigned i = 0; i < 2; i++) {
        rpc_out_map(&o, i ? "after" : "before");
        rpc_out_u64(&o, "requests", i ? 40 : 20);
        rpc_out_u64(&o, "window_ms", i ? 3600000 : 500);
        rpc_out_str(&o, "algorithm", "sliding");
        rpc_out_end(&o);
    }
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_LIMIT_SET, &o, false),
                        "requests: 20 -> 40\nwindow: 500 ms -> 1 h\n");
}

static void units_follow_the_keys(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "window_ms", 60000);
    rpc_out_u64(&o, "uptime_ms", 93784000);
    rpc_out_u64(&o, "max_bytes", 256u << 20);
    rpc_out_u64(&o, "bytes", 1000);
    rpc_out_f64(&o, "hit_rate", 0.834);
    rpc_out_f64(&o, "mean_seconds", 0.0021);
    rpc_out_bool(&o, "ready", true);
    rpc_out_u64(&o, "maxConnections", 50);
    rpc_out_u64(&o, "received", 1795453124);
    rpc_out_nil(&o, "cursor");
    rpc_out_str(&o, "message", "");
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_STATUS, &o, false),
                        "window           1 min\n"
                        "uptime           1 d 2 h\n"
                        "max bytes        256 MiB\n"
                        "bytes            1000 B\n"
                        "hit rate         83.4%\n"
                        "mean             2.1 ms\n"
                        "ready            yes\n"
                        "max connections  50\n"
                        "received         2026-11-23 16:58:44 UTC\n"
                        "message          -\n");
}

static void websockets_are_told_in_lines_and_percentiles(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "activeConnections", 3);
    rpc_out_u64(&o, "maxConnections", 50);
    rpc_out_f64(&o, "heartbeatSuccess", 0.998);
    rpc_out_u64(&o, "heartbeatsSent", 500);
    rpc_out_u64(&o, "jsonHeartbeats", 400);
    rpc_out_u64(&o, "pings", 100);
    rpc_out_u64(&o, "pongs", 99);
    rpc_out_u64(&o, "opened", 12);
    rpc_out_u64(&o, "refused", 2);
    rpc_out_u64(&o, "reaped", 1);
    rpc_out_u64(&o, "messagesIn", 7);
    rpc_out_u64(&o, "messagesOut", 8);
    rpc_out_map(&o, "connectionDuration");
    rpc_out_f64(&o, "avg", 61);
    rpc_out_f64(&o, "p50", 0.25);
    rpc_out_f64(&o, "p95", 298);
    rpc_out_f64(&o, "max", 7500);
    rpc_out_end(&o);
    rpc_out_list(&o, "durationBuckets");
    rpc_out_map(&o, NULL);
    rpc_out_f64(&o, "le", 0.01);
    rpc_out_end(&o);
    rpc_out_end(&o);
    rpc_out_u64(&o, "durationCount", 9);
    rpc_out_map(&o, "ends");
    rpc_out_u64(&o, "client-closed", 8);
    rpc_out_u64(&o, "backend-closed", 0);
    rpc_out_u64(&o, "timeout", 1);
    rpc_out_end(&o);
    rpc_out_list(&o, "routes");
    rpc_out_end(&o);
    rpc_out_end(&o);
    assert_string_equal(
        shown(RPC_METHOD_WS_STATS, &o, false),
        "open              3 of 50\n"
        "since the start   12 opened, 2 refused, 1 reaped\n"
        "messages          7 in, 8 out\n"
        "heartbeats        500 sent, 99.8% good: 400 JSON, 100 pings, 99 pongs\n"
        "lasted            p50 250 ms, p95 4 min 58 s, max 2 h 5 min, avg 1 min 1 s\n"
        "ended by          client-closed 8, timeout 1\n");
}

static void nothing_from_a_url_reaches_the_terminal_as_a_command(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_str(&o, "url", "h/\x1b]0;x\x07\xc2\x9b\x7f\xff.\xc3\xa9");
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_CACHE_SHOW, &o, false), "url  h/?]0;x????.\xc3\xa9\n");
    /* nor turns round what stands beside it, or hides; dashes and other scripts stay */
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_str(&o, "url", "\u202ea\u2066b\u200bc\ufeffd\u061ce\u2028\u2014\u05d0\u20ac");
    rpc_out_end(&o);
    assert_string_equal(shown(RPC_METHOD_CACHE_SHOW, &o, false),
                        "url  ?a?b?c?d?e?\u2014\u05d0\u20ac\n");
}

static void json_is_one_document_with_every_member(void **state)
{
    (void)state;
    struct rpc_out o;
    json_error_t e;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "n", 18446744073709551615u);
    rpc_out_f64(&o, "rate", 0.83);
    rpc_out_nil(&o, "nothing");
    rpc_out_list(&o, "list");
    rpc_out_bool(&o, NULL, false);
    rpc_out_str(&o, NULL, "\"quoted\"\n\xff");
    rpc_out_end(&o);
    rpc_out_end(&o);
    const char *text = shown(RPC_METHOD_STATUS, &o, true);
    assert_non_null(strstr(text, "\"rate\": 0.83,"));
    json_t *j = json_loads(text, 0, &e);
    assert_non_null(j);
    assert_int_equal(json_object_size(j), 4);
    assert_true(json_is_null(json_object_get(j, "nothing")));
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "list"), 1)),
                        "\"quoted\"\n?");
    json_decref(j);
}

/* ---- the call ---- */

struct fake {
    char path[64];
    pid_t pid;
};

/* A daemon that takes one connection, reads, says `bytes` and, if told so, falls silent. */
static void fake_start(struct fake *f, const char *bytes, size_t len, bool silent)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(f->path, sizeof f->path, "/tmp/polderctl-test.%d", (int)getpid());
    unlink(f->path);
    strcpy(sa.sun_path, f->path);
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(listener, 1), 0);
    if ((f->pid = fork()) == 0) {
        char sink[4096];
        const int fd = accept(listener, NULL, NULL);
        if (recv(fd, sink, sizeof sink, 0) > 0 && send(fd, bytes, len, 0) == (ssize_t)len && silent)
            recv(fd, sink, sizeof sink, 0); /* until the other side has had enough */
        _exit(0);
    }
    close(listener);
}

static void fake_stop(struct fake *f)
{
    waitpid(f->pid, NULL, 0);
    unlink(f->path);
}

static int status_of_call(const char *path, struct ctl_answer *a)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    const int status = ctl_call(path, RPC_METHOD_STATUS, &params, 300, a);
    rpc_out_fini(&params);
    return status;
}

static void the_exit_status_tells_why_there_is_no_answer(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        bool silent;
        int status;
        const char *text;
    } cases[] = {
        {"\x94\x01\x01\xc0\x2a", 5, false, CTL_DONE, ""},
        {"\x94\x01\x01\x81\xa1x\x01\xc0", 8, false, CTL_DONE, ""},
        {"\x94\x01\x01", 3, true, CTL_NO_DAEMON, "no answer in time"},
        {"\x94\x01\x01", 3, false, CTL_NO_DAEMON, "went away"},
        {"\xc1", 1, true, CTL_FAILED, "no msgpack-rpc"},
        {"\x93\x01\x01\xc0", 4, true, CTL_FAILED, "no msgpack-rpc"},
        {"\xdd\x08\x00\x00\x00", 5, true, CTL_FAILED, "no msgpack-rpc"},
    };
    struct ctl_answer a;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake f;
        fake_start(&f, cases[i].bytes, cases[i].len, cases[i].silent);
        assert_int_equal(status_of_call(f.path, &a), cases[i].status);
        assert_non_null(strstr(a.why, cases[i].text));
        ctl_answer_free(&a);
        fake_stop(&f);
    }
    assert_int_equal(status_of_call("/nonexistent/admin.sock", &a), CTL_NO_DAEMON);
    assert_non_null(strstr(a.why, "is polderd running?"));
    ctl_answer_free(&a);
}

static const char *rest_of_a_try(const char *result, size_t len, struct ctl_try *t)
{
    static char shown_as[64];
    struct ctl_answer a = {.bytes = NULL};
    msgpack_unpacked_init(&a.space);
    assert_int_equal(msgpack_unpack_next(&a.space, result, len, NULL), MSGPACK_UNPACK_SUCCESS);
    a.result = &a.space.data;
    const bool begun = try_begun(&a, t);
    snprintf(shown_as, sizeof shown_as, begun ? "%s %llu %llu" : "no", t->name,
             (unsigned long long)t->run, (unsigned long long)t->left_ms);
    ctl_answer_free(&a);
    return shown_as;
}

static void only_the_answer_that_a_try_has_begun_is_waited_for(void **state)
{
    (void)state;
    struct ctl_try t = {.socket = "/nonexistent/admin.sock"};
    struct rpc_out o;
    for (int begun = 0; begun < 2; begun++) {
        rpc_out_init(&o);
        rpc_out_map(&o, NULL);
        rpc_out_str(&o, "name", "s");
        rpc_out_u64(&o, "run", 7);
        if (begun)
            rpc_out_bool(&o, "begun", true);
        rpc_out_u64(&o, "left_ms", 3000);
        rpc_out_end(&o);
        assert_string_equal(rest_of_a_try(o.buffer.data, o.buffer.size, &t),
                            begun ? "s 7 3000" : "no");
        rpc_out_fini(&o);
    }
    assert_string_equal(rest_of_a_try("\xc0", 1, &t), "no");
}

/* ---- the table ---- */

static void every_row_of_the_table_makes_sense(void **state)
{
    (void)state;
    for (int i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        struct rpc_args args;
        char name[64];
        assert_int_equal(rpc_args_parse(m->args, &args), 0);
        snprintf(name, sizeof name, "%s%s%s", m->noun, *m->verb ? "." : "", m->verb);
        assert_int_equal(rpc_method_find(name, strlen(name)), i);
        assert_true(*m->help != 0 && m->help[strlen(m->help) - 1] != '.');
    }
}

static char *slurp(FILE *f)
{
    static char text[65536];
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void help_names_every_command(void **state)
{
    (void)state;
    FILE *f = tmpfile();
    char name[64];
    help_all(f);
    rewind(f);
    const char *text = slurp(f);
    for (int i = 0; i < RPC_METHODS; i++) {
        assert_non_null(strstr(text, command_name((enum rpc_method)i, name, sizeof name)));
        assert_non_null(strstr(text, rpc_methods[i].help));
        FILE *one = tmpfile();
        help_method(one, (enum rpc_method)i);
        assert_true(ftell(one) > 40);
        fclose(one);
    }
}

static void no_line_of_help_ends_in_a_blank(void **state)
{
    (void)state;
    for (int i = 0; i < RPC_METHODS; i++) {
        FILE *f = tmpfile();
        help_method(f, (enum rpc_method)i);
        rewind(f);
        assert_null(strstr(slurp(f), " \n"));
    }
}

static void the_manual_has_every_command_and_every_argument(void **state)
{
    (void)state;
    char name[64], line[80];
    char *text = slurp(fopen("admin/man/polderctl.1", "r"));
    for (int i = 0; i < RPC_METHODS; i++) {
        struct rpc_args args;
        snprintf(line, sizeof line, "\n.It Ic %s",
                 command_name((enum rpc_method)i, name, sizeof name));
        const char *entry = strstr(text, line);
        while (entry && !strchr(" \n", entry[strlen(line)]))
            entry = strstr(entry + 1, line);
        if (!entry)
            fail_msg("polderctl.1 does not describe \"%s\"", name);
        char heading_line[256];
        snprintf(heading_line, sizeof heading_line, "%.*s", (int)strcspn(entry + 1, "\n"),
                 entry + 1);
        rpc_args_parse(rpc_methods[i].args, &args);
        for (unsigned k = 0; k < args.n; k++)
            if (args.at[k].kind != RPC_ARG_SET && !strstr(heading_line, args.at[k].name))
                fail_msg("polderctl.1 lacks %s of \"%s\"", args.at[k].name, name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_become_parameters),
        cmocka_unit_test(what_is_wrong_is_told_with_what_would_be_right),
        cmocka_unit_test(a_list_of_maps_is_a_table),
        cmocka_unit_test(each_table_of_an_answer_has_a_name_and_columns_of_its_own),
        cmocka_unit_test(an_empty_list_says_so),
        cmocka_unit_test(answers_of_another_shape_are_shown_as_they_are),
        cmocka_unit_test(changes_are_shown_from_old_to_new),
        cmocka_unit_test(units_follow_the_keys),
        cmocka_unit_test(websockets_are_told_in_lines_and_percentiles),
        cmocka_unit_test(nothing_from_a_url_reaches_the_terminal_as_a_command),
        cmocka_unit_test(json_is_one_document_with_every_member),
        cmocka_unit_test(only_the_answer_that_a_try_has_begun_is_waited_for),
        cmocka_unit_test(the_exit_status_tells_why_there_is_no_answer),
        cmocka_unit_test(every_row_of_the_table_makes_sense),
        cmocka_unit_test(help_names_every_command),
        cmocka_unit_test(no_line_of_help_ends_in_a_blank),
        cmocka_unit_test(the_manual_has_every_command_and_every_argument),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
