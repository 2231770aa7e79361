/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A network that is split, with a master and hosts on each side; packets that are lost in one direction;
 * stores that stand still. trio.h says what must hold whatever happens.
 */
#include "tests/chaos/trio.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct trio trio;

static unsigned since(uint64_t ms)
{
    return (unsigned)(mono_ms() - ms);
}

/* What the operator is told by an invalidation at that host. */
static bool invalidation_says(int host, const char *text)
{
    const char *out;
    assert_int_equal(ctl(&trio.at[host].host, &out, "--timeout 30s cache invalidate --all"), 0);
    return strstr(out, text);
}

static void a_master_that_is_alone_lets_no_host_be_a_member(void **state)
{
    int now = -1;
    (void)state;
    trio_start(&trio);
    trio_lose_all(0, true);
    const uint64_t split_ms = mono_ms();
    wait_until(trio_says(&trio, 0, "NOREPLICAS"), 15000);
    const unsigned cut_ms = since(split_ms);
    assert_true(trio_is_master(&trio, 0));
    assert_true(invalidation_says(0, "fleet        cut off"));
    wait_until((now = trio_master_but(&trio, 0)) > 0, 20000);
    const unsigned elected_ms = since(split_ms);
    wait_until(trio_follows(&trio, 1, now) && trio_follows(&trio, 2, now), 15000);
    const unsigned member_ms = since(split_ms);
    assert_true(invalidation_says(1, "hosts        1"));
    printf("split: the host of the old master was cut off after %u ms; beyond, there was a master "
           "after %u, hosts were members after %u, and acknowledged after %u\n",
           cut_ms, elected_ms, member_ms, since(split_ms));
    assert_false(trio_says(&trio, 0, "\"state\": \"member\""));
    assert_true(trio_is_master(&trio, 0));
    trio_lose_all(0, false);
    const uint64_t healed_ms = mono_ms();
    for (int i = 0; i < TRIO; i++)
        wait_until(trio_follows(&trio, i, now), 15000);
    printf("split: all are members %u ms after it\n", since(healed_ms));
    assert_true(invalidation_says(0, "hosts        2"));
    trio_stop(&trio, "split");
}

/* ---- at random, for long ---- */

static unsigned dice(unsigned sides)
{
    return (unsigned)rand() % sides;
}

static void lose_some(bool lost[TRIO][TRIO])
{
    const int alone = (int)dice(TRIO);
    const unsigned way = dice(5);
    memset(lost, 0, sizeof(bool[TRIO][TRIO]));
    for (int i = 0; i < TRIO; i++)
        for (int k = 0; k < TRIO; k++)
            lost[i][k] = i != k && (way == 0   ? i == alone || k == alone
                                    : way == 1 ? i == alone
                                    : way == 2 ? k == alone
                                    : way == 3 ? i == alone && k == (alone + 1) % TRIO
                                               : dice(3) == 0);
}

static void set_lost(bool lost[TRIO][TRIO], bool lose)
{
    for (int i = 0; i < TRIO; i++)
        for (int k = 0; k < TRIO; k++)
            if (lost[i][k])
                nets_lose(i, k, lose);
}

static void say(unsigned round, bool lost[TRIO][TRIO], int still, unsigned ms)
{
    printf("split: round %u:", round);
    for (int i = 0; i < TRIO; i++)
        for (int k = 0; k < TRIO; k++)
            if (lost[i][k])
                printf(" %d>%d", i, k);
    printf("%s%.0d, %u ms; masters", still >= 0 ? " still " : "", still + 1, ms);
    for (int i = 0; i < TRIO; i++)
        printf(" %d", trio_is_master(&trio, i));
    printf("\n");
}

/* A store stands still for a part of it: longer than it takes to elect another one, or not. */
static void one_round(unsigned round)
{
    bool lost[TRIO][TRIO];
    const int still = dice(3) ? -1 : (int)dice(TRIO);
    const unsigned ms = 500 + dice(14000);
    lose_some(lost);
    say(round, lost, still, ms);
    if (still >= 0)
        kill(trio.at[still].store.pid, SIGSTOP);
    nap_ms(dice(3) ? 0 : dice(8000));
    set_lost(lost, true);
    nap_ms(ms);
    if (still >= 0)
        kill(trio.at[still].store.pid, SIGCONT);
    nap_ms(dice(3) ? 0 : dice(4000));
    set_lost(lost, false);
    nap_ms(dice(10000));
}

static bool all_are_members(void)
{
    const int now = trio_master_but(&trio, -1);
    bool good = now >= 0;
    for (int i = 0; good && i < TRIO; i++)
        good = trio_follows(&trio, i, now);
    return good;
}

static void nor_whatever_packets_are_lost(void **state)
{
    const unsigned rounds = chaos_count("CHAOS_SPLITS", 20, 0);
    (void)state;
    if (!rounds)
        skip();
    srand(chaos_count("CHAOS_SEED", 1, 1));
    trio_start(&trio);
    trio.limits_lapse = true;
    for (unsigned n = 0; n < rounds; n++)
        one_round(n);
    wait_until(all_are_members(), 60000);
    trio_stop(&trio, "lost packets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_master_that_is_alone_lets_no_host_be_a_member),
        cmocka_unit_test(nor_whatever_packets_are_lost),
    };
    return trio_prepare("split") ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
