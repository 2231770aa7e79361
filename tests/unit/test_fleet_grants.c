/* SPDX-License-Identifier: BSD-2-Clause */
/* What a host has been granted of a limit of the fleet is used once, and not after its end; and the
 * scripts of the store grant no more than the limit, as a real Redis runs them. */
#include "daemons/control/model/fleet_scripts.h"
#include "polder/clock.h"
#include "polder/fleet_grants.h"
#include "polder/runtime.h"
#include "redis.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define T0 UINT64_C(100000000)

static struct fleet_grants *grants;

static int set_up(void **state)
{
    (void)state;
    grants = mmap(NULL, sizeof *grants, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return grants == MAP_FAILED;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(grants, sizeof *grants);
}

static struct fleet_want ask_of(uint64_t key)
{
    return (struct fleet_want){.key = key,
                               .hash = {key, 1},
                               .window_ms = 1000,
                               .requests = 100,
                               .algorithm = RUNTIME_SLIDING,
                               .cost = 1};
}

static void asked(uint64_t key, uint64_t now_ms)
{
    struct fleet_want ask = ask_of(key), next;
    assert_true(fleet_grant_ask(grants, 3, &ask, now_ms));
    assert_true(fleet_grant_next(grants, 3, &next));
    assert_int_equal(next.key, key);
    assert_int_equal(next.want, ask.want);
}

static bool put(uint64_t key, uint32_t n, uint64_t end_ms, uint64_t now_ms)
{
    const struct fleet_want ask = ask_of(key);
    const struct fleet_answer a = {
        .n = n, .end_ms = end_ms, .number = end_ms / 100, .ends_ms = end_ms, .state = {n}};
    return fleet_grant_put(grants, &ask, &a, now_ms);
}

static unsigned back_of(uint64_t key, uint64_t now_ms, uint64_t number)
{
    const struct fleet_want ask = ask_of(key);
    uint64_t of;
    const unsigned n = fleet_grant_back(grants, &ask, now_ms, &of);
    assert_int_equal(of, n ? number : 0);
    return n;
}

static enum fleet_take take(uint64_t key, uint64_t now_ms)
{
    return fleet_grant_take(grants, key, 1, now_ms).result;
}

static unsigned all_of(uint64_t key, uint64_t now_ms)
{
    unsigned n = 0;
    for (enum fleet_take t; (t = take(key, now_ms)) == FLEET_TAKE_DONE || t == FLEET_TAKE_LOW;)
        n++;
    return n;
}

static void what_is_granted_is_used_once_and_not_after_its_end(void **state)
{
    (void)state;
    assert_int_equal(take(7, T0), FLEET_TAKE_NONE);
    asked(7, T0);
    put(7, 10, T0 + 100, T0);
    assert_int_equal(all_of(7, T0), 10);
    asked(7, T0);
    put(7, 10, T0 + 101, T0);
    asked(7, T0 + 1);
    put(7, 5, T0 + 99, T0 + 1); /* the same sub-window, as the store's clock was read a bit off */
    assert_int_equal(take(7, T0 + 99), FLEET_TAKE_NONE);
    assert_int_equal(all_of(7, T0 + 98), 15);
    asked(7, T0 + 150);
    put(7, 10, T0 + 300, T0 + 150);
    asked(7, T0 + 290);
    put(7, 10, T0 + 500, T0 + 290); /* of the next one: the others are not carried over */
    assert_int_equal(all_of(7, T0 + 310), 10);
}

static void a_refusal_holds_until_its_end(void **state)
{
    (void)state;
    asked(8, T0);
    put(8, 2, T0 + 100, T0);
    asked(8, T0);
    put(8, 0, T0 + 900, T0); /* what there is is used first */
    assert_int_equal(all_of(8, T0), 2);
    asked(8, T0);
    put(8, 0, T0 + 900, T0);
    const struct fleet_took took = fleet_grant_take(grants, 8, 1, T0 + 899);
    assert_int_equal(took.result, FLEET_TAKE_REFUSED);
    assert_int_equal(took.end_ms, T0 + 900);
    assert_int_equal(take(8, T0 + 900), FLEET_TAKE_NONE);
}

static void what_costs_more_than_is_left_is_refused_while_that_is_used(void **state)
{
    (void)state;
    asked(8, T0);
    put(8, 3, T0 + 500, T0);
    struct fleet_want ask = ask_of(8);
    ask.cost = 5;
    assert_int_equal(fleet_grant_take(grants, 8, 5, T0).result, FLEET_TAKE_NONE);
    fleet_grant_put(grants, &ask, &(struct fleet_answer){.end_ms = T0 + 200, .number = 1}, T0);
    const struct fleet_took took = fleet_grant_take(grants, 8, 5, T0 + 199);
    assert_int_equal(took.result, FLEET_TAKE_REFUSED);
    assert_int_equal(took.end_ms, T0 + 200);
    assert_true(fleet_grant_is_known(grants, 8, 5, T0 + 199));
    assert_int_equal(take(8, T0 + 199), FLEET_TAKE_DONE);
    assert_int_equal(take(8, T0 + 200),
                     FLEET_TAKE_NONE); /* there may be more, with what goes back */
    assert_int_equal(back_of(8, T0 + 200, (T0 + 500) / 100), 2);
}

static void what_is_given_back_is_there_again(void **state)
{
    (void)state;
    asked(9, T0);
    put(9, 3, T0 + 100, T0);
    const struct fleet_took took = fleet_grant_take(grants, 9, 2, T0);
    fleet_grant_return(grants, 9, 2, &took);
    assert_int_equal(all_of(9, T0), 3);
    put(9, 3, T0 + 300, T0 + 200);
    fleet_grant_return(grants, 9, 2, &took); /* it has ended meanwhile */
    assert_int_equal(all_of(9, T0 + 200), 3);
}

static void what_was_never_used_goes_back_once(void **state)
{
    (void)state;
    assert_int_equal(back_of(20, T0, 0), 0);
    asked(20, T0);
    assert_false(put(20, 10, T0 + 100, T0));
    take(20, T0);
    assert_int_equal(back_of(20, T0 + 99, 0), 0); /* it may be used yet */
    assert_int_equal(back_of(20, T0 + 100, (T0 + 100) / 100), 9);
    assert_int_equal(back_of(20, T0 + 100, 0), 0);
    assert_int_equal(take(20, T0 + 99), FLEET_TAKE_NONE); /* for one whose clock is behind, too */
    asked(20, T0 + 200);
    assert_false(put(20, 8, T0 + 300, T0 + 200));
    asked(20, T0 + 400);
    assert_true(put(20, 5, T0 + 500, T0 + 400)); /* in the place of those that have ended */
    assert_int_equal(back_of(20, T0 + 400, (T0 + 300) / 100), 8);
    assert_int_equal(all_of(20, T0 + 400), 5);
    asked(20, T0 + 600);
    assert_false(put(20, 8, T0 + 700, T0 + 600));
    fleet_grants_renounce(grants); /* in another history they are not known */
    assert_int_equal(back_of(20, T0 + 800, 0), 0);
}

static void what_the_store_has_said_is_there_to_be_told(void **state)
{
    (void)state;
    uint32_t at = 0;
    assert_null(fleet_grant_heard(grants, &at, T0));
    for (uint64_t key = 30; key < 33; key++) {
        asked(key, T0);
        put(key, 10, T0 + (key - 29) * 100, T0);
    }
    at = 0;
    unsigned n = 0;
    for (const struct fleet_grant *row; (row = fleet_grant_heard(grants, &at, T0)); n++) {
        assert_int_equal(row->format, FLEET_FORMAT_SLIDING);
        assert_int_equal(row->sub_ms, 200);
        assert_int_equal(row->count[0], 10);
    }
    assert_int_equal(n, 3);
    at = 0; /* the first two are not in any window any more */
    assert_non_null(fleet_grant_heard(grants, &at, T0 + 1300));
    assert_null(fleet_grant_heard(grants, &at, T0 + 1300));
}

static void the_store_is_asked_once_and_again_if_it_does_not_answer(void **state)
{
    (void)state;
    struct fleet_want ask = ask_of(10), next;
    assert_true(fleet_grant_ask(grants, 0, &ask, T0));
    assert_false(fleet_grant_ask(grants, 1, &ask, T0 + 50));
    assert_false(fleet_grant_is_known(grants, 10, 1, T0 + 50));
    assert_true(fleet_grant_ask(grants, 1, &ask, T0 + 200));
    fleet_grant_forget(grants, &ask);
    assert_true(fleet_grant_is_known(grants, 10, 1, T0 + 200));
    for (unsigned i = 0; i < FLEET_ASKS + 10; i++) { /* the queue has an end */
        ask = ask_of(1000 + i);
        fleet_grant_ask(grants, 0, &ask, T0);
    }
    unsigned n = 0;
    while (fleet_grant_next(grants, 0, &next))
        n++;
    assert_int_equal(n, FLEET_ASKS);
}

static void what_is_held_of_a_bucket_is_told_and_when_it_was_used(void **state)
{
    (void)state;
    struct fleet_want ask = ask_of(50), next;
    ask.algorithm = RUNTIME_GCRA;
    assert_true(fleet_grant_ask(grants, 3, &ask, T0));
    assert_true(fleet_grant_next(grants, 3, &next));
    struct fleet_answer a = {.n = 3, .end_ms = T0 + 100, .number = 1, .sent_ms = T0};
    assert_false(fleet_grant_put(grants, &ask, &a, T0 + 10));
    const struct fleet_took took = fleet_grant_take(grants, 50, 1, T0 + 20);
    struct fleet_out out = fleet_grant_out(grants, &ask, T0 + 60);
    assert_int_equal(out.n, 2);
    assert_int_equal(out.ago_ms, 40 - CLOCK_COARSE_MS);
    assert_int_equal(out.after_ms, 20 + CLOCK_COARSE_MS);
    fleet_grant_return(grants, 50, 1, &took); /* the store was told that it is used */
    assert_int_equal(fleet_grant_left(grants, 50, T0 + 60), 2);
    a = (struct fleet_answer){.n = 1, .end_ms = T0 + 160, .number = 2, .sent_ms = T0 + 60};
    assert_false(fleet_grant_put(grants, &ask, &a, T0 + 65));
    assert_int_equal(fleet_grant_left(grants, 50, T0 + 159), 3); /* all last as long as the last */
    out = fleet_grant_out(grants, &ask, T0 + 160);
    assert_int_equal(out.n, 0);
    a = (struct fleet_answer){.n = 1, .end_ms = T0 + 200, .number = 3, .sent_ms = T0 + 160};
    assert_true(fleet_grant_put(grants, &ask, &a, T0 + 210)); /* it has come too late */
}

static void demand_is_followed(void **state)
{
    (void)state;
    struct fleet_want ask = ask_of(11);
    uint32_t last = 0;
    for (unsigned i = 0; i < 5; i++) { /* used up at once */
        assert_true(fleet_grant_ask(grants, 0, &ask, T0 + i));
        assert_true(ask.want > last);
        last = ask.want;
        put(11, ask.want, T0 + 100, T0 + i);
    }
    assert_true(fleet_grant_ask(grants, 0, &ask, T0 + 5000));
    assert_true(ask.want < last);
}

#define THREADS 4
#define ROUNDS  20000

static void *take_all(void *arg)
{
    _Atomic uint64_t *n = arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        atomic_fetch_add(n, all_of(12 + i % 3, T0));
    return NULL;
}

/* Many use what one puts there. */
static void no_grant_is_used_twice_by_whoever_meets(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    _Atomic uint64_t used = 0;
    uint64_t granted = 0;
    for (unsigned i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, take_all, &used);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct fleet_want ask = ask_of(12 + i % 3), next;
        fleet_grant_ask(grants, 0, &ask, T0 + i);
        while (fleet_grant_next(grants, 0, &next))
            ;
        const struct fleet_answer a = {.n = 5, .end_ms = T0 + 100, .number = 1};
        fleet_grant_put(grants, &ask, &a, T0);
        granted += 5;
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < 3; i++)
        used += all_of(12 + i, T0);
    assert_int_equal(used, granted);
}

