/* SPDX-License-Identifier: BSD-2-Clause */
/* via: see via.h. */
#include "daemons/worker/message/via.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/conditions.h"
#include "polder/field.h"
#include "polder/proc.h"

#include <stdio.h>
#include <string.h>

void via_init(struct worker *w)
{
    const uint8_t *id = w->shared->proc->header.uuid;
    if (*w->config->via)
        snprintf(w->messages->via, sizeof w->messages->via, "%s", w->config->via);
    else
        snprintf(w->messages->via, sizeof w->messages->via, "polder-%02x%02x%02x%02x%02x%02x",
                 id[0], id[1], id[2], id[3], id[4], id[5]);
    for (char *c = w->messages->via; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c; /* as field_is() compares */
}

void via_put(struct h1_out *o, const struct request *r)
{
    h1_puts(o, r->http10 ? "Via: 1.0 " : "Via: 1.1 ");
    h1_puts(o, r->worker->messages->via);
    h1_puts(o, "\r\n");
}

/* received-by of one element: "[HTTP/]1.1 NAME (comment)". */
static struct str via_received_by(struct str element)
{
    const char *at = element.at, *end = at + element.len;
    while (at < end && *at != ' ' && *at != '\t')
        at++;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    const char *stop = at;
    while (stop < end && *stop != ' ' && *stop != '\t' && *stop != '(')
        stop++;
    return (struct str){at, (size_t)(stop - at)};
}

static bool via_names(struct str value, const char *name)
{
    struct str element;
    while (field_list_next(&value, &element))
        if (field_is(via_received_by(element), name))
            return true;
    return false;
}

bool via_is_loop(const struct request *r)
{
    const struct h1_head *head = r->head;
    struct worker *w = r->worker;
    bool found = false;
    if (!head->first[H1_VIA])
        return false;
    for (uint32_t i = head->first[H1_VIA] - 1u; i < head->n_fields && !found; i++)
        found = head->field[i].id == H1_VIA && via_names(head->field[i].value, w->messages->via);
    if (found)
        condition_hint(w->shared->conditions, COND_HINT_REQUEST_LOOP, "", w->messages->via,
                       w->real_ms);
    return found;
}

bool via_max_forwards(const struct h1_head *head, const struct h1_field *f, uint64_t *left)
{
    if (f->id != H1_OTHER || f->name.len != 12 || !field_is(f->name, "max-forwards") ||
        !field_is(head->method, "options") || !f->value.len || f->value.len > 18)
        return false;
    *left = 0;
    for (size_t i = 0; i < f->value.len; i++) {
        if (f->value.at[i] < '0' || f->value.at[i] > '9')
            return false;
        *left = *left * 10 + (uint64_t)(f->value.at[i] - '0');
    }
    return true;
}

bool via_may_go_no_further(const struct h1_head *head)
{
    uint64_t left;
    if (head->is_get || head->is_head || !field_is(head->method, "options"))
        return false;
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (via_max_forwards(head, &head->field[i], &left) && left == 0)
            return true;
    return false;
}
