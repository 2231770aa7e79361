/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The process that works on WebSockets is killed again and again while they are busy: none notices.
 * $CHAOS_KILLS (1000 at full length, 30 else), $CHAOS_TALKERS.
 */
#include "tests/chaos/chaos.h"
#include "tests/chaos/talk.h"
#include "ws_client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool at_length(void)
{
    return getenv("POLDER_LONG") != NULL;
}

struct rig {
    struct house h;
    pid_t server, supervisor;
    char die[160]; /* a file: while it is there it dies */
};

static void rig_start(struct rig *r, const char *program, const char *die)
{
    char path[256];
    const unsigned port = free_port();
    r->server = talk_server(port);
    char routes[512];
    snprintf(routes, sizeof routes,
             "websocket { max_connections = 5000 max_per_client = 5000 connect_rate = 100000\n"
             "heartbeat = ping interval = 1s timeout = 60s }\n"
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "route \"/*\" { upstream = \"u\" websocket { } }\n",
             port);
    house_start(&r->h, 2, "%s", routes);
    house_stop(&r->h); /* with the supervisor that it has started */
    snprintf(r->die, sizeof r->die, "%s/die", r->h.dir);
    r->supervisor = fork();
    if (r->supervisor == 0) {
        const int log = open(r->h.log, O_WRONLY | O_APPEND);
        dup2(log, STDERR_FILENO);
        if (die) {
            setenv("POLDER_DIE", die, 1);
            setenv("POLDER_DIE_WHEN", r->die, 1);
        }
        execl(built(program), program, "-c", r->h.conf, (char *)NULL);
        _exit(127);
    }
    snprintf(path, sizeof path, "%s/run/supervisor-rpc.sock", r->h.dir);
    wait_until(access(path, F_OK) == 0, 10000);
    house_run(&r->h);
}