static void a_share_is_used_from_the_first_window_that_begins_after_the_lease(void **state)
{
    (void)state;
    uint64_t wait_ms;
    static const struct {
        struct fleet_terms terms;
        uint64_t from_ms, to_ms;
    } limits[] = {{{1000, 100, RUNTIME_FIXED}, 1000, 1020},
                  {{1000, 100, RUNTIME_SLIDING}, 1200, 1220},
                  {{1000, 100, RUNTIME_GCRA}, 2000, 2020},
                  {{60000, 100, RUNTIME_GCRA}, 66000, 66100},
                  {{3600000, 100, RUNTIME_FIXED}, 3600000, 3604000}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const struct fleet_terms *t = &limits[i].terms;
        atomic_store(&grants->share_from_ms, 0);
        assert_int_equal(fleet_share_of(grants, t, T0, &wait_ms), 0); /* never a member */
        assert_int_equal(wait_ms, t->window_ms);
        atomic_store(&grants->share, FLEET_SHARE_WHOLE / 3);
        atomic_store(&grants->share_from_ms, T0);
        atomic_store(&grants->share_used_ms, 0);
        assert_int_equal(fleet_share_of(grants, t, T0 + limits[i].from_ms, &wait_ms), 0);
        assert_in_range(wait_ms, 1, limits[i].to_ms - limits[i].from_ms);
        assert_int_equal(atomic_load(&grants->share_used_ms), 0);
        assert_int_equal(fleet_share_of(grants, t, T0 + limits[i].to_ms, &wait_ms), 33);
        assert_int_equal(wait_ms, 0);
        assert_int_equal(atomic_load(&grants->share_used_ms), T0 + limits[i].to_ms);
        assert_int_equal(fleet_share_from(grants, T0 + 5000), T0);
    }
}

