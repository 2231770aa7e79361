/* SPDX-License-Identifier: BSD-2-Clause */
/* limits_running: this worker's copy of what limits are now, taken when there is a new generation,
 * and the part of what clients are told that is constant until the next one. */
#include "daemons/worker/request/limits.h"
#include "daemons/worker/worker.h"
#include "polder/log.h"
#include "polder/runtime.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the values ---- */

/* Copies of the lists that are not the file's. False: they have changed again meanwhile. */
static bool limits_read_exempt(struct worker *w)
{
    const struct runtime_page *page = &w->process->region->runtime;
    for (uint32_t i = 0; i < w->config->n_limits; i++) {
        const uint32_t n = w->runtime.limit[i].exempt;
        struct limit_state *s = &w->limits->state[i];
        s->exempt = NULL;
        if (n && !s->list && !(s->list = malloc(sizeof *s->list)))
            log_error("limits: no memory for the exempt list of \"%s\"; that of the file is used",
                      w->config->limits[i].name);
        if (!n || !s->list)
            continue;
        if (!runtime_exempt_read(page, w->limits->generation, i, n, s->list))
            return false;
        s->exempt = s->list;
    }
    return true;
}

void limits_read(struct worker *w)
{
    do
        w->limits->generation = runtime_read(&w->process->region->runtime, &w->runtime);
    while (!limits_read_exempt(w));
}

/* ---- the constant part of the fields ---- */

static uint32_t quoted(char *out, size_t size, const char *name)
{
    size_t n = 0;
    out[n++] = '"';
    for (; *name && n + 3 < size; name++) {
        if (*name < 0x20 || *name > 0x7e) /* not in an sf-string */
            continue;
        if (*name == '"' || *name == '\\')
            out[n++] = '\\';
        out[n++] = *name;
    }
    out[n++] = '"';
    out[n] = 0;
    return (uint32_t)n;
}

void limits_prepare(struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_limits; i++) {
        const struct config_limit *l = &w->config->limits[i];
        const struct runtime_limit *v = &w->runtime.limit[l->index];
        struct limit_state *s = &w->limits->state[l->index];
        s->name_len = quoted(s->name, sizeof s->name, l->name);
        int n = snprintf(s->policy, sizeof s->policy, "%s;q=%u", s->name, v->requests);
        if (v->window_ms >= 1000) /* the draft knows whole seconds only */
            n += snprintf(s->policy + n, sizeof s->policy - (size_t)n, ";w=%llu",
                          (unsigned long long)(v->window_ms + 999) / 1000);
        s->policy_len = (uint32_t)n;
        s->alone_len =
            (uint32_t)snprintf(s->alone, sizeof s->alone,
                               "RateLimit-Policy: %s\r\nRateLimit: %s;r=", s->policy, s->name);
    }
}

void limits_free(struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_limits; i++)
        free(w->limits->state[i].list);
    free(w->limits->state);
}
