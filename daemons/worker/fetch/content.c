/* SPDX-License-Identifier: BSD-2-Clause */
/* content: what a response head says of the content behind it. */
#include "daemons/worker/fetch/content.h"

#include <strings.h>

/* A stream of events has no end that could be waited for. */
bool content_is_event_stream(const struct h1_head *head)
{
    static const char type[] = "text/event-stream";
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (f->id == H1_CONTENT_TYPE && f->value.len >= sizeof type - 1 &&
            !strncasecmp(f->value.at, type, sizeof type - 1))
            return true;
    }
    return false;
}

bool content_is_vouched_for(const struct h1_head *head)
{
    static const char *const names[] = {"content-digest", "repr-digest", "digest", "content-md5"};
    for (uint32_t i = 0; i < head->n_fields; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (field_is(head->field[i].name, names[k]))
                return true;
    return false;
}
