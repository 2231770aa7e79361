/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of a thousand deaths: whoever is killed, at whatever instruction, no reader gets a
 * wrong byte, and what was stored before is a hit right after. */
#include "tests/chaos/chaos.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS  4
#define EACH_MS  50   /* on average */
#define PAUSE_MS 200  /* of who is stopped for a while */
#define ALONE_MS 1200 /* between deaths that are looked at one by one */

struct scene {
    struct board *b;
    struct backend *backend;
    struct house h;
    struct readers readers;
    pid_t writer;
    unsigned keepers, workers, controls, stops;
    pid_t stopped;
    uint64_t resume_ms;
};

static void scene_open(struct scene *s, struct writer_plan plan)
{
    memset(s, 0, sizeof *s);
    srand(4711);
    s->b = board_open();
    s->backend = backend_start(board_answers, s->b);
    house_start(&s->h, WORKERS, board_routes, "256M", backend_port(s->backend));
    atomic_store(&s->b->delay_us, 2000);
    s->b->began_ms = mono_ms();
    readers_start(&s->readers, s->b, s->h.port, 16);
    s->writer = writer_start(s->b, s->h.sock, s->h.port, plan);
}

/* What is left is what there was: nobody too many, nobody too few, no file that grows. */
static void scene_close(struct scene *s, const char *story)
{
    pid_t child[64];
    readers_join(&s->readers, s->b);
    waitpid(s->writer, NULL, 0);
    wait_until(house_ready(&s->h), 10000);
    wait_until(house_children(&s->h, "polderd: worker", child, 64) == WORKERS, 5000);
    wait_until(house_children(&s->h, "", child, 64) <= WORKERS + 3, 5000);
    board_judge(s->b, story);
    printf(
        "chaos: %s: items %llu, bad records %llu, ring full %llu, rotations %llu, store %lu MiB\n",
        story, stat_of(&s->h, "items"), stat_of(&s->h, "bad_records"), stat_of(&s->h, "ring_full"),
        stat_of(&s->h, "rotations"), store_kib(&s->h) / 1024);
    fflush(stdout);
    assert_int_equal(stat_of(&s->h, "ready"), 1);
    assert_int_equal(stat_of(&s->h, "bad_records"), 0);
    assert_int_equal(stat_of(&s->h, "rotations"), 0);
    assert_in_range(stat_of(&s->h, "items"), 1, 4 * RESOURCES * 2);
    assert_true(store_kib(&s->h) <= 384 * 1024);
    const size_t n = house_children(&s->h, "polderd: ", child, 64);
    for (size_t i = 0; i < n; i++) {
        const long kib = resident_kib(child[i]);
        if (!harness_sanitized() && kib > 300 * 1024)
            fail_msg("process %d has %ld KiB", (int)child[i], kib);
    }
    house_remove(&s->h);
    backend_stop(s->backend);
    board_close(s->b);
}

/* ---- killing ---- */

static void resume(struct scene *s)
{
    if (s->stopped)
        kill(s->stopped, SIGCONT);
    s->stopped = 0;
}

static void kill_one(struct scene *s, const char *title, unsigned *count)
{
    const pid_t pid = victim_of(&s->h, title);
    if (pid && kill(pid, SIGKILL) == 0)
        (*count)++;
}

static void strike(struct scene *s)
{
    const unsigned way = (unsigned)rand() % 100;
    if (s->stopped && mono_ms() >= s->resume_ms)
        resume(s);
    if (way < 45) {
        kill_one(s, "polderd: keeper", &s->keepers);
    } else if (way < 85) {
        kill_one(s, "polderd: worker", &s->workers);
    } else if (way < 93) { /* both at once */
        kill_one(s, "polderd: worker", &s->workers);
        kill_one(s, "polderd: keeper", &s->keepers);
    } else if (way < 96) {
        kill_one(s, "polderd: control", &s->controls);
    } else if (!s->stopped) {
        s->stopped = victim_of(&s->h, way < 98 ? "polderd: keeper" : "polderd: worker");
        if (s->stopped && kill(s->stopped, SIGSTOP) == 0)
            s->stops++;
        s->resume_ms = mono_ms() + PAUSE_MS;
    }
}

static unsigned deaths(const struct scene *s)
{
    return s->keepers + s->workers + s->controls;
}

static void let_time_pass(unsigned ms)
{
    for (const uint64_t end = mono_ms() + ms; mono_ms() < end;)
        nap_ms(5);
}

/* ---- stories ---- */

static void a_thousand_deaths_cost_no_wrong_byte(void **state)
{
    (void)state;
    const unsigned wanted = chaos_count("CHAOS_KILLS", 1000, 60);
    struct scene s;
    scene_open(&s, (struct writer_plan){.per_second = 50, .tolerant = true});
    let_time_pass(2000);
    const uint64_t calm_ms = mono_ms();
    while (deaths(&s) < wanted) {
        strike(&s);
        let_time_pass((unsigned)rand() % (2 * EACH_MS)); /* some are hardly born */
    }
    resume(&s);
    const uint64_t over_ms = mono_ms();
    const double seconds = (double)(over_ms - calm_ms) / 1000;
    let_time_pass(2000);
    printf("chaos: deaths: %u keepers, %u workers, %u controls killed in %.0f s, %u stopped for "
           "%d ms; hits before %.1f %%, meanwhile %.1f %%, in the second after %.1f %%\n",
           s.keepers, s.workers, s.controls, seconds, s.stops, PAUSE_MS,
           board_hit_rate(s.b, calm_ms - 1000, calm_ms), board_hit_rate(s.b, calm_ms, over_ms),
           board_hit_rate(s.b, over_ms, over_ms + 1000));
    scene_close(&s, "deaths");
}

/* One at a time, with time to look at what follows. */
static void hits_go_on_at_once_after_a_death(void **state)
{
    (void)state;
    static const char *const titles[] = {"polderd: keeper", "polderd: worker"};
    const unsigned rounds = chaos_count("CHAOS_ROUNDS", 30, 2);
    struct scene s;
    scene_open(&s, (struct writer_plan){.per_second = 5, .tolerant = true, .gentle = true});
    let_time_pass(3000);
    for (unsigned kind = 0; kind < 2; kind++) {
        double before = 0, tenth = 0, second = 0, worst = 100;
        for (unsigned i = 0; i < rounds; i++) {
            const uint64_t at = mono_ms();
            kill_one(&s, titles[kind], kind ? &s.workers : &s.keepers);
            let_time_pass(ALONE_MS);
            const double after = board_hit_rate(s.b, at, at + 1000);
            before += board_hit_rate(s.b, at - 500, at) / rounds;
            tenth += board_hit_rate(s.b, at, at + 100) / rounds;
            second += after / rounds;
            worst = after < worst ? after : worst;
        }
        printf("chaos: after a death: %s killed %u times: hits before %.1f %%, in the 100 ms after "
               "%.1f %%, in the second after %.1f %%, worst second %.1f %%\n",
               titles[kind], rounds, before, tenth, second, worst);
        assert_true(second > before * 0.95);
        assert_true(worst > before * 0.85);
    }
    scene_close(&s, "after a death");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_deaths_cost_no_wrong_byte),
        cmocka_unit_test(hits_go_on_at_once_after_a_death),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
