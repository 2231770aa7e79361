/* SPDX-License-Identifier: BSD-2-Clause */
/* main: polderctl's options, one call, and what the exit status says. */
#include "admin/polderctl.h"
#include "admin/verify/verify.h"
#include "polder/config.h"
#include "polder/rpc_in.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKET_DEFAULT        "/run/polder/admin.sock"
#define TIMEOUT_MS            10000
#define TIMEOUT_RELOAD_MS     100000 /* new workers have half a minute to get ready */
#define TIMEOUT_WS_UPGRADE_MS 12000
#define TIMEOUT_UPGRADE_MS    150000 /* each of its steps is bounded */
#define TIMEOUT_WARM_MS       70000  /* a worker answers within a minute */

struct options {
    const char *socket;
    const char *completion; /* a shell */
    uint64_t timeout_ms;    /* 0: as the method has it */
    bool json, help, version;
    char **words;
    int n;
    char wrong[256];
};

static int usage(const char *why)
{
    fprintf(stderr, "polderctl: %s\n", why);
    return CTL_USAGE;
}

/* An option that takes a value, as "-s X", "--socket X" or "--socket=X"; *i moves on. */
static bool takes(char **argv, int *i, const char *brief, const char *full, const char **value)
{
    const size_t n = strlen(full);
    if (!strncmp(argv[*i], full, n) && argv[*i][n] == '=') {
        *value = argv[*i] + n + 1;
        return true;
    }
    if (strcmp(argv[*i], brief) && strcmp(argv[*i], full))
        return false;
    *value = argv[*i + 1] ? argv[++*i] : "";
    return true;
}

/* -s and --timeout stand before the command; --json and --help anywhere before "--". */
static const char *read_options(char **argv, struct options *o)
{
    const char *value;
    bool literal = false;
    for (int i = 1; argv[i]; i++) {
        if (literal)
            o->words[o->n++] = argv[i];
        else if (!strcmp(argv[i], "--json"))
            o->json = true;
        else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            o->help = true;
        else if (o->n == 0 && (!strcmp(argv[i], "-V") || !strcmp(argv[i], "--version")))
            o->version = true;
        else if (o->n == 0 && takes(argv, &i, "--completion", "--completion", &value))
            o->completion = value;
        else if (o->n == 0 && takes(argv, &i, "-s", "--socket", &value))
            o->socket = value;
        else if (o->n == 0 && takes(argv, &i, "-t", "--timeout", &value)) {
            if (config_parse_duration(value, &o->timeout_ms) || o->timeout_ms == 0)
                return "--timeout takes a duration such as 10s or 500ms";
        } else if (o->n == 0 && argv[i][0] == '-' && argv[i][1]) {
            snprintf(o->wrong, sizeof o->wrong,
                     "unknown option \"%.100s\"; -s SOCKET, --timeout T, --json, --help and "
                     "--version stand before the command",
                     argv[i]);
            return o->wrong;
        } else {
            literal = !strcmp(argv[i], "--");
            o->words[o->n++] = argv[i];
        }
    }
    if (!o->socket || !*o->socket)
        return "-s takes the path of the admin socket";
    return NULL;
}

static int show(const struct options *o, enum rpc_method method, const struct ctl_answer *answer)
{
    if (answer->error->type != MSGPACK_OBJECT_NIL)
        return ctl_show_error(answer);
    if (!o->json)
        table_print(stdout, method, answer->result);
    else if (!json_print(stdout, answer->result))
        return CTL_FAILED;
    if (fflush(stdout) || ferror(stdout)) {
        perror("polderctl: cannot write the answer");
        return CTL_FAILED;
    }
    return CTL_DONE;
}

static unsigned timeout_of(const struct options *o, enum rpc_method method)
{
    if (o->timeout_ms)
        return o->timeout_ms < 86400000 ? (unsigned)o->timeout_ms : 86400000;
    return method == RPC_METHOD_RELOAD       ? TIMEOUT_RELOAD_MS
           : method == RPC_METHOD_UPGRADE    ? TIMEOUT_UPGRADE_MS
           : method == RPC_METHOD_WS_UPGRADE ? TIMEOUT_WS_UPGRADE_MS
           : method == RPC_METHOD_CACHE_WARM ? TIMEOUT_WARM_MS
                                             : TIMEOUT_MS;
}

