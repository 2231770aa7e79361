/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_remember: see fleet_remember.h. */
#include "daemons/control/model/fleet_remember.h"
#include "daemons/control/control.h"
#include "daemons/control/model/invalidation.h"
#include "polder/cache.h"
#include "polder/inval.h"
#include "polder/shared.h"

#include <string.h>

static void remember_group(struct inval_page *page, const struct fleet_entry *e)
{
    const char *newline = memchr(e->text, '\n', e->len);
    if (!newline)
        return;
    const size_t len = (size_t)(newline - e->text);
    inval_mark_group(page, inval_origin(page, e->text, len), newline + 1, e->len - len - 1);
}

static void remember_url(struct inval_page *page, const struct fleet_entry *e)
{
    if (e->text[0] == '/')
        inval_mark_path(page, e->text, e->len, e->soft);
    else
        inval_mark_url(page, e->text, e->len, e->soft);
    if (e->kind == FLEET_CHANGE)
        cache_negative_mark(page, e->text, e->len);
}

/* The keeper retires the ban. */
static void remember_prefix(struct control *c, const struct fleet_entry *e)
{
    struct invalidation in = {.soft = e->soft, .len = (int)e->len};
    memcpy(in.text, e->text, e->len);
    if (invalidate_probes(c, &in, true))
        inval_mark_all(c->shared->inval, e->soft);
}

void fleet_remember(struct control *c, const struct fleet_entry *e)
{
    struct inval_page *page = c->shared->inval;
    const struct invalidation *in = NULL;
    const bool fits = e->len && e->len < sizeof in->text && !memchr(e->text, 0, e->len);
    if (e->kind == FLEET_TEXT)
        return;
    if (e->kind == FLEET_GROUP)
        remember_group(page, e);
    else if (!fits || e->kind == FLEET_ALL)
        inval_mark_all(page, e->soft);
    else if (e->kind == FLEET_TAG)
        inval_mark_tag(page, e->text, e->len, e->soft);
    else if (e->kind == FLEET_PREFIX)
        remember_prefix(c, e);
    else
        remember_url(page, e);
}