static void hashes_are_the_same_on_all_hosts_and_for_no_other_secret(void **state)
{
    (void)state;
    uint8_t a[FLEET_GRANTS_SECRET], b[FLEET_GRANTS_SECRET];
    uint64_t x[2], y[2];
    fleet_grants_secret("prod", "a secret of sixteen", a);
    fleet_grants_secret("prod", "a secret of sixteen", b);
    assert_memory_equal(a, b, sizeof a);
    fleet_grants_hash(a, 1, "who", 3, x);
    fleet_grants_hash(b, 2, "who", 3, y);
    assert_memory_not_equal(x, y, sizeof x);
    fleet_grants_secret("test", "a secret of sixteen", b);
    fleet_grants_hash(b, 1, "who", 3, y);
    assert_memory_not_equal(x, y, sizeof x);
}

/* ---- scripts ---- */

static struct redis redis;

static uint64_t store_ms(void)
{
    redisContext *c = redisConnectUnix(redis.sock);
    redisReply *r = redisCommand(c, "TIME");
    const uint64_t ms = strtoull(r->element[0]->str, NULL, 10) * 1000 +
                        strtoull(r->element[1]->str, NULL, 10) / 1000;
    freeReplyObject(r);
    redisFree(c);
    return ms;
}

/* Element i of what the script returns, in a static buffer. */
static const char *eval(const char *script, size_t i, int n_keys, int n, const char **words)
{
    static char text[128];
    char keys[8];
    snprintf(keys, sizeof keys, "%d", n_keys);
    const char *argv[32] = {"EVAL", script, keys};
    memcpy(argv + 3, words, (size_t)n * sizeof *words);
    redisContext *c = redisConnectUnix(redis.sock);
    redisReply *r = redisCommandArgv(c, n + 3, argv, NULL);
    assert_non_null(r);
    if (r->type != REDIS_REPLY_ARRAY)
        fail_msg("%s", r->str);
    snprintf(text, sizeof text, "%s", i < r->elements ? r->element[i]->str : "none");
    freeReplyObject(r);
    redisFree(c);
    return text;
}

