/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tags: the groups that a response belongs to and can be invalidated by: Cache-Groups (RFC 9875),
 * and what the CDNs' own fields say.
 */
#include "daemons/worker/tee.h"
#include "daemons/worker/worker.h"
#include "polder/field.h"
#include "polder/inval.h"

#include <string.h>

struct tag_list {
    const struct worker *worker;
    struct cache_record *record;
    bool too_many; /* one that is not listed could never be invalidated */
};

static void add_tag(void *arg, struct field_text tag)
{
    struct tag_list *list = arg;
    struct cache_record *rec = list->record;
    if (!tag.len)
        return;
    const uint32_t slot = inval_tag_slot(list->worker->shared->inval, tag.at, tag.len);
    for (uint32_t i = 0; i < rec->n_tags; i++)
        if (rec->tag_slot[i] == slot)
            return;
    if (rec->n_tags == CACHE_TAGS_MAX)
        list->too_many = true;
    else
        rec->tag_slot[rec->n_tags++] = slot;
}

static void add_tags_split(struct tag_list *list, const struct h1_head *head, enum h1_field_id id,
                           const char *separators)
{
    for (uint32_t i = 0; i < head->n_fields; i++) {
        if (head->field[i].id != id)
            continue;
        const char *at = head->field[i].value.at, *end = at + head->field[i].value.len;
        while (at < end) {
            const char *start = at;
            while (at < end && !strchr(separators, *at))
                at++;
            add_tag(list, (struct field_text){start, (size_t)(at - start)});
            at++;
        }
    }
}

bool tags_read(const struct worker *w, const struct h1_head *head, struct cache_record *rec)
{
    struct tag_list list = {w, rec, false};
    char groups[H1_HEAD_MAX];
    const size_t n = h1_join(head, H1_CACHE_GROUPS, groups, sizeof groups);
    if (n)
        field_sf_strings((struct field_text){groups, n}, add_tag, &list);
    add_tags_split(&list, head, H1_SURROGATE_KEY, " \t");
    add_tags_split(&list, head, H1_XKEY, ", \t");
    add_tags_split(&list, head, H1_CACHE_TAG, ", \t");
    return !list.too_many;
}
