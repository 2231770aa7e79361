/* SPDX-License-Identifier: BSD-2-Clause */
/* No more slots are in use than a host holds, whoever changes what it holds meanwhile; and the scripts
 * of the store give out no more than the limit, as a real Redis runs them. */
#include "daemons/control/model/fleet_scripts_slots.h"
#include "polder/fleet_slots.h"
#include "redis.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "limit_rig.h"

static struct fleet_slots *slots;

static int set_up(void **state)
{
    (void)state;
    const size_t size = limit_table_size(1000);
    table = shared_memory(size);
    limit_table_init(table, 1000);
    proc = shared_memory(sizeof *proc);
    slots = mmap(NULL, sizeof *slots, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return slots == MAP_FAILED;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(proc, sizeof *proc);
    munmap(table, limit_table_size(1000));
    return munmap(slots, sizeof *slots);
}

static struct fleet_slot_key key_of(uint64_t n)
{
    return (struct fleet_slot_key){{n, ~n}};
}

static bool enters(const struct limit_caller *c, struct fleet_slot *s, uint32_t max)
{
    return limit_enter_held(c, atomic_load(&s->id), max, &s->id, &s->word);
}

/* ---- requests ---- */

static void as_many_requests_enter_as_are_held(void **state)
{
    (void)state;
    const struct limit_caller a = process_born(0), b = process_born(1), control = process_born(2);
    const struct fleet_slot_key key = key_of(77);
    struct fleet_slot *s = fleet_slot_claim(&a, slots, &key, 1, 10);
    assert_ptr_equal(fleet_slot_claim(&b, slots, &key, 1, 10), s);
    assert_ptr_equal(fleet_slot_find(slots, FLEET_SLOT_REQUEST, &key), s);
    assert_null(fleet_slot_find(slots, FLEET_SLOT_WEBSOCKET, &key));
    const uint32_t row = fleet_slot_row(slots, s);
    assert_false(enters(&a, s, 10));
    fleet_slot_raise(slots, row, 3);
    assert_true(enters(&a, s, 10));
    assert_true(enters(&b, s, 10));
    assert_false(enters(&b, s, 2)); /* the limit is lower by now */
    assert_true(enters(&b, s, 10));
    assert_false(enters(&a, s, 10));
    assert_int_equal(fleet_slot_lower(&control, slots, row, 0), 3);
    limit_leave(&b, 77);
    assert_int_equal(fleet_slot_lower(&control, slots, row, 2), 2);
    assert_false(enters(&b, s, 10));
    process_died(0); /* what it had under way is over */
    assert_int_equal(fleet_slot_in_use(&control, slots, row), 1);
    assert_int_equal(fleet_slot_lower(&control, slots, row, 0), 1);
    fleet_slot_free(&control, slots, row);
    assert_ptr_equal(fleet_slot_find(slots, FLEET_SLOT_REQUEST, &key), s);
    limit_leave(&b, 77);
    assert_int_equal(fleet_slot_lower(&control, slots, row, 0), 0);
    fleet_slot_free(&control, slots, row);
    assert_null(fleet_slot_find(slots, FLEET_SLOT_REQUEST, &key));
    const struct fleet_slot_key other =
        key_of(78); /* the row is another's now: none of 77 enters */
    atomic_store(&s->id, fleet_slot_id(&other));
    fleet_slot_raise(slots, row, 5);
    assert_false(limit_enter_held(&b, 77, 10, &s->id, &s->word));
}

static void a_full_table_says_so(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (uint64_t n = 1; n <= FLEET_SLOT_ROWS + 100; n++) {
        const struct fleet_slot_key key = key_of(n);
        refused += !fleet_slot_claim(NULL, slots, &key, 1, 1);
    }
    assert_true(refused >= 100);
    assert_int_equal(atomic_load(&slots->full), refused);
}

/* ---- notes ---- */

static void what_is_waited_for_is_noted_once(void **state)
{
    (void)state;
    const struct limit_caller a = process_born(0);
    const struct fleet_slot_key key = key_of(5);
    struct fleet_slot *s = fleet_slot_claim(&a, slots, &key, 1, 9);
    uint32_t row;
    assert_true(fleet_slot_ask(slots, 3, s));
    assert_false(fleet_slot_ask(slots, 4, s));
    assert_int_equal(atomic_load(&s->need), 2);
    assert_int_equal(atomic_load(&s->waiting[0]), 1 << 3 | 1 << 4);
    assert_false(fleet_slot_next(slots, 4, &row));
    assert_true(fleet_slot_next(slots, 3, &row));
    assert_int_equal(row, fleet_slot_row(slots, s));
    atomic_store(&s->due, 0);
    assert_true(fleet_slot_left(slots, 3, s)); /* of a small limit at once, ... */
    atomic_store(&s->due, 0);
    atomic_store(&s->limit, 1000);
    assert_false(fleet_slot_left(slots, 3, s)); /* of others not */
    row = 0;
    assert_true(fleet_slot_each(slots, &row));
    assert_int_equal(row, fleet_slot_row(slots, s));
    row++;
    assert_false(fleet_slot_each(slots, &row));
}

/* ---- WebSockets ---- */

static atomic_bool over;
static atomic_uint broken;
static struct fleet_slot *shared_row;

static void *control_run(void *arg)
{
    const uint32_t row = fleet_slot_row(slots, shared_row);
    for (unsigned n = 0; !atomic_load(&over); n++) {
        if (n % 2 && fleet_slot_held(shared_row) < 20)
            fleet_slot_raise(slots, row, 3);
        else
            fleet_slot_lower(NULL, slots, row, n % 7);
        const uint64_t word = atomic_load(&shared_row->word);
        if ((uint32_t)word > word >> 32)
            atomic_fetch_add(&broken, 1);
    }
    return arg;
}

static void what_is_held_is_never_below_what_is_in_use(void **state)
{
    pthread_t control;
    const struct fleet_slot_key key = key_of(9);
    uint32_t used = 0;
    (void)state;
    shared_row = fleet_slot_claim(NULL, slots, &key, 1, 20);
    assert_false(fleet_slot_use(shared_row));
    assert_int_equal(pthread_create(&control, NULL, control_run, NULL), 0);
    for (unsigned n = 0; n < 300000; n++)
        if (n % 3 == 2 && used) {
            fleet_slot_end(shared_row);
            used--;
        } else {
            used += fleet_slot_use(shared_row);
        }
    atomic_store(&over, true);
    pthread_join(control, NULL);
    assert_int_equal(atomic_load(&broken), 0);
    assert_int_equal(fleet_slot_used(shared_row), used);
    const uint32_t row = fleet_slot_row(slots, shared_row);
    fleet_slot_count(shared_row, 40); /* a successor found as many */
    assert_int_equal(fleet_slot_lower(NULL, slots, row, 0), 40);
    fleet_slot_use_anyway(shared_row);
    assert_int_equal(fleet_slot_lower(NULL, slots, row, 0), 41);
    fleet_slot_count(shared_row, 0);
    fleet_slot_end(shared_row); /* none is left: nothing happens */
    assert_int_equal(fleet_slot_lower(NULL, slots, row, 0), 0);
    fleet_slot_free(NULL, slots, row);
    assert_null(fleet_slot_find(slots, FLEET_SLOT_WEBSOCKET, &key));
}

/* ---- the store ---- */

static struct redis redis;
static redisContext *link_up;

/* The words of a reply, joined. */
static const char *run(const char *script, int n_keys, int n, const char **words)
{
    static char text[2048];
    const char *argv[32] = {"EVAL", script, n_keys == 3 ? "3" : "4"};
    size_t len = 0;
    memcpy(argv + 3, words, (size_t)n * sizeof *words);
    redisReply *r = redisCommandArgv(link_up, n + 3, argv, NULL);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_ERROR)
        fail_msg("%s", r->str);
    for (size_t i = 0; i < r->elements; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i ? "|" : "",
                                r->element[i]->str);
    freeReplyObject(r);
    return text;
}