/* Takes from a limit of 100 in a window of so many ms; how many were granted. *ms: until when. */
static unsigned take_from(const char *epoch, const char *learned, const char *terms, uint64_t *ms)
{
    char whole[64];
    snprintf(whole, sizeof whole, "%s 0 0 0 0 0 0 1", terms);
    const char *words[] = {
        "polder:{x}:epoch", "polder:{x}:shares", "polder:{x}:limit:1", epoch, learned, "2", whole};
    unsigned n = 0, left = 0;
    *ms = 0;
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u %u %" SCNu64, &n, &left, ms);
    return n;
}

static const char *fresh = "0", *run = "abc", *without = "0";

/* held: ms from now; 0: it has none. alone: it could use its share for so long, until now. */
static const char *share(const char *host, int64_t held_ms, const char *acked, const char *alone,
                         bool learning)
{
    char held[24], learned[24];
    snprintf(held, sizeof held, "%" PRIu64, held_ms ? store_ms() + (uint64_t)held_ms : 0);
    snprintf(learned, sizeof learned, "%" PRIu64, store_ms() + (learning ? 1000 : 0));
    const char *words[] = {"polder:{x}:epoch",
                           "polder:{x}:shares",
                           "42",
                           host,
                           run,
                           held,
                           acked,
                           "0",
                           alone,
                           *alone == '0' ? "0" : acked,
                           learned,
                           "2000",
                           "0",
                           "0"};
    words[12] = fresh;
    words[13] = without;
    return eval(fleet_script_limit_share, 2, 2, 14, words);
}

static void tell(const char *terms)
{
    const char *words[] = {"polder:{x}:epoch", "polder:{x}:shares", "polder:{x}:limit:1", "42",
                           terms};
    assert_string_equal(eval(fleet_script_limit_report, 0, 3, 5, words), "42");
}

static unsigned take_up_since(const char *learned, const char *terms)
{
    unsigned sum = 0;
    uint64_t ms;
    for (unsigned n; (n = take_from("42", learned, terms, &ms));)
        sum += n;
    return sum;
}

static unsigned take_up(const char *terms)
{
    return take_up_since("0", terms);
}

#define HOUR_FIXED   "3600000 1 100 10 1"
#define HOUR_SLIDING "720000 6 100 10 1"
#define HOUR_GCRA    "3600000 0 100 10 1"

static void begin_epoch(void)
{
    redis_do(&redis, "FLUSHALL");
    redis_do(&redis, "SET polder:{x}:epoch 42");
}

static void the_store_grants_the_limit_and_no_more(void **state)
{
    (void)state;
    uint64_t ms;
    redis_do(&redis, "FLUSHALL");
    assert_int_equal(take_from("42", "0", HOUR_FIXED, &ms), 0); /* of another history */
    redis_do(&redis, "SET polder:{x}:epoch 42");
    assert_int_equal(take_from("42", "0", HOUR_FIXED, &ms), 10);
    assert_in_range(ms, 1, 3600000);
    assert_int_equal(take_up(HOUR_FIXED), 90);
    assert_int_equal(take_from("42", "0", HOUR_FIXED, &ms), 0);
    assert_in_range(ms, 1, 3600000); /* until the window ends */
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_up(HOUR_SLIDING), 100);
    assert_int_equal(take_from("42", "0", HOUR_SLIDING, &ms), 0);
    assert_in_range(ms, 3600000, 4320000); /* six sub-windows, of which one has begun */
}

static void a_bucket_has_all_of_the_limit(void **state)
{
    (void)state;
    uint64_t ms;
    begin_epoch();
    assert_int_equal(take_up(HOUR_GCRA), 100);
    assert_int_equal(take_from("42", "0", HOUR_GCRA, &ms), 0);
    assert_in_range(ms, 144001, 180000); /* five of them: half of what is wanted */
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_from("42", "0", HOUR_GCRA, &ms), 10);
    assert_int_equal(ms, 360000);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_from("42", "0", "1000 0 100 10 1", &ms), 10);
    assert_int_equal(ms, 1000); /* a store may be far away */
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_up("100 0 1 10 1"), 1); /* the smallest of all has one */
}

/* A host asks for so many of the bucket of an hour, of which it has `out` still; *n: how many it gets. */
static unsigned host_takes(unsigned id, unsigned want, unsigned back, unsigned out, unsigned ago_ms)
{
    char terms[96];
    const char *words[] = {
        "polder:{x}:epoch", "polder:{x}:shares", "polder:{x}:limit:1", "42", "0", "1", terms};
    unsigned n;
    snprintf(terms, sizeof terms, "3600000 0 100 %u %u %u 1 0 %u %u 3600000 %u", want, want ? 1 : 0,
             back, out, ago_ms, id);
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    return n;
}

#define MINUTE_MS 60000

/* As if all that is there of the client were so much older. */
static void minutes_pass(unsigned minutes)
{
    static const char script[] =
        "local all = redis.call('HGETALL', KEYS[1])\n"
        "for i = 1, #all, 2 do\n"
        "  local l, t, rest = string.match(all[i + 1], '^(%S+) (%d+) (.+)$')\n"
        "  local n, gone, held, asked = string.match(all[i + 1], '^(%d+) (%d+) (%S+) (%d+)$')\n"
        "  if all[i] == 'g' then\n"
        "    redis.call('HSET', KEYS[1], 'g', string.format('%s %.0f %s', l, t - ARGV[1], rest))\n"
        "  elseif string.match(all[i], '^%d+ %d+ %d+$') then\n"
        "    redis.call('HSET', KEYS[1], all[i], string.format('%s %s %.0f', l, t, rest - "
        "ARGV[1]))\n"
        "  elseif n then\n"
        "    redis.call('HSET', KEYS[1], all[i], string.format('%s %.0f %s %.0f', n, "
        "gone - ARGV[1], held, asked - ARGV[1]))\n"
        "  end\n"
        "end\n"
        "return {'done'}\n";
    char ms[24];
    snprintf(ms, sizeof ms, "%u", minutes * MINUTE_MS);
    const char *words[] = {"polder:{x}:limit:1", "", "", ms};
    assert_string_equal(eval(script, 0, 3, 4, words), "done");
}

