/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_alerts: the rules of alerts: those that are built in, as the file changes them, and
 * those that it adds. */
#include "libshared/config/config_build.h"
#include "polder/conditions.h"
#include "polder/history.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALERT_LIMIT      NAN /* of alerts.def */
#define CONDITION_FOR_MS 10000
#define BACK             .05 /* of the threshold, unless clear says how far */

enum side { ABOVE, BELOW };

static const struct built_in {
    const char *name, *metric;
    enum side side;
    double threshold;
    const char *unit, *severity;
    uint32_t for_ms;
    const char *meaning, *action;
} built_in[] = {
#define ALERT(id, name, metric, side, threshold, unit, severity, for_ms, meaning, action)          \
    {name, metric, side, threshold, unit, severity, for_ms, meaning, action},
#include "libshared/tables/alerts.def"
#undef ALERT
};
#define BUILT_IN (sizeof built_in / sizeof *built_in)

/* ---- metrics ---- */

static bool find_metric(struct config_alert *a, const char *name)
{
    a->metric = name;
    for (uint32_t i = 0; i < HISTORY_SERIES; i++)
        if (!strcmp(history_kind((enum history_series)i)->name, name)) {
            a->series = i;
            return true;
        }
    for (uint32_t i = 0; i < HISTORY_SERVER_SERIES; i++)
        if (!strcmp(history_server_kind((enum history_server_series)i)->name, name)) {
            a->series = i;
            a->of_server = true;
            return true;
        }
    return false;
}

static const char *unit_of(const struct config_alert *a)
{
    return a->of_server ? history_server_kind((enum history_server_series)a->series)->unit
                        : history_kind((enum history_series)a->series)->unit;
}

/* Units in which values may be stated. */
static const struct {
    const char *metric, *stated;
    double factor;
} units[] = {
    {"ratio", "percent", 100}, {"ratio", "ratio", 1}, {"s", "seconds", 1}, {"s", "ms", 1000}};

/* stated "": the first that fits. False: it does not fit the metric. */
static bool find_unit(struct config_alert *a, const char *stated)
{
    const char *unit = unit_of(a);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(units[i].metric, unit) && (!*stated || !strcmp(units[i].stated, stated))) {
            a->unit = units[i].stated;
            a->factor = units[i].factor;
            return true;
        }
    const bool other = !strcmp(unit, "ratio") || !strcmp(unit, "s");
    a->unit = strcmp(unit, "count") ? unit : "";
    a->factor = 1;
    return !other && (!*stated || !strcmp(stated, unit));
}

/* ---- what is built in ---- */

static void put_built_in(struct config_alert *a, const struct built_in *b)
{
    *a = (struct config_alert){.name = b->name,
                               .meaning = b->meaning,
                               .action = b->action,
                               .severity = b->severity,
                               .enabled = true,
                               .built_in = true,
                               .for_ms = b->for_ms,
                               .below = b->side == BELOW,
                               .of_limit = isnan(b->threshold),
                               .threshold = b->threshold,
                               .clear = NAN};
    find_metric(a, b->metric);
    find_unit(a, b->unit);
}

static void put_condition(struct config_alert *a, enum condition_id id)
{
    static const char *const severity[] = {"critical", "warning", "info"};
    const struct condition_kind *k = condition_kind(id);
    *a = (struct config_alert){.name = k->name,
                               .meaning = k->meaning,
                               .action = k->action,
                               .severity = severity[k->severity],
                               .enabled = true,
                               .built_in = true,
                               .for_ms = k->severity == CONDITION_HINT ? 0 : CONDITION_FOR_MS,
                               .of_condition = true,
                               .condition = id,
                               .metric = "",
                               .unit = "",
                               .factor = 1,
                               .threshold = 1};
}

/* ---- what the file says ---- */

static struct config_alert *find_rule(struct config *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_alerts; i++)
        if (!strcmp(c->alerts[i].name, name))
            return &c->alerts[i];
    return NULL;
}

static void complain(struct config_parse *p, const struct config_alert *a, const char *what)
{
    config_complain(p, a->line, "alert \"%.100s\": %s", a->name, what);
}

#define OF_METRICS                                                                                 \
    (CONFIG_BIT(ALERT, metric) | CONFIG_BIT(ALERT, above) | CONFIG_BIT(ALERT, below) |             \
     CONFIG_BIT(ALERT, clear) | CONFIG_BIT(ALERT, unit))

static void take_threshold(struct config_parse *p, struct config_alert *a,
                           const struct config_alert *given, uint64_t stated)
{
    const bool above = stated & CONFIG_BIT(ALERT, above), below = stated & CONFIG_BIT(ALERT, below);
    if (stated & CONFIG_BIT(ALERT, unit) && !find_unit(a, given->unit)) {
        const char *unit = unit_of(a);
        config_complain(p, a->line, "alert \"%.100s\": unit = \"%.40s\" is wrong; expected %s",
                        a->name, given->unit,
                        !strcmp(unit, "ratio") ? "percent or ratio"
                        : !strcmp(unit, "s")   ? "seconds or ms"
                                               : unit);
    }
    if (above && below)
        complain(p, a, "expected either above or below");
    if (above || below) {
        a->below = below;
        a->threshold = given->threshold;
        a->of_limit = false;
    }
    if (stated & CONFIG_BIT(ALERT, clear))
        a->clear = given->clear;
    if (!a->of_limit && a->factor == 100 && a->threshold > 100)
        complain(p, a, "a share is never more than 100 percent; expected a lower threshold");
    if (!a->of_limit && !isnan(a->clear) &&
        (a->below ? a->clear < a->threshold : a->clear > a->threshold))
        complain(p, a,
                 a->below ? "clear is below the threshold; expected a higher one"
                          : "clear is above the threshold; expected a lower one");
}