static void rig_stop(struct rig *r)
{
    int status;
    kill(r->supervisor, SIGTERM);
    waitpid(r->supervisor, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    kill(r->server, SIGKILL);
    waitpid(r->server, NULL, 0);
    house_remove(&r->h);
}

/* ---- what the log says ---- */

struct story {
    unsigned deaths, taken_up, closed, ended;
    unsigned long kept, writes, reads, ms, most_ms;
    unsigned place[32];
};
static const char *const places[] = {"BEFORE_READ",  "AFTER_READ", "BEFORE_COMMIT",
                                     "AFTER_COMMIT", "AFTER_SEND", "BEFORE_SECOND_COMMIT",
                                     "BEFORE_DROP",  "AFTER_TURN", "OPENING",
                                     "GOING",        "GONE",       "RECOVERING",
                                     "RECOVERED",    "RESUMED"};
#define PLACES (sizeof places / sizeof *places)

static void read_line(struct story *s, const char *line)
{
    unsigned ms, kept, writes, reads, closed, ended;
    const char *at = strstr(line, "custodian: taken up ");
    s->deaths +=
        strstr(line, "custodian: the process of the WebSockets[") && strstr(line, "] died: ");
    if (!strncmp(line, "die: ", 5))
        for (unsigned i = 0; i < PLACES; i++)
            s->place[i] += !strncmp(line + 5, places[i], strlen(places[i])) &&
                           line[5 + strlen(places[i])] == '\n';
    if (!at || sscanf(at,
                      "custodian: taken up %u ms after the last one's death: %u WebSockets go on "
                      "(%u with bytes to write, %u with bytes just read), %u were closed",
                      &ms, &kept, &writes, &reads, &closed) != 5)
        return;
    s->taken_up++;
    s->kept += kept;
    s->writes += writes;
    s->reads += reads;
    s->closed += closed;
    s->ms += ms;
    s->most_ms = ms > s->most_ms ? ms : s->most_ms;
    at = strstr(at, " had ended");
    while (at && at[-1] != ' ')
        at--;
    if (at && sscanf(at, "%u", &ended) == 1)
        s->ended += ended;
}

static void read_log(const struct rig *r, struct story *s)
{
    char line[1024];
    FILE *f = fopen(r->h.log, "r");
    *s = (struct story){0};
    while (f && fgets(line, sizeof line, f))
        read_line(s, line);
    if (f)
        fclose(f);
}

static void tell(const char *what, const struct story *s, const struct talk_count *c)
{
    printf("%s: %u deaths, %u times taken up, %lu WebSockets in all; %lu in the middle of a write, "
           "%lu of a read; %.1f ms, at most %lu; %llu messages, %.1f MB came back; "
           "%llu wrong, %llu connections lost, %u closed\n",
           what, s->deaths, s->taken_up, s->kept, s->writes, s->reads,
           s->taken_up ? (double)s->ms / s->taken_up : 0, s->most_ms,
           (unsigned long long)c->messages, (double)c->bytes / 1e6, (unsigned long long)c->wrong,
           (unsigned long long)c->lost, s->closed);
}

static void expect_nothing_lost(const struct talk_count *c)
{
    if (c->wrong || c->lost)
        fail_msg("%llu frames wrong, %llu connections lost; %s", (unsigned long long)c->wrong,
                 (unsigned long long)c->lost, c->what);
}

/* ---- killed from outside, at any instant ---- */

static void kill_9_at_any_instant(void **state)
{
    (void)state;
    struct rig r;
    struct story s;
    struct talk_count count;
    const unsigned kills = chaos_count("CHAOS_KILLS", 1000, 30),
                   talkers = chaos_count("CHAOS_TALKERS", 60, 20);
    rig_start(&r, "polder-supervisor", NULL);
    struct talk *t = talk_open(r.h.port, "/x", talkers, 1);
    pid_t last = 0;
    for (unsigned i = 0; i < kills; i++) {
        pid_t pid = 0;
        const uint64_t end = mono_ms() + harness_patience(20000);
        talk_step(t, 1 + rand() % 25);
        while ((!(pid = working_process(r.supervisor)) || pid == last) && mono_ms() < end)
            talk_step(t, 1);
        assert_true(pid > 0 && pid != last);
        last = pid;
        kill(pid, SIGKILL);
    }
    talk_end(t, &count);
    read_log(&r, &s);
    tell("kill -9", &s, &count);
    expect_nothing_lost(&count);
    assert_int_equal(s.closed + s.ended, 0);
    assert_int_equal(s.deaths, kills);
    rig_stop(&r);
}

/* ---- killed, upgraded, stopped for a moment, told to read its file ---- */

static void disturb(const struct rig *r, struct talk *t)
{
    const pid_t working = working_process(r->supervisor),
                which = rand() % 2 ? working : r->supervisor;
    switch (rand() % 5) {
    case 0:
    case 1:
        kill(working > 0 ? working : r->supervisor, working > 0 ? SIGKILL : SIGHUP);
        break;
    case 2:
        kill(r->supervisor, SIGUSR2);
        break;
    case 3:
        kill(r->supervisor, SIGHUP);
        break;
    default:
        if (which <= 0)
            return;
        kill(which, SIGSTOP);
        talk_step(t, rand() % 40);
        kill(which, SIGCONT);
        break;
    }
}

static void all_at_once(void **state)
{
    (void)state;
    struct rig r;
    struct story s;
    struct talk_count count;
    const unsigned times = chaos_count("CHAOS_KILLS", 1000, 40),
                   talkers = chaos_count("CHAOS_TALKERS", 40, 15);
    rig_start(&r, "polder-supervisor", NULL);
    struct talk *t = talk_open(r.h.port, "/x", talkers, 5);
    for (unsigned i = 0; i < times; i++) {
        disturb(&r, t);
        talk_step(t, 1 + rand() % 100);
    }
    talk_end(t, &count);
    read_log(&r, &s);
    tell("all at once", &s, &count);
    expect_nothing_lost(&count);
    assert_int_equal(s.closed + s.ended, 0);
    assert_true(s.deaths > 0);
    rig_stop(&r);
}

/* ---- one that hangs ---- */

static void one_that_hangs_is_replaced(void **state)
{
    (void)state;
    struct rig r;
    struct story s;
    struct talk_count count;
    rig_start(&r, "polder-supervisor", NULL);
    struct talk *t = talk_open(r.h.port, "/x", 10, 3);
    talk_step(t, 20);
    const pid_t pid = working_process(r.supervisor);
    const uint64_t end = mono_ms() + harness_patience(20000);
    kill(pid, SIGSTOP);
    do {
        talk_step(t, 50);
        read_log(&r, &s);
    } while (!s.taken_up && mono_ms() < end);
    talk_end(t, &count);
    expect_nothing_lost(&count);
    assert_int_equal(s.deaths, 1);
    assert_true(house_logged(&r.h, "after its heartbeat stopped"));
    rig_stop(&r);
}

/* ---- one that never becomes ready ---- */

enum { AT_RECOVERING = 11, AT_RESUMED = 13 };

/* Until another one has taken up what there is. */
static void expect_taken_up(struct rig *r, struct talk *t)
{
    struct story s;
    const unsigned before = (read_log(r, &s), s.taken_up);
    const uint64_t end = mono_ms() + harness_patience(20000);
    while (s.taken_up == before && mono_ms() < end) {
        talk_step(t, 20);
        if (house_logged(&r->h, "die: "))
            unlink(r->die);
        read_log(r, &s);
    }
    assert_int_equal(s.taken_up, before + 1);
}

/* how: it stands still, or ends; number: for that it tries. */
static void never_ready(const char *how, int place, int number)
{
    struct rig r;
    struct talk_count count;
    char at[8];
    snprintf(at, sizeof at, "%d", place);
    setenv("POLDER_DIE_HOW", how, 1);
    setenv("POLDER_DIE_AT", at, 1);
    rig_start(&r, "polder-supervisor-dying", "0"); /* always */
    unsetenv("POLDER_DIE_HOW");
    unsetenv("POLDER_DIE_AT");
    struct talk *t = talk_open(r.h.port, "/x", 10, 4);
    talk_step(t, 20);
    close(open(r.die, O_CREAT | O_WRONLY, 0600));
    kill(number == SIGKILL ? working_process(r.supervisor) : r.supervisor, number);
    expect_taken_up(&r, t);
    talk_end(t, &count);
    expect_nothing_lost(&count);
    rig_stop(&r);
}

static void a_successor_that_hangs_is_replaced(void **state)
{
    (void)state;
    never_ready("stop", AT_RECOVERING, SIGKILL);
}

static void a_new_program_that_fails_is_replaced_by_the_old_one(void **state)
{
    (void)state;
    never_ready("exit", AT_RESUMED, SIGUSR2);
    never_ready("stop", AT_RESUMED, SIGUSR2);
}

/* ---- at each place that counts ---- */

static void death_at_each_step(void **state)
{
    (void)state;
    struct rig r;
    struct story s = {0};
    struct talk_count count;
    const unsigned deaths = chaos_count("CHAOS_KILLS", 1000, 40);
    rig_start(&r, "polder-supervisor-dying", at_length() ? "300" : "200");
    struct talk *t = talk_open(r.h.port, "/x", 20, 2);
    close(open(r.die, O_CREAT | O_WRONLY, 0600));
    const uint64_t end = mono_ms() + harness_patience(at_length() ? 600000 : 30000);
    while (s.deaths < deaths && mono_ms() < end) {
        for (int i = 0; i < 4; i++) { /* others come and go */
            const int fd = ask_only(r.h.port, "/x", "");
            talk_step(t, 25);
            close(fd);
        }
        read_log(&r, &s);
    }
    unlink(r.die);
    talk_end(t, &count);
    read_log(&r, &s);
    tell("death at a step", &s, &count);
    for (unsigned i = 0; i < PLACES; i++)
        printf("  %-22s %u\n", places[i], s.place[i]);
    expect_nothing_lost(&count);
    assert_int_equal(s.closed, 0);
    assert_true(s.deaths >= deaths);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(kill_9_at_any_instant),
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(one_that_hangs_is_replaced),
        cmocka_unit_test(a_successor_that_hangs_is_replaced),
        cmocka_unit_test(a_new_program_that_fails_is_replaced_by_the_old_one),
        cmocka_unit_test(death_at_each_step),
    };
    if (getenv("CHAOS_ONLY"))
        cmocka_set_test_filter(getenv("CHAOS_ONLY"));
    return cmocka_run_group_tests(stories, NULL, NULL);
}
