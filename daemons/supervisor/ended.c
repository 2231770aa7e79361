/* SPDX-License-Identifier: BSD-2-Clause */
/* ended: sessions that ended in this turn of the loop, which a caller may still use until it is over. */
#include "daemons/supervisor/supervisor.h"

#include <stdlib.h>

void sessions_bury(struct supervisor *s)
{
    while (!SLIST_EMPTY(&s->ended)) {
        struct session *x = SLIST_FIRST(&s->ended);
        SLIST_REMOVE_HEAD(&s->ended, ended_entry);
        local_free(x);
        free(x->pending);
        free(x->client_id);
        free(x->line);
        free(x);
    }
}
