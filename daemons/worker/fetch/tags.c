/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tags: the groups that a response belongs to and can be invalidated by (polder/tags.h), as slots
 * of the invalidation page. By name they are one space for the operator; what an unsafe method's
 * answer names is looked for in all of these fields, of its own origin only.
 */
#include "daemons/worker/message/origin.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/worker.h"
#include "polder/field.h"
#include "polder/inval.h"
#include "polder/tags.h"

struct tag_list {
    const struct worker *worker;
    struct cache_record *record;
    uint32_t origin;
    bool too_many; /* one that is not listed could never be invalidated */
};

static void add_tag(void *arg, struct str tag)
{
    struct tag_list *list = arg;
    struct cache_record *rec = list->record;
    if (!tag.len)
        return;
    const uint32_t slot =
        inval_tag_slot(list->worker->shared->inval, tag.at, tag.len) | list->origin;
    for (uint32_t i = 0; i < rec->n_tags; i++)
        if (rec->tag_slot[i] == slot)
            return;
    if (rec->n_tags == CACHE_TAGS_MAX)
        list->too_many = true;
    else
        rec->tag_slot[rec->n_tags++] = slot;
}

static void add_tags(struct tag_list *list, const struct h1_head *head, enum h1_field_id id,
                     const char *separators)
{
    char joined[H1_HEAD_MAX];
    if (!separators) { /* one list, on however many lines */
        const size_t n = h1_join(head, id, joined, sizeof joined);
        if (n)
            tags_each((struct str){joined, n}, NULL, add_tag, list);
        return;
    }
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].id == id)
            tags_each(head->field[i].value, separators, add_tag, list);
}

uint32_t tags_origin(const struct request *r)
{
    char text[ORIGIN_MAX];
    return inval_origin(r->worker->shared->inval, text, origin_text(r, text));
}

bool tags_read(const struct request *r, const struct h1_head *head, struct cache_record *rec)
{
    struct tag_list list = {r->worker, rec, tags_origin(r), false};
#define FIELD(id, name, separators) add_tags(&list, head, H1_##id, separators);
#include "libshared/tables/tag_fields.def"
#undef FIELD
    return !list.too_many;
}