static void what_a_host_may_use_yet_does_not_flow_out(void **state)
{
    (void)state;
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(30);
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 90);
    begin_epoch(); /* but for one that never comes again */
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(67);
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 100);
}

static void what_a_host_has_used_flows_out_from_then_on(void **state)
{
    (void)state;
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(20);
    assert_int_equal(host_takes(1, 0, 0, 0, 20 * MINUTE_MS), 0); /* at once */
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 100);
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(20);
    assert_int_equal(host_takes(1, 0, 0, 4, 3 * MINUTE_MS), 0); /* five of six, at least */
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 95);
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(20);
    assert_int_equal(host_takes(1, 0, 0, 0, 0), 0); /* perhaps just now */
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 90);
}

/* What was held up while a host had it is not given back when it is used later. */
static void what_a_host_has_told_that_it_holds_was_not_used_before(void **state)
{
    (void)state;
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    minutes_pass(20);
    assert_int_equal(host_takes(1, 0, 0, 10, 20 * MINUTE_MS), 0);
    assert_int_equal(host_takes(1, 0, 0, 0, 0), 0);
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 90);
}

static void what_two_hosts_have_used_flows_out_once(void **state)
{
    (void)state;
    begin_epoch();
    assert_int_equal(host_takes(1, 10, 0, 0, 0), 10);
    assert_int_equal(host_takes(2, 10, 0, 0, 0), 10);
    minutes_pass(7); /* in which 11 flow out, and a bit */
    assert_int_equal(host_takes(1, 0, 0, 0, 7 * MINUTE_MS), 0);
    assert_int_equal(host_takes(2, 0, 0, 0, 7 * MINUTE_MS), 0);
    assert_int_equal(host_takes(3, 200, 0, 0, 0), 91);
}

/* Its worker and another one ask, as the store is slow: the second ask does not know of the first. */
static void who_asks_twice_in_one_call_holds_both(void **state)
{
    (void)state;
    const char *words[] = {"polder:{x}:epoch",
                           "polder:{x}:shares",
                           "polder:{x}:limit:1",
                           "polder:{x}:limit:1",
                           "42",
                           "0",
                           "1",
                           "3600000 0 100 10 1 0 1 0 0 0 0 1",
                           "3600000 0 100 10 1 0 1 0 0 0 0 1"};
    begin_epoch();
    eval(fleet_script_limit_take, 1, 4, 9, words);
    minutes_pass(20);
    assert_int_equal(host_takes(2, 200, 0, 0, 0), 80);
}

static void what_is_given_back_to_the_store_is_granted_again(void **state)
{
    (void)state;
    const char *words[] = {
        "polder:{x}:epoch", "polder:{x}:shares", "polder:{x}:limit:1", "42", "0", "2", NULL};
    unsigned n;
    char number[64];
    begin_epoch();
    assert_int_equal(take_up(HOUR_FIXED), 100);
    words[6] = number;
    snprintf(number, sizeof number, "3600000 1 100 50 1 7 %" PRIu64 " 0 0 0 0 1",
             store_ms() / 3600000);
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    assert_int_equal(n + take_up(HOUR_FIXED), 7);
    snprintf(number, sizeof number, "3600000 1 100 50 1 7 12345 0 0 0 0 1"); /* long over */
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    assert_int_equal(n, 0);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(host_takes(1, 60, 0, 0, 0), 60);
    assert_int_equal(host_takes(2, 60, 0, 0, 0), 40);
    minutes_pass(6);
    assert_int_equal(host_takes(1, 0, 50, 0, 0), 0);
    assert_int_equal(host_takes(1, 0, 50, 0, 0), 0); /* they are not there any more */
    assert_int_equal(host_takes(3, 200, 0, 0, 0), 50);
}

/* A limit that was one of each host becomes one of the fleet. */
static void what_a_host_has_counted_before_counts(void **state)
{
    (void)state;
    const char *words[] = {"polder:{x}:epoch",
                           "polder:{x}:shares",
                           "polder:{x}:limit:1",
                           "42",
                           "0",
                           "2",
                           "3600000 1 100 10 1 0 0 70 0 0 0 1"};
    unsigned n;
    begin_epoch();
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    assert_int_equal(n + take_up(HOUR_FIXED), 30);
    begin_epoch();
    words[6] = "3600000 0 100 10 1 0 0 70 0 0 0 1";
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    assert_int_equal(n + take_up(HOUR_GCRA), 30);
    begin_epoch();
    words[6] = "720000 6 100 10 1 0 0 150 0 0 0 1";
    sscanf(eval(fleet_script_limit_take, 1, 3, 7, words), "%u", &n);
    assert_int_equal(n + take_up(HOUR_SLIDING), 0);
}