#define PREFIX "polder:{x}:slots:42:"

static const char *renew(const char *holder, const char *instance, const char *keep,
                         const char *alone, const char *began)
{
    const char *words[] = {"polder:{x}:epoch",
                           PREFIX "holders",
                           PREFIX "all",
                           "42",
                           holder,
                           instance,
                           keep,
                           alone,
                           alone,
                           PREFIX "of:",
                           began,
                           "3000"};
    return run(fleet_script_slots_renew, 3, 12, words);
}

static const char *take(const char *holder, const char *terms)
{
    char of[96];
    snprintf(of, sizeof of, PREFIX "of:%s", holder);
    const char *words[] = {
        "polder:{x}:epoch", PREFIX "holders", PREFIX "all", of, "42", holder, "3", terms};
    return run(fleet_script_slots_take, 4, 8, words);
}

static void forget(void)
{
    redis_do(&redis, "FLUSHALL");
    redis_do(&redis, "SET polder:{x}:epoch 42");
}

static void the_store_knows_who_holds_what(void **state)
{
    (void)state;
    forget();
    assert_string_equal(take("a-1", "ff 0 1 5"), "42|gone");
    assert_string_equal(renew("a-1", "a", "60000", "1", "0"), "42|1|1|0");
    assert_string_equal(renew("b-1", "b", "60000", "1", "0"), "42|2|1|0");
    assert_string_equal(renew("a-1", "a", "60000", "1", "0"), "42|2|0|0");
    assert_string_equal(take("a-1", "ff 0 1 5"), "42|1 4");
    assert_string_equal(take("a-1", "ff 1 9 5"), "42|1 3"); /* no more than a part of the rest */
    assert_string_equal(take("b-1", "ff 0 9 5"), "42|1 2");
    assert_string_equal(take("a-1", "ff 4 1 5"), "42|0 0"); /* as it says, whatever was before */
    assert_string_equal(take("b-1", "ff 1 1 5"), "42|0 0");
    assert_string_equal(take("a-1", "ff 7 0 5"), "42|0 0"); /* even if that is too many */
    assert_string_equal(take("b-1", "ff 0 1 5"), "42|0 0");
    assert_string_equal(take("a-1", "ff 0 0 5"), "42|0 5");
    assert_string_equal(redis_do(&redis, "EXISTS " PREFIX "all"), "0");
    const char *words[] = {
        "polder:{x}:epoch", PREFIX "holders", PREFIX "all", PREFIX "of:a-1", "41", "a-1", "3",
        "ff 0 1 5"};
    assert_string_equal(run(fleet_script_slots_take, 4, 8, words), "42"); /* another history */
}

