/* SPDX-License-Identifier: BSD-2-Clause */
/* recent_note: see recent_note.h. */
#include "daemons/worker/message/recent_note.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/access_log.h"
#include "polder/limitkey.h"

#include <stdio.h>
#include <string.h>

#define KEY_SHOWN 256 /* bytes of a key that are made readable */

void recent_note_follow(struct worker *w)
{
    w->messages->recent.watched = recent_is_watched(w->shared->recent, w->mono_ms);
}

/* The limit that refused the request, or the first of its route. */
static const struct config_limit *limit_of(const struct request *r, const char *refused_by)
{
    const struct config_route *route = r ? r->route : NULL;
    for (uint32_t i = 0; route && refused_by && i < route->n_limits; i++)
        if (!strcmp(route->limits[i]->name, refused_by))
            return route->limits[i];
    return route && route->n_limits && (r->head || !key_text_needs_head(route)) ? route->limits[0]
                                                                                : NULL;
}

static void put_limit(struct recent_request *q, const struct config_limit *l,
                      const char *refused_by)
{
    const char *name = refused_by ? refused_by : l ? l->name : "";
    recent_text(q->limit, sizeof q->limit, (struct str){name, strlen(name)});
    strcpy(q->limit_decision, refused_by ? "refused" : l ? "admitted" : "none");
}

static void put_key(struct worker *w, struct recent_request *q, const struct request *r,
                    const struct config_limit *l, const struct clientip *client)
{
    char who[KEY_TEXT_MAX], text[KEY_SHOWN];
    uint64_t hash;
    size_t shown;
    const int len = l ? key_text_of_limit(r, l, who) : -1;
    if (len > 0) {
        hash = limit_key(w->shared->limits, l->id, who, (size_t)len);
        shown = limitkey_to_text(l, who, (size_t)len, (size_t)len, text, sizeof text);
    } else {
        shown = clientip_format(client, text);
        hash = limit_key(w->shared->limits, 0, text, shown);
    }
    recent_mask_key(q->key, sizeof q->key, (struct str){text, shown}, hash);
}

static void put_word(char *out, size_t size, const char *word)
{
    recent_text(out, size, (struct str){word, word ? strlen(word) : 0});
}

/* As Cache-Status has it. */
static void put_detail(struct recent_request *q, const struct access_note *note)
{
    char text[160];
    snprintf(text, sizeof text, "%s%s%s%s", note->fwd ? "fwd=" : "", note->fwd ? note->fwd : "",
             note->fwd && note->detail ? "; " : "", note->detail ? note->detail : "");
    put_word(q->detail, sizeof q->detail, text);
}

void recent_note(struct worker *w, const struct request *r, const struct access_note *note,
                 const struct access_line *line, uint32_t stands_for)
{
    struct recent_request q = {.real_ms = w->real_ms,
                               .us = line->us,
                               .stands_for = stands_for,
                               .status = (uint16_t)line->status};
    const struct config_limit *l = limit_of(r, note->limit);
    put_limit(&q, l, note->limit);
    put_key(w, &q, r, l, &line->client);
    put_word(q.client, sizeof q.client,
             !r                ? "unknown"
             : r->has_identity ? "identified"
                               : "anonymous");
    put_word(q.cache, sizeof q.cache, line->cache);
    put_detail(&q, note);
    recent_text(q.method, sizeof q.method, line->method);
    recent_text(q.route, sizeof q.route, line->route);
    recent_mask_target(q.target, sizeof q.target, line->target);
    recent_put_request(w->shared->recent, &q);
}