/* cache warm has done its part, but a script wants to know. */
static bool some_are_cold(const msgpack_object *result)
{
    uint64_t n = 0;
    return rpc_in_u64(result, "not_stored", UINT64_MAX, &n) == 0 && n > 0;
}

/* The answer that a try has begun becomes the report of its end. */
static int follow_try(const struct options *o, struct ctl_answer *answer)
{
    struct ctl_try t = {.socket = o->socket};
    if (answer->error->type != MSGPACK_OBJECT_NIL || !try_begun(answer, &t))
        return CTL_DONE;
    if (!o->json)
        fprintf(stderr,
                "counting for %.4gs; Ctrl-C leaves it running, and \"limit try %s\" reports\n",
                (double)t.left_ms / 1000, t.name);
    ctl_answer_free(answer);
    return try_report(&t, timeout_of(o, RPC_METHOD_LIMIT_TRY), answer);
}

static bool has_word(const struct options *o, int used, const char *word)
{
    for (int i = used; i < o->n; i++)
        if (!strcmp(o->words[i], word))
            return true;
    return false;
}

/* The answer that an upgrade has begun, also to a reload, becomes that of its end. */
static int follow_upgrade(const struct options *o, enum rpc_method *method, int used,
                          struct ctl_answer *answer)
{
    uint64_t number;
    if (!upgrade_begun(answer, &number) || has_word(o, used, "--no-wait"))
        return CTL_DONE;
    *method = RPC_METHOD_UPGRADE;
    ctl_answer_free(answer);
    return upgrade_follow(o->socket, number, timeout_of(o, *method), answer);
}

static int show_upgrade(const struct options *o, const struct ctl_answer *answer)
{
    char message[1200];
    const int status = o->json || !upgrade_failed(answer) ? show(o, RPC_METHOD_UPGRADE, answer) : 0;
    if (!upgrade_failed(answer))
        return status;
    if (rpc_in_text(answer->result, "message", message, sizeof message) < 0)
        strcpy(message, "see the log");
    fprintf(stderr, "polderctl: the upgrade has failed: %s\n", message);
    return CTL_FAILED;
}

/* Both daemons in one object; what has failed is also told as without --json. */
static int show_upgrades(int status, const struct ctl_answer *answer,
                         const struct ws_upgrade *websockets)
{
    const struct options plain = {.json = false};
    if (!upgrade_print_json(stdout, status, answer, websockets))
        return CTL_FAILED;
    if (websockets->result == WS_UPGRADE_FAILED)
        fprintf(stderr, "polderctl: the upgrade of polder-supervisor has failed: %s\n",
                websockets->why);
    if (status)
        fprintf(stderr, "polderctl: %s\n", answer->why);
    else if (answer->error->type != MSGPACK_OBJECT_NIL || upgrade_failed(answer))
        status = upgrade_failed(answer) ? show_upgrade(&plain, answer) : ctl_show_error(answer);
    return status;
}

static int run_upgrade(const struct options *o, int used, const struct rpc_out *params)
{
    struct ws_upgrade websockets;
    struct ctl_answer answer;
    enum rpc_method method = RPC_METHOD_UPGRADE;
    ws_upgrade(o->socket, !has_word(o, used, "--no-wait"), &websockets);
    if (!o->json)
        ws_upgrade_show(&websockets);
    const unsigned begin_ms = o->timeout_ms ? timeout_of(o, method) : TIMEOUT_MS;
    int status = ctl_call(o->socket, method, params, begin_ms, &answer);
    if (!status)
        status = follow_upgrade(o, &method, used, &answer);
    if (o->json)
        status = show_upgrades(status, &answer, &websockets);
    else if (status)
        fprintf(stderr, "polderctl: %s\n", answer.why);
    else
        status = show_upgrade(o, &answer);
    ctl_answer_free(&answer);
    return status == CTL_DONE && websockets.result == WS_UPGRADE_FAILED ? CTL_FAILED : status;
}

