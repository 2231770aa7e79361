/* SPDX-License-Identifier: BSD-2-Clause */
/* Alerts: when one is pending, fires and is over, whatever the values do; that a death of control
 * on any line makes nothing fire twice and nothing be forgotten; and that all of it is bounded. */
#include "daemons/control/model/alerts.h"
#include "daemons/control/control.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/history.h"
#include "polder/clock.h"
#include "polder/conditions.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

/* ---- what control would know ---- */

static float minute[HISTORY_WIDTH];
static bool minute_known;

/* Instead of model/history.c. */
bool history_minute(const struct control *c, float *values)
{
    (void)c;
    memcpy(values, minute, sizeof minute);
    return minute_known;
}

static unsigned events;

/* Instead of model/events.c. */
void events_add(const struct control *c, const char *noun, const char *what, const char *subject,
                uint64_t count, const char *format, ...)
{
    (void)c, (void)noun, (void)what, (void)subject, (void)count, (void)format;
    events++;
}

struct rig {
    struct control control;
    struct shared shared;
    struct shm_segment conditions;
    struct config config;
    struct config_alert rule[4];
    int64_t *offset; /* of the clock */
    char clock[64];
};

static void advance(struct rig *r, int64_t ms)
{
    *r->offset += ms;
}

static int open_clock(void **state)
{
    static char path[] = "/tmp/polder-alerts-clock.XXXXXX";
    const int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0 && ftruncate(fd, 8) == 0);
    setenv("POLDER_CLOCK", path, 1);
    clock_open();
    close(fd);
    return 0;
}

static int close_clock(void **state)
{
    (void)state;
    return unlink(getenv("POLDER_CLOCK"));
}

static void *zeroed(size_t size)
{
    void *at = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_non_null(at);
    memset(at, 0, size);
    return at;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    FILE *f = fopen(getenv("POLDER_CLOCK"), "r+");
    r->offset = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    fclose(f);
    assert_true(r->offset != MAP_FAILED);
    r->shared.alerts = zeroed(sizeof *r->shared.alerts);
    r->shared.history = zeroed(sizeof *r->shared.history);
    r->shared.notifier_event = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(conditions_open(&r->conditions, NULL, CONDITIONS_OF_POLDERD), 0);
    r->shared.conditions = conditions_of(&r->conditions);
    r->config.alerts = r->rule;
    r->config.on_alert = "/bin/true";
    r->control.shared = &r->shared;
    r->control.config = &r->config;
    r->control.alerts = alerts_new();
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        minute[i] = NAN;
    minute_known = true;
    events = 0;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    alerts_free(r->control.alerts);
    shm_close(&r->conditions);
    close(r->shared.notifier_event);
    free(r->shared.alerts);
    free(r->shared.history);
    munmap(r->offset, 8);
    free(r);
    return 0;
}

/* A new control, with what is in shared memory. */
static void respawn(struct rig *r)
{
    alerts_free(r->control.alerts);
    r->control.alerts = alerts_new();
}

static struct config_alert *add(struct rig *r, struct config_alert rule)
{
    rule.enabled = true;
    rule.factor = rule.factor > 0 ? rule.factor : 1;
    rule.severity = "warning";
    rule.meaning = "it is wrong";
    rule.action = "mend it";
    rule.unit = "";
    rule.metric = rule.metric ? rule.metric : "";
    r->rule[r->config.n_alerts] = rule;
    return &r->rule[r->config.n_alerts++];
}

static void hit_rate_rule(struct rig *r, uint32_t for_ms)
{
    add(r, (struct config_alert){.name = "low",
                                 .metric = "hitRate",
                                 .series = HISTORY_HIT_RATE,
                                 .below = true,
                                 .threshold = 60,
                                 .clear = 70,
                                 .factor = 100,
                                 .for_ms = for_ms});
}

/* Per second; the rate of hits is of as many lookups. */
static void traffic(float lookups, float hit_rate)
{
    minute[HISTORY_HITS] = lookups;
    minute[HISTORY_STALE] = minute[HISTORY_MISSES] = 0;
    minute[HISTORY_HIT_RATE] = hit_rate;
}