static void it_is_reported_once_and_only_soon_after_a_reload(void **state)
{
    (void)state;
    struct fleet_want ask = ask_of(40);
    ask.limit = 3;
    ask.had = 70;
    assert_int_equal(fleet_grant_had(grants, &ask, T0), 0);
    atomic_store(&grants->own_until_ms[3], T0);
    assert_int_equal(fleet_grant_had(grants, &ask, T0 + 1199), 70);
    assert_int_equal(fleet_grant_had(grants, &ask, T0 + 1200), 0); /* it is in no window any more */
    asked(40, T0);
    put(40, 0, T0 + 100, T0);
    assert_int_equal(fleet_grant_had(grants, &ask, T0 + 1), 0);
}

static void nothing_is_granted_before_all_have_told_what_they_know(void **state)
{
    (void)state;
    uint64_t ms;
    char later[32];
    begin_epoch();
    snprintf(later, sizeof later, "%" PRIu64, store_ms() + 2000);
    assert_int_equal(take_from("42", later, HOUR_FIXED, &ms), 0);
    assert_in_range(ms, 1, 2000);
    assert_string_equal(redis_do(&redis, "EXISTS polder:{x}:limit:1"), "0");
}

/* It may take long where there are many clients. */
static void nothing_is_granted_while_a_host_is_at_reporting(void **state)
{
    (void)state;
    uint64_t ms;
    char learned[24];
    begin_epoch();
    snprintf(learned, sizeof learned, "%" PRIu64, store_ms());
    tell("3600000 1 0 1000 0");
    assert_int_equal(take_from("42", learned, HOUR_FIXED, &ms), 0);
    assert_in_range(ms, 1, 1000);
    assert_string_equal(share("a", 0, "0", "0", false), "0"); /* none grows */
    snprintf(learned, sizeof learned, "%" PRIu64, store_ms() - 20000);
    assert_int_equal(take_from("42", learned, HOUR_FIXED, &ms), 10); /* nobody waits for ever */
}

/* Whoever tells it, how often, and when: what was said last contains what was said before. */
static void what_hosts_tell_is_counted_once(void **state)
{
    (void)state;
    char terms[64];
    begin_epoch();
    const unsigned rest_ms = (unsigned)(3600000 - store_ms() % 3600000);
    snprintf(terms, sizeof terms, "3600000 1 0 %u 60", rest_ms);
    tell(terms);
    tell(terms);
    snprintf(terms, sizeof terms, "3600000 1 0 %u 40", rest_ms);
    tell(terms);
    assert_int_equal(take_up(HOUR_FIXED), 40);
    snprintf(terms, sizeof terms, "3600000 1 0 %u 70", rest_ms); /* one that comes late */
    tell(terms);
    assert_int_equal(take_up(HOUR_FIXED), 0);
    assert_int_equal(take_up("3600000 1 200 10 1"), 90);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    const unsigned sub_ms = (unsigned)(720000 - store_ms() % 720000);
    snprintf(terms, sizeof terms, "720000 6 0 %u 1 2 3 4 5 6", sub_ms);
    tell(terms);
    tell(terms);
    assert_int_equal(take_up(HOUR_SLIDING), 79);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    tell("3600000 0 100 360000 62914560 0 1"); /* 60, six minutes ago: 50 */
    tell("3600000 0 100 360000 62914560 0 1");
    tell("3600000 0 100 720000 62914560 0 2");
    assert_int_equal(take_up(HOUR_GCRA), 50);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    tell("3600000 0 100 1800000 62914560 20 1"); /* 30 of 60, of which two hosts hold more */
    tell("3600000 0 100 3600000 62914560 15 2");
    assert_int_equal(host_takes(3, 200, 0, 0, 0), 65);
}

/* Of each client, whatever is done for it: granted, refused, reported, of two windows. */
static void what_a_store_keeps_of_a_client_is_little_and_gone_soon(void **state)
{
    (void)state;
    static const char *const terms[] = {"1000 1 100 10 1", "200 6 100 10 1", "1000 0 100 10 1",
                                        "1000 1 0 10 1"};
    uint64_t ms;
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        begin_epoch();
        take_from("42", "0", terms[i], &ms);
        assert_in_range(atoi(redis_do(&redis, "PTTL polder:{x}:limit:1")), 1000, 3000);
        assert_in_range(atoi(redis_do(&redis, "MEMORY USAGE polder:{x}:limit:1")), 50, 200);
    }
    redis_do(&redis, "DEL polder:{x}:limit:1");
    tell("200 6 0 100 1 2 3 4 5 6");
    assert_in_range(atoi(redis_do(&redis, "PTTL polder:{x}:limit:1")), 1000, 3000);
    take_from("42", "0", HOUR_FIXED, &ms);
    take_from("42", "0", terms[0], &ms); /* another host's window is still counted on */
    assert_in_range(atoi(redis_do(&redis, "PTTL polder:{x}:limit:1")), 3600000, 7300000);
}

/* The store itself may know more than any host that is left: it has kept its data. */
static void what_a_store_has_kept_counts_once_too(void **state)
{
    (void)state;
    char terms[64];
    begin_epoch();
    assert_int_equal(take_up("3600000 1 30 10 1"), 30);
    redis_do(&redis, "HSET polder:{x}:limit:1 e 41"); /* as if it had been another */
    snprintf(terms, sizeof terms, "3600000 1 0 %u 20", (unsigned)(3600000 - store_ms() % 3600000));
    tell(terms);
    assert_int_equal(take_up(HOUR_FIXED), 70);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_up("3600000 0 40 10 1"), 40);
    redis_do(&redis, "HSET polder:{x}:limit:1 e 41");
    tell("3600000 0 100 0 20971520 0 1"); /* 20 */
    assert_int_equal(take_up(HOUR_GCRA), 60);
}