static void take_given(struct config_parse *p, struct config_alert *a,
                       const struct config_alert *given, uint64_t stated)
{
    a->enabled = given->enabled;
    if (stated & CONFIG_BIT(ALERT, severity))
        a->severity = given->severity;
    if (stated & CONFIG_BIT(ALERT, for))
        a->for_ms = given->for_ms;
    if (!a->of_condition)
        take_threshold(p, a, given, stated);
    else if (stated & OF_METRICS)
        complain(p, a, "it is that of a condition; expected enabled, severity and for");
}

static void complain_metric(struct config_parse *p, const struct config_alert *a,
                            const char *metric)
{
    const char *near = NULL;
    unsigned fewest = CONFIG_NEAR_EDITS;
    for (uint32_t i = 0; i < HISTORY_SERIES; i++)
        config_nearer(metric, history_kind((enum history_series)i)->name, &near, &fewest);
    for (uint32_t i = 0; i < HISTORY_SERVER_SERIES; i++)
        config_nearer(metric, history_server_kind((enum history_server_series)i)->name, &near,
                      &fewest);
    config_complain(p, a->line,
                    "alert \"%.100s\": there is no metric \"%.40s\"; %s%s%spolder-metrics(7) lists "
                    "them, in its section History",
                    a->name, metric, near ? "did you mean \"" : "", near ? near : "",
                    near ? "\"? " : "");
}

/* One that is not built in. */
static void begin_own(struct config_parse *p, struct config_alert *a, const char *metric,
                      uint64_t stated)
{
    a->meaning = "a metric is on the wrong side of its threshold";
    a->action = "look at it: polderctl history METRIC";
    a->severity = "warning";
    a->clear = NAN;
    a->factor = 1;
    a->unit = "";
    if (!(stated & CONFIG_BIT(ALERT, metric)))
        complain(p, a,
                 "none of that name is built in; expected metric = \"p95\" or another of "
                 "polder-metrics(7)");
    else if (!find_metric(a, metric))
        complain_metric(p, a, metric);
    else
        find_unit(a, "");
    if (!(stated & (CONFIG_BIT(ALERT, above) | CONFIG_BIT(ALERT, below))))
        complain(p, a, "expected either above or below");
}

static void take_section(struct config_parse *p, struct config *c, uint32_t i)
{
    cfg_t *s = cfg_getnsec(p->root, "alert", i);
    struct config_alert given = {.metric = "", .unit = ""}, *a = find_rule(c, cfg_title(s));
    const uint64_t stated = config_read(p, s, CONFIG_SECTION_ALERT, &given);
    const int line = config_section_line(p, "alert", 0, i);
    const bool own = !a;
    if (own) {
        a = &c->alerts[c->n_alerts++];
        a->name = config_arena_strdup(p->arena, cfg_title(s));
        config_check_name(p, "alert", cfg_title(s), line);
    }
    a->line = line;
    if (own)
        begin_own(p, a, given.metric, stated);
    else if (stated & CONFIG_BIT(ALERT, metric) && !a->of_condition &&
             strcmp(given.metric, a->metric))
        complain(p, a, "it is built in and has its metric; expected another name");
    take_given(p, a, &given, stated);
}

/* ---- on_alert ---- */

static void check_program(struct config_parse *p, const struct config *c)
{
    struct stat st;
    if (!*c->on_alert)
        return;
    if (stat(c->on_alert, &st) || !S_ISREG(st.st_mode) || access(c->on_alert, X_OK))
        config_warn(p, config_line_of(p, p->root, "on_alert"),
                    "on_alert: %.300s is no program that can be run here and now", c->on_alert);
}

/* A share comes back no further than to all of it. */
static void put_clear(struct config_alert *a)
{
    const double max = !strcmp(a->unit, "percent") ? 100 : !strcmp(a->unit, "ratio") ? 1 : INFINITY;
    if (!isnan(a->clear) || a->of_limit)
        return;
    a->clear = a->threshold * (a->below ? 1 + BACK : 1 - BACK);
    a->clear = a->clear > max ? max : a->clear;
}

void config_build_alerts(struct config_parse *p, struct config *c)
{
    const uint32_t n = cfg_size(p->root, "alert");
    c->alerts = config_take(p, BUILT_IN + CONDITIONS + n, sizeof *c->alerts);
    if (!c->alerts)
        return;
    for (size_t i = 0; i < BUILT_IN; i++)
        put_built_in(&c->alerts[c->n_alerts++], &built_in[i]);
    for (int i = 0; i < CONDITIONS; i++)
        put_condition(&c->alerts[c->n_alerts++], (enum condition_id)i);
    for (uint32_t i = 0; i < n; i++)
        take_section(p, c, i);
    for (uint32_t i = 0; i < c->n_alerts; i++)
        put_clear(&c->alerts[i]);
    check_program(p, c);
}