static enum alert_state state_of(struct rig *r, const char *name, const char *subject)
{
    const struct alert_row *row = alert_find(r->shared.alerts, alert_id(name, subject));
    return row ? alert_view(row).state : ALERT_NONE;
}

static enum alert_state after(struct rig *r, int64_t ms)
{
    advance(r, ms);
    alerts_follow(&r->control);
    return state_of(r, "low", "");
}

static unsigned notices(struct rig *r)
{
    struct alert_notice *at, n;
    unsigned count = 0;
    for (uint64_t number = 0; alert_notice_next(r->shared.alerts, number, &at, &n); count++)
        number = atomic_load(&n.number);
    return count;
}

/* ---- states ---- */

static void it_fires_when_it_has_held_for_long_and_is_over_only_when_it_is_clear(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 60000);
    traffic(10, .9f);
    assert_int_equal(after(r, 1000), ALERT_NONE);
    traffic(10, .5f);
    assert_int_equal(after(r, 1000), ALERT_PENDING);
    assert_int_equal(after(r, 50000), ALERT_PENDING);
    traffic(10, .65f); /* not wrong any more */
    assert_int_equal(after(r, 1000), ALERT_NONE);
    traffic(10, .5f);
    assert_int_equal(after(r, 1000), ALERT_PENDING);
    assert_int_equal(after(r, 59000), ALERT_PENDING);
    assert_int_equal(notices(r), 0);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(notices(r), 1);
    traffic(10, .65f); /* between threshold and clear */
    assert_int_equal(after(r, 100000), ALERT_FIRING);
    traffic(10, .71f);
    assert_int_equal(after(r, 1000), ALERT_RESOLVED);
    assert_int_equal(notices(r), 2);
    assert_int_equal(events, 2);
    traffic(10, .5f);
    assert_int_equal(after(r, 1000), ALERT_PENDING);
    traffic(10, .9f);
    assert_int_equal(after(r, 1000), ALERT_NONE);
    assert_int_equal(notices(r), 2);
}

static void a_share_of_nothing_never_fires_and_ends_what_fires(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 0);
    traffic(0, NAN);
    assert_int_equal(after(r, 1000), ALERT_NONE);
    traffic(.15f, 0); /* nine a minute are too few to say anything */
    assert_int_equal(after(r, 1000), ALERT_NONE);
    traffic(1, 0);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    traffic(0, NAN);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(after(r, 58000), ALERT_FIRING);
    assert_int_equal(after(r, 3000), ALERT_RESOLVED);
}

static void what_was_over_is_forgotten_after_an_hour(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 0);
    traffic(10, 0);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    traffic(10, 1);
    assert_int_equal(after(r, 1000), ALERT_RESOLVED);
    assert_int_equal(after(r, 3590000), ALERT_RESOLVED);
    assert_int_equal(after(r, 11000), ALERT_NONE);
}

static void websockets_are_judged_by_the_limit_in_force(void **state)
{
    struct rig *r = *state;
    add(r, (struct config_alert){.name = "low",
                                 .metric = "wsDemand",
                                 .series = HISTORY_WS_DEMAND,
                                 .of_limit = true,
                                 .threshold = NAN,
                                 .clear = NAN});
    assert_int_equal(after(r, 1000), ALERT_NONE); /* there are no WebSockets */
    minute[HISTORY_WS_MAX] = 50;
    minute[HISTORY_WS_DEMAND] = 50; /* all of them are open, and nobody was refused */
    assert_int_equal(after(r, 1000), ALERT_NONE);
    minute[HISTORY_WS_DEMAND] = 51;
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    struct alert_shown shown;
    alerts_show(&r->control, alert_find(r->shared.alerts, alert_id("low", "")), &shown);
    assert_string_equal(shown.summary,
                        "it is wrong: WebSockets open, and those refused within the last minute: "
                        "51, alert above 50 (wsDemand)");
    minute[HISTORY_WS_MAX] = 100; /* ws set */
    assert_int_equal(after(r, 1000), ALERT_RESOLVED);
}

