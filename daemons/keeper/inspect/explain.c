/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * explain: names for what only has numbers in a record. A record knows the slots of its tags; their
 * names stand in the head that is stored with it, in the fields that workers take them from
 * (polder/tags.h).
 */
#include "daemons/keeper/removals.h"
#include "polder/head_lines.h"
#include "polder/tags.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct search {
    const struct inval_page *page;
    uint32_t slot;
    char *out;
    size_t size, len;
};

static void look_tag(void *arg, struct str tag)
{
    struct search *s = arg;
    if (s->len || !tag.len || inval_tag_slot(s->page, tag.at, tag.len) != s->slot)
        return;
    s->len = tag.len < s->size ? tag.len : s->size - 1;
    memcpy(s->out, tag.at, s->len);
    s->out[s->len] = 0;
}

static void look_line(struct search *s, struct str line)
{
    tags_each_of_line(line, look_tag, s);
}

size_t explain_tag(const struct inval_page *page, const struct cache_view *v, uint32_t slot,
                   char *out, size_t size)
{
    struct search s = {page, inval_slot_alone(slot), out, size, 0};
    struct str rest = {v->head, v->record->head_len}, line;
    while (!s.len && head_line_next(&rest, &line))
        look_line(&s, line);
    return s.len;
}

static void explain_tag_cause(const struct inval_page *page, const struct cache_view *v,
                              const struct inval_cause *cause, char *out, size_t size)
{
    char name[64];
    const uint32_t slot = v->record->tag_slot[cause->tag % CACHE_TAGS_MAX];
    const char *what = cause->by == INVAL_BY_GROUP ? "group" : "tag";
    if (explain_tag(page, v, slot, name, sizeof name))
        snprintf(out, size, "%s %s", what, name);
    else
        snprintf(out, size, "the %s in slot %u", what, inval_slot_alone(slot));
}

void explain_cause(const struct inval_page *page, const struct cache_view *v,
                   const struct inval_cause *cause, char *out, size_t size)
{
    switch (cause->by) {
    case INVAL_BY_ALL:
        snprintf(out, size, "everything");
        break;
    case INVAL_BY_URL:
        snprintf(out, size, "its URL");
        break;
    case INVAL_BY_PATH:
        snprintf(out, size, "its path on all hosts");
        break;
    case INVAL_BY_CHANGE:
        snprintf(out, size, "a change at or above its path");
        break;
    case INVAL_BY_TAG:
    case INVAL_BY_GROUP:
        explain_tag_cause(page, v, cause, out, size);
        break;
    case INVAL_BY_PREFIX:
        snprintf(out, size, "prefix %.*s", (int)cause->len, cause->prefix);
        break;
    }
}