/* A change reaches one host after the other. */
static void windows_of_other_hosts_count_where_they_overlap(void **state)
{
    (void)state;
    begin_epoch();
    assert_int_equal(take_up(HOUR_SLIDING), 100);
    assert_int_equal(take_up(HOUR_FIXED), 0);
    assert_int_equal(take_up("7200000 1 150 10 1"), 50);
    assert_int_equal(take_up(HOUR_GCRA), 0);
    assert_int_equal(take_up("720000 6 170 10 1"), 20);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_int_equal(take_up("3600000 0 90 10 1"), 90);
    assert_int_equal(take_up(HOUR_SLIDING), 10);
}

/* From so many a day to fewer a second: a day's count says nothing of the last seconds for long. */
static void what_other_windows_have_counts_while_it_may_be_in_ones_own(void **state)
{
    (void)state;
    uint64_t ms;
    begin_epoch();
    assert_int_equal(take_up("86400000 1 100 10 1"), 100);
    assert_int_equal(take_from("42", "0", "1000 1 10 10 1", &ms), 0);
    assert_in_range(ms, 1, 1000);
    assert_int_equal(take_from("42", "0", "200 6 10 10 1", &ms), 0);
    assert_in_range(ms, 1, 1200);
    assert_int_equal(take_from("42", "0", "1000 0 10 10 1", &ms), 0);
    assert_in_range(ms, 1, 1000);
    minutes_pass(1);
    assert_int_equal(take_up("1000 0 10 10 1"), 10);
    minutes_pass(1);
    assert_int_equal(take_up("1000 1 10 10 1"), 10);
    assert_int_equal(take_from("42", "0", "86400000 1 100 10 1", &ms), 0);
}

/* The bucket of another host, or of former terms, is over it. */
static void a_bucket_of_more_flows_out_as_that_one_says(void **state)
{
    (void)state;
    uint64_t ms;
    begin_epoch();
    assert_in_range(take_up("60000 0 10000 5000 1"), 10000, 10100); /* one flows out in 6 ms */
    assert_int_equal(take_from("42", "0", "60000 0 10 1 1", &ms), 0);
    assert_in_range(ms, 1, 60000);
    assert_in_range(take_up("60000 0 10000 1 1"), 0, 100); /* what has flown out meanwhile */
    minutes_pass(2);
    assert_int_equal(take_up("60000 0 10 1 1"), 10);
    assert_in_range(take_up("60000 0 10000 5000 1"), 9990, 10090);
}

static void shares_are_kept_for_who_may_use_them(void **state)
{
    (void)state;
    begin_epoch();
    assert_string_equal(share("a", 0, "0", "0", true), "0"); /* learning: none grows */
    assert_string_equal(share("a", 0, "0", "0", false), "1000000");
    assert_string_equal(share("b", 0, "0", "0", false), "0"); /* until a knows of it */
    assert_string_equal(share("a", 100000, "1000000", "0", false), "500000"); /* held for long */
    assert_string_equal(share("a", 100000, "500000", "0", false), "500000");
    assert_string_equal(share("b", 100000, "0", "0", false), "500000");
    assert_string_equal(share("b", 100000, "500000", "0", false), "500000");
    assert_int_equal(take_up(HOUR_FIXED), 100); /* both are members */
    /* a was alone, but for less than it takes until it may use its share of such a window */
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_string_equal(share("a", 100000, "500000", "3599000", false), "500000");
    assert_int_equal(take_up(HOUR_FIXED), 100);
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_string_equal(share("a", 100000, "500000", "3600000", false), "500000");
    assert_int_equal(take_up(HOUR_FIXED), 50);
    /* which matters until such a window cannot be any more, whatever came after it */
    redis_do(&redis, "DEL polder:{x}:limit:1");
    assert_string_equal(share("a", 100000, "500000", "100", false), "500000");
    assert_int_equal(take_up(HOUR_FIXED), 50);
    /* a window that begins after its lease has ended: it has the share to itself */
    redis_do(&redis, "DEL polder:{x}:shares polder:{x}:limit:1");
    assert_string_equal(share("a", -(int64_t)store_ms() + 1000, "300000", "0", true), "300000");
    assert_int_equal(take_up(HOUR_FIXED), 70);
}

/* In which the bucket flows out slowly, as it may not be all that there is. */
static void a_part_that_was_kept_and_not_used_goes_back_to_the_bucket(void **state)
{
    (void)state;
    for (unsigned used = 0; used <= 1; used++) {
        begin_epoch(); /* its lease has ended */
        assert_string_equal(share("a", -7200000, "500000", "0", true), "500000");
        assert_int_equal(host_takes(1, 200, 0, 0, 0), 50);
        assert_int_equal(host_takes(1, 200, 0, 0, 0), 0);
        minutes_pass(30);
        assert_int_equal(host_takes(1, 200, 0, 0, 0), 25); /* 50 would have flown out */
        share("a", 100000, "500000", used ? "3960001" : "3959000", false);
        assert_int_equal(host_takes(1, 200, 0, 0, 0), used ? 0 : 75);
        redis_do(&redis, "DEL polder:{x}:shares"); /* so long ago that nothing is kept */
        assert_int_equal(host_takes(1, 200, 0, 0, 0), used ? 50 : 0);
    }
}