static void each_server_is_judged_by_itself(void **state)
{
    struct rig *r = *state;
    const uint64_t id[] = {1, 2};
    const char subject[2][HISTORY_SUBJECT] = {"u/a", "u/b"};
    size_t row[2];
    add(r, (struct config_alert){.name = "low",
                                 .metric = "serverErrorRate",
                                 .series = HISTORY_SERVER_ERROR_RATE,
                                 .of_server = true,
                                 .threshold = 5,
                                 .clear = 4,
                                 .factor = 100});
    history_servers_put(r->shared.history, id, subject, 2, 1, row);
    for (size_t i = 0; i < 2; i++) {
        minute[history_server_column(row[i], HISTORY_SERVER_REQUESTS)] = 10;
        minute[history_server_column(row[i], HISTORY_SERVER_ERRORS)] = 0;
        minute[history_server_column(row[i], HISTORY_SERVER_ERROR_RATE)] = (float)i * .2f;
    }
    after(r, 1000);
    assert_int_equal(state_of(r, "low", "u/a"), ALERT_NONE);
    assert_int_equal(state_of(r, "low", "u/b"), ALERT_FIRING);
    minute[history_server_column(row[1], HISTORY_SERVER_ERROR_RATE)] = .045f; /* not clear yet */
    after(r, 1000);
    assert_int_equal(state_of(r, "low", "u/b"), ALERT_FIRING);
    minute[history_server_column(row[1], HISTORY_SERVER_ERROR_RATE)] = NAN; /* it has left */
    after(r, 1000);
    after(r, 61000);
    assert_int_equal(state_of(r, "low", "u/b"), ALERT_RESOLVED);
}

static void a_condition_is_an_alert_as_long_as_it_is_raised(void **state)
{
    struct rig *r = *state;
    add(r,
        (struct config_alert){
            .name = "low", .of_condition = true, .condition = COND_BACKEND_DOWN, .for_ms = 10000});
    condition_raise(r->shared.conditions, COND_BACKEND_DOWN, "u/\"a\"", "refused", 1);
    condition_raise(r->shared.conditions, COND_DISK_FULL, NULL, NULL, 1); /* has no rule here */
    after(r, 1000);
    assert_int_equal(state_of(r, "low", "u/\"a\""), ALERT_PENDING);
    after(r, 10000);
    assert_int_equal(state_of(r, "low", "u/\"a\""), ALERT_FIRING);
    struct alert_shown shown;
    alerts_show(&r->control, alert_find(r->shared.alerts, alert_id("low", "u/\"a\"")), &shown);
    assert_string_equal(shown.summary, "it is wrong: refused");
    json_error_t e;
    char *text = alerts_json(&shown);
    json_t *j = json_loads(text, 0, &e);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "subject")), "u/\"a\"");
    json_decref(j);
    free(text);
    condition_clear(r->shared.conditions, COND_BACKEND_DOWN, "u/\"a\"", 1);
    after(r, 1000);
    assert_int_equal(state_of(r, "low", "u/\"a\""), ALERT_RESOLVED);
}

static void a_rule_that_is_taken_away_is_over(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 0);
    traffic(10, 0);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    r->config.n_alerts = 0;
    assert_int_equal(after(r, 1000), ALERT_RESOLVED);
    assert_int_equal(notices(r), 2);
}

/* ---- deaths of control ---- */

static void a_new_control_fires_nothing_again_and_keeps_what_it_cannot_judge_yet(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 0);
    traffic(10, 0);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    respawn(r);
    minute_known = false;
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(after(r, 100000), ALERT_FIRING);
    minute_known = true;
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(notices(r), 1);
    assert_int_equal(events, 1);
}