static void what_a_holder_held_that_is_gone_is_given_to_others(void **state)
{
    (void)state;
    forget();
    renew("a-1", "a", "200", "1", "0");
    renew("b-1", "b", "60000", "1", "0");
    assert_string_equal(take("a-1", "ff 5 0 5"), "42|0 0");
    assert_string_equal(take("b-1", "ff 0 1 5"), "42|0 0");
    renew("b-1", "b", "60000", "1", "0");
    assert_string_equal(take("b-1", "ff 0 1 5"), "42|0 0"); /* it is kept for 200 ms, ... */
    usleep(250000);
    renew("b-1", "b", "60000", "1", "0");
    assert_string_equal(take("b-1", "ff 0 1 5"), "42|1 4"); /* ... which are over */
    assert_string_equal(take("a-1", "ff 5 0 5"), "42|gone");
    assert_string_equal(renew("a-1", "a", "200", "0", "0"), "42|2|1|0");

    /* The same host with another page: what the former one held goes when all is reported. */
    assert_string_equal(take("b-1", "ff 5 0 5"), "42|0 0");
    renew("b-2", "b", "60000", "0", "0");
    assert_string_equal(take("b-2", "ff 0 1 5"), "42|0 0");
    renew("b-2", "b", "60000", "1", "0");
    assert_string_equal(take("b-2", "ff 0 1 5"), "42|1 4");
}

static void a_young_history_waits_for_what_hosts_hold(void **state)
{
    char began[24], late[24];
    (void)state;
    forget();
    redisReply *r = redisCommand(link_up, "TIME");
    const uint64_t now_ms = strtoull(r->element[0]->str, NULL, 10) * 1000;
    freeReplyObject(r);
    snprintf(began, sizeof began, "%" PRIu64, now_ms);
    snprintf(late, sizeof late, "%" PRIu64, now_ms - 10000);
    assert_string_equal(renew("a-1", "a", "60000", "1", began), "42|1|1|1");
    assert_string_equal(renew("a-1", "a", "60000", "1", late), "42|1|0|0");
    renew("b-1", "b", "60000", "0", late); /* it is about to say what it holds */
    assert_string_equal(renew("a-1", "a", "60000", "1", late), "42|2|0|1");
    renew("b-1", "b", "60000", "1", late);
    assert_string_equal(renew("a-1", "a", "60000", "1", late), "42|2|0|0");
}

/* Hosts whose answers get lost, and which give back and take as they like. */
static void together_they_hold_no_more_than_the_limit(void **state)
{
    static const char *const holder[] = {"a-1", "b-1", "c-1"};
    uint32_t have[3] = {0}, most = 0;
    (void)state;
    const unsigned seed = (unsigned)getpid();
    srand(seed);
    forget();
    for (int i = 0; i < 3; i++)
        renew(holder[i], (const char[]){*holder[i], 0}, "60000", "1", "0");
    for (int n = 0; n < 3000; n++) {
        const int i = rand() % 3;
        char terms[64];
        if (have[i] && rand() % 3 == 0)
            have[i] -= (uint32_t)rand() % have[i] + 1;
        snprintf(terms, sizeof terms, "ff %u %d 20", have[i], rand() % 5);
        const unsigned granted = (unsigned)atoi(take(holder[i], terms) + 3);
        if (rand() % 10) /* else the answer is lost */
            have[i] += granted;
        const uint32_t sum = have[0] + have[1] + have[2];
        if (sum > 20)
            fail_msg("%u after %d steps, seed %u", sum, n, seed);
        most = sum > most ? sum : most;
    }
    assert_int_equal(most, 20); /* all of it is usable */
}

static int redis_up(void **state)
{
    (void)state;
    redis_start(&redis);
    link_up = redisConnectUnix(redis.sock);
    return !link_up || link_up->err;
}

static int redis_down(void **state)
{
    (void)state;
    redisFree(link_up);
    redis_remove(&redis);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_many_requests_enter_as_are_held, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_table_says_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_waited_for_is_noted_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_held_is_never_below_what_is_in_use, set_up,
                                        tear_down),
        cmocka_unit_test(the_store_knows_who_holds_what),
        cmocka_unit_test(what_a_holder_held_that_is_gone_is_given_to_others),
        cmocka_unit_test(a_young_history_waits_for_what_hosts_hold),
        cmocka_unit_test(together_they_hold_no_more_than_the_limit),
    };
    return cmocka_run_group_tests(tests, redis_up, redis_down);
}
