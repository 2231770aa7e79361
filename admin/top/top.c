/* SPDX-License-Identifier: BSD-2-Clause */
/* top: see top.h. */
#include "admin/top/top.h"
#include "admin/tables/tables.h"
#include "polder/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EVERY_MS 2000
#define FIRST_MS 1000 /* until there are two answers, for rates */

struct top {
    const struct ctl_run *run;
    struct ctl_answer answer[2]; /* the last one and the one before */
    bool has[2];
    unsigned last;
    bool utf8;
};

static int ask(struct top *t)
{
    struct rpc_out params;
    struct ctl_answer answer;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    const int status =
        ctl_call(t->run->socket, RPC_METHOD_TOP, &params, t->run->timeout_ms, &answer);
    rpc_out_fini(&params);
    if (status || answer.error->type != MSGPACK_OBJECT_NIL) {
        snprintf(t->answer[t->last].why, sizeof t->answer[t->last].why, "%s",
                 status ? answer.why : "the daemon cannot answer");
        ctl_answer_free(&answer);
        return status ? status : CTL_FAILED;
    }
    t->last = !t->last;
    if (t->has[t->last])
        ctl_answer_free(&t->answer[t->last]);
    t->answer[t->last] = answer;
    t->has[t->last] = true;
    return CTL_DONE;
}

static void put_frame(const struct top *t, FILE *to)
{
    const unsigned before = !t->last;
    frame_print(to, t->answer[t->last].result, t->has[before] ? t->answer[before].result : NULL,
                t->utf8);
}

static void pause_ms(long ms)
{
    const struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

/* ---- where there is no terminal ---- */

static int print_once(struct top *t)
{
    int status = ask(t);
    if (!status && !t->run->json) {
        pause_ms(FIRST_MS);
        status = ask(t);
    }
    if (status)
        fprintf(stderr, "polderctl: %s\n", t->answer[t->last].why);
    else if (t->run->json)
        status = json_print(stdout, t->answer[t->last].result) ? CTL_DONE : CTL_FAILED;
    else
        put_frame(t, stdout);
    return status || fflush(stdout) ? (status ? status : CTL_FAILED) : CTL_DONE;
}

/* ---- on a terminal ---- */

static void draw(const struct top *t, struct screen *s, int status)
{
    char *text = NULL, footer[600], at[16] = "";
    size_t size = 0;
    const time_t now = time(NULL);
    struct tm tm;
    FILE *to = open_memstream(&text, &size);
    if (!to)
        return;
    if (t->has[t->last])
        put_frame(t, to);
    fclose(to);
    if (localtime_r(&now, &tm))
        strftime(at, sizeof at, "%H:%M:%S", &tm);
    snprintf(footer, sizeof footer, "%s  q quits%s%s", at, status ? "  NO ANSWER: " : "",
             status ? t->answer[t->last].why : "");
    screen_draw(s, text, footer);
    free(text);
}

static int show(struct top *t, struct screen *s)
{
    unsigned wait_ms = FIRST_MS;
    uint64_t next_ms = 0;
    int status = CTL_DONE;
    for (;;) {
        const uint64_t now_ms = clock_mono_ms();
        if (now_ms >= next_ms) {
            status = ask(t);
            next_ms = now_ms + wait_ms;
            wait_ms = EVERY_MS;
        }
        draw(t, s, status);
        enum screen_key key = SCREEN_NONE;
        for (uint64_t at; key == SCREEN_NONE && (at = clock_mono_ms()) < next_ms;)
            key = screen_wait(s, (unsigned)(next_ms - at));
        if (key == SCREEN_QUIT)
            return CTL_DONE;
    }
}

static int run_screen(struct top *t)
{
    struct screen s;
    int status = ask(t);
    if (status) { /* before the terminal is taken */
        fprintf(stderr, "polderctl: %s\n", t->answer[t->last].why);
        return status;
    }
    if (!screen_open(&s))
        return print_once(t);
    status = show(t, &s);
    screen_close();
    return status;
}

int top_run(const struct ctl_run *run)
{
    struct top t = {.run = run, .utf8 = table_utf8()};
    const int status = run->n      ? (fputs("polderctl: top takes no words\n", stderr), CTL_USAGE)
                       : run->json ? print_once(&t)
                                   : run_screen(&t);
    for (size_t i = 0; i < 2; i++)
        if (t.has[i])
            ctl_answer_free(&t.answer[i]);
    return status;
}
