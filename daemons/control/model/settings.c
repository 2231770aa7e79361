/* SPDX-License-Identifier: BSD-2-Clause */
/* settings: see settings.h. */
#include "daemons/control/model/settings.h"
#include "daemons/control/control.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/running.h"
#include "polder/settings.h"
#include "polder/state_msgpack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool settings_are_handed_on(const struct control *c)
{
    return atomic_load(&c->shared->proc->upgrade_state) == PROC_UPGRADE_RUNNING;
}

static void note(void *arg, bool kept, const char *what)
{
    struct settings_report *r = arg;
    if (kept)
        log_info("reload: kept %s", what);
    else
        log_warning("reload: reset %s: the file's value has changed", what);
    if (kept && r->n_kept < SETTINGS_REPORT_LINES)
        snprintf(r->kept[r->n_kept++], SETTINGS_REPORT_LINE, "%s", what);
    if (!kept && r->n_reset < SETTINGS_REPORT_LINES)
        snprintf(r->reset[r->n_reset++], SETTINGS_REPORT_LINE, "%s", what);
}

/* The master has stored the level already, by the same rule. */
static void note_log_level(const struct control *c, const struct config *old,
                           struct settings_report *r)
{
    const uint32_t level = atomic_load(&c->shared->proc->log_level);
    char text[64];
    if (c->config->log_level != old->log_level || level == c->config->log_level)
        return;
    snprintf(text, sizeof text, "log level %s (file: %s)", log_level_word((enum log_level)level),
             log_level_word((enum log_level)c->config->log_level));
    note(r, true, text);
}

void settings_forget_old(const struct control *c)
{
    const char *dir = c->config->state_dir;
    const int limits = runtime_persist_forget_overruled(dir, c->config),
              others = settings_forget_overruled(dir, c->config), code = limits ? limits : others;
    if (code && !state_msgpack_is_foreign(code))
        log_warning("config: what the file has overruled of what was made permanent cannot be "
                    "taken out of %s: %s",
                    dir, strerror(-code));
}

/* The master's child has filled the page; what has changed since is taken over here. */
void settings_carry_over(struct control *c, const struct config_region *old)
{
    struct runtime_values values, filled;
    struct runtime_page *page = &c->shared->region[c->region]->runtime;
    if (!c->report && !(c->report = malloc(sizeof *c->report)))
        return;
    c->report->n_kept = c->report->n_reset = 0;
    const struct running_notes notes = {note, c->report};
    running_fill(c->config, page, old, &values, &notes);
    runtime_read(page, &filled);
    if (memcmp(&values, &filled, sizeof values))
        runtime_publish(page, &values);
    running_carry_trials(c->config, page, old);
    note_log_level(c, old->config, c->report);
    if (c->ws_changed) /* which, the supervisor knows */
        note(c->report, true,
             "what ws set has changed, where the file says what it said (the supervisor's log has "
             "each)");
    settings_forget_old(c);
}