/* Between the change of the state, the notice, and the mark that it was told. */
static void a_death_between_firing_and_telling_tells_once(void **state)
{
    struct rig *r = *state;
    hit_rate_rule(r, 0);
    traffic(10, 0);
    struct alert_row *row = alert_take(r->shared.alerts, "low", "");
    alert_move(row, ALERT_PENDING, 1);
    alert_move(row, ALERT_FIRING, clock_mono_ms()); /* dies here: nobody was told */
    respawn(r);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(notices(r), 1);
    atomic_store(&row->notified, 0); /* had died here: the notice was there, the mark was not */
    respawn(r);
    assert_int_equal(after(r, 1000), ALERT_FIRING);
    assert_int_equal(notices(r), 1);
    assert_false(alert_is_untold(row));
}

/* ---- bounds ---- */

static void a_flood_of_alerts_takes_the_room_there_is_and_is_counted(void **state)
{
    struct rig *r = *state;
    char name[32];
    for (int i = 0; i < 2 * ALERT_ROWS; i++) {
        snprintf(name, sizeof name, "a%d", i);
        struct alert_row *row = alert_take(r->shared.alerts, name, "");
        assert_true((row != NULL) == (i < ALERT_ROWS));
        if (!row)
            continue;
        alert_move(row, ALERT_PENDING, 1);
        alert_move(row, ALERT_FIRING, 1);
        alert_tell(r->shared.alerts, row, "{}");
    }
    assert_int_equal(notices(r), ALERT_NOTICES);
    assert_int_equal(atomic_load(&r->shared.alerts->lost), ALERT_ROWS + ALERT_ROWS - ALERT_NOTICES);
    const struct alert_row *list[ALERT_ROWS];
    assert_int_equal(alerts_list(&r->control, list), ALERT_ROWS);
    /* what is over gives way */
    struct alert_row *over = alert_find(r->shared.alerts, alert_id("a7", ""));
    alert_move(over, ALERT_RESOLVED, 2);
    assert_null(alert_take(r->shared.alerts, "new", "")); /* but not before it is told */
    alert_tell(r->shared.alerts, over, NULL);
    assert_ptr_equal(alert_take(r->shared.alerts, "new", ""), over);
}

static void a_long_notice_is_cut_and_one_that_is_replaced_is_not_torn(void **state)
{
    struct rig *r = *state;
    static char text[2 * ALERT_TEXT];
    struct alert_notice *at, n;
    memset(text, 'x', sizeof text - 1);
    struct alert_row *row = alert_take(r->shared.alerts, "long", "");
    alert_move(row, ALERT_PENDING, 1);
    alert_move(row, ALERT_FIRING, 1);
    alert_tell(r->shared.alerts, row, text);
    assert_true(alert_notice_next(r->shared.alerts, 0, &at, &n));
    assert_int_equal(n.len, ALERT_TEXT - 1);
    assert_int_equal(strlen(n.text), ALERT_TEXT - 1);
    atomic_store(&at->number, 0); /* being written by a control that died */
    assert_false(alert_notice_next(r->shared.alerts, 0, &at, &n));
}

#define with_rig(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        with_rig(it_fires_when_it_has_held_for_long_and_is_over_only_when_it_is_clear),
        with_rig(a_share_of_nothing_never_fires_and_ends_what_fires),
        with_rig(what_was_over_is_forgotten_after_an_hour),
        with_rig(websockets_are_judged_by_the_limit_in_force),
        with_rig(each_server_is_judged_by_itself),
        with_rig(a_condition_is_an_alert_as_long_as_it_is_raised),
        with_rig(a_rule_that_is_taken_away_is_over),
        with_rig(a_new_control_fires_nothing_again_and_keeps_what_it_cannot_judge_yet),
        with_rig(a_death_between_firing_and_telling_tells_once),
        with_rig(a_flood_of_alerts_takes_the_room_there_is_and_is_counted),
        with_rig(a_long_notice_is_cut_and_one_that_is_replaced_is_not_torn),
    };
    return cmocka_run_group_tests(tests, open_clock, close_clock);
}