static void what_an_earlier_run_of_a_host_may_have_used_is_kept(void **state)
{
    (void)state;
    begin_epoch();
    /* it was alone from the end of its lease on, for two hours */
    assert_string_equal(share("a", -7200000, "300000", "0", true), "300000");
    run = "abd";
    assert_string_equal(share("a", 100000, "0", "0", true), "0");
    assert_int_equal(take_up(HOUR_FIXED), 70);
    /* it has not been in this history of the store, but it was in one before */
    begin_epoch();
    fresh = "1";
    assert_string_equal(share("a", 100000, "300000", "0", true), "300000");
    assert_int_equal(take_up(HOUR_FIXED), 70);
    begin_epoch(); /* it never had a share */
    assert_string_equal(share("a", 100000, "0", "0", true), "0");
    assert_int_equal(take_up(HOUR_FIXED), 100);
    fresh = "0";
    run = "abc";
}

/* It is seen while the store learns, and is gone again before it has a lease. */
static void windows_that_began_before_a_host_came_are_kept_for_it(void **state)
{
    (void)state;
    without = "3600000";
    begin_epoch();
    assert_string_equal(share("a", 0, "300000", "0", true), "300000");
    assert_int_equal(take_up(HOUR_FIXED), 70);
    begin_epoch();
    assert_string_equal(share("a", -7200000, "300000", "0", true), "300000");
    run = "abd";
    assert_string_equal(share("a", 0, "300000", "0", true), "300000");
    assert_int_equal(take_up("1000000 1 100 10 1"), 70);
    run = "abc";
    without = "0";
}

static void what_a_host_that_has_not_come_yet_may_use_is_kept(void **state)
{
    (void)state;
    char learned[24];
    begin_epoch();
    snprintf(learned, sizeof learned, "%" PRIu64, store_ms());
    assert_string_equal(share("a", 100000, "400000", "0", false), "400000");
    assert_int_equal(take_up_since(learned, HOUR_FIXED), 40);
    assert_string_equal(share("b", 100000, "350000", "0", false), "350000");
    assert_int_equal(take_up_since(learned, HOUR_FIXED), 35);
    assert_int_equal(take_up(HOUR_FIXED), 25); /* not for ever */
}

static int redis_up(void **state)
{
    (void)state;
    redis_start(&redis);
    return 0;
}

static int redis_down(void **state)
{
    (void)state;
    redis_remove(&redis);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        WITH_TABLE(what_is_granted_is_used_once_and_not_after_its_end),
        WITH_TABLE(a_refusal_holds_until_its_end),
        WITH_TABLE(what_costs_more_than_is_left_is_refused_while_that_is_used),
        WITH_TABLE(what_is_given_back_is_there_again),
        WITH_TABLE(what_was_never_used_goes_back_once),
        WITH_TABLE(what_the_store_has_said_is_there_to_be_told),
        WITH_TABLE(the_store_is_asked_once_and_again_if_it_does_not_answer),
        WITH_TABLE(demand_is_followed),
        WITH_TABLE(what_is_held_of_a_bucket_is_told_and_when_it_was_used),
        WITH_TABLE(no_grant_is_used_twice_by_whoever_meets),
        WITH_TABLE(a_share_is_used_from_the_first_window_that_begins_after_the_lease),
        cmocka_unit_test(hashes_are_the_same_on_all_hosts_and_for_no_other_secret),
        cmocka_unit_test(the_store_grants_the_limit_and_no_more),
        cmocka_unit_test(a_bucket_has_all_of_the_limit),
        cmocka_unit_test(what_a_host_may_use_yet_does_not_flow_out),
        cmocka_unit_test(what_a_host_has_used_flows_out_from_then_on),
        cmocka_unit_test(what_a_host_has_told_that_it_holds_was_not_used_before),
        cmocka_unit_test(what_two_hosts_have_used_flows_out_once),
        cmocka_unit_test(who_asks_twice_in_one_call_holds_both),
        cmocka_unit_test(a_part_that_was_kept_and_not_used_goes_back_to_the_bucket),
        cmocka_unit_test(what_is_given_back_to_the_store_is_granted_again),
        cmocka_unit_test(what_a_host_has_counted_before_counts),
        WITH_TABLE(it_is_reported_once_and_only_soon_after_a_reload),
        cmocka_unit_test(nothing_is_granted_before_all_have_told_what_they_know),
        cmocka_unit_test(nothing_is_granted_while_a_host_is_at_reporting),
        cmocka_unit_test(what_hosts_tell_is_counted_once),
        cmocka_unit_test(what_a_store_has_kept_counts_once_too),
        cmocka_unit_test(what_a_store_keeps_of_a_client_is_little_and_gone_soon),
        cmocka_unit_test(windows_of_other_hosts_count_where_they_overlap),
        cmocka_unit_test(what_other_windows_have_counts_while_it_may_be_in_ones_own),
        cmocka_unit_test(a_bucket_of_more_flows_out_as_that_one_says),
        cmocka_unit_test(what_an_earlier_run_of_a_host_may_have_used_is_kept),
        cmocka_unit_test(what_a_host_that_has_not_come_yet_may_use_is_kept),
        cmocka_unit_test(windows_that_began_before_a_host_came_are_kept_for_it),
        cmocka_unit_test(shares_are_kept_for_who_may_use_them),
    };
    return cmocka_run_group_tests(tests, redis_up, redis_down);
}