static int call(const struct options *o, enum rpc_method method, int used)
{
    char why[COMMAND_WHY];
    struct rpc_out params;
    struct ctl_answer answer;
    struct ctl_smoke smoke = {.n = 0};
    int n = o->n - used;
    if (method == RPC_METHOD_UPSTREAM_SHIFT && !smoke_take(o->words + used, &n, &smoke))
        return usage("--smoke takes a URL or a path, at most 16 times");
    if (!command_params(method, o->words + used, n, &params, why)) {
        rpc_out_fini(&params);
        return usage(why);
    }
    if (method == RPC_METHOD_VERIFY) { /* the probes are ours */
        const int code = verify_run(o->socket, timeout_of(o, method), o->json, &params);
        rpc_out_fini(&params);
        return code;
    }
    if (!smoke_passes(&smoke, &params)) {
        rpc_out_fini(&params);
        return CTL_FAILED;
    }
    if (method == RPC_METHOD_UPGRADE && !has_word(o, used, "--state")) {
        const int code = run_upgrade(o, used, &params);
        rpc_out_fini(&params);
        return code;
    }
    int status = ctl_call(o->socket, method, &params, timeout_of(o, method), &answer);
    if (!status && method == RPC_METHOD_LIMIT_TRY)
        status = follow_try(o, &answer);
    if (!status && method == RPC_METHOD_RELOAD)
        status = follow_upgrade(o, &method, used, &answer);
    if (status)
        fprintf(stderr, "polderctl: %s\n", answer.why);
    else if (method == RPC_METHOD_UPGRADE && !has_word(o, used, "--state"))
        status = show_upgrade(o, &answer);
    else
        status = show(o, method, &answer);
    if (status == CTL_DONE && method == RPC_METHOD_CACHE_WARM && some_are_cold(answer.result))
        status = CTL_FAILED;
    ctl_answer_free(&answer);
    rpc_out_fini(&params);
    return status;
}

/* More than a call and its answer. */
static int (*const runs_itself[RPC_METHODS])(const struct ctl_run *run) = {
    [RPC_METHOD_TOP] = top_run,
    [RPC_METHOD_WATCH] = watch_run,
};

static int run_method(const struct options *o, enum rpc_method method, int used)
{
    const struct ctl_run r = {.socket = o->socket,
                              .timeout_ms = timeout_of(o, method),
                              .json = o->json,
                              .words = o->words + used,
                              .n = o->n - used};
    return runs_itself[method] ? runs_itself[method](&r) : call(o, method, used);
}

/* As a word, where other programs have it so. */
static bool is_alone(const struct options *o, const char *word)
{
    return o->n == 1 && !strcmp(o->words[0], word);
}

static int run(const struct options *o)
{
    char why[COMMAND_WHY];
    int used = 0;
    if (is_alone(o, "help")) {
        help_all(stdout);
        return CTL_DONE;
    }
    if (is_alone(o, "version")) {
        puts("polderctl " POLDER_VERSION);
        return CTL_DONE;
    }
    if (o->n == 0) {
        help_all(o->help ? stdout : stderr);
        return o->help ? CTL_DONE : CTL_USAGE;
    }
    const int method = command_find(o->words, o->n, &used, why);
    if (method >= 0 && !o->help)
        return run_method(o, (enum rpc_method)method, used);
    if (method >= 0)
        help_method(stdout, (enum rpc_method)method);
    else if (o->help && o->n == 1 && command_is_noun(o->words[0]))
        help_noun(stdout, o->words[0]);
    else
        return usage(why);
    return CTL_DONE;
}

/* Where the caller has closed one of the three, a socket would take its place, and what is printed
 * would be sent. */
static void open_standard_files(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = dup(fd);
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv)
{
    open_standard_files();
    struct options o = {.socket = getenv("POLDER_SOCKET")};
    if (!o.socket || !*o.socket)
        o.socket = SOCKET_DEFAULT;
    o.words = calloc((size_t)argc + 1, sizeof *o.words);
    if (!o.words)
        return CTL_FAILED;
    const char *why = read_options(argv, &o);
    int status = CTL_DONE;
    if (why)
        status = usage(why);
    else if (o.version)
        puts("polderctl " POLDER_VERSION);
    else if (o.completion)
        status = completion_print(stdout, o.completion);
    else
        status = run(&o);
    free(o.words);
    return status;
}
