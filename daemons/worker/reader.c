/* SPDX-License-Identifier: BSD-2-Clause */
/* reader: see reader.h. */
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "polder/cache.h"

#include <errno.h>

#define RETRY_MS 50

bool reader_ready(struct worker *w)
{
    if (w->reader_state.checked)
        return w->reader_state.ready;
    w->reader_state.checked = true;
    w->reader_state.ready = false;
    if (!w->reader) {
        if (w->mono_ms < w->reader_state.again_ms)
            return false;
        const int rc = cache_reader_open(w->shared, w->config->state_dir, &w->reader);
        if (rc < 0) {
            w->reader = NULL;
            if (rc != -EAGAIN) /* else the keeper has none yet, which costs nothing to ask */
                w->reader_state.again_ms = w->mono_ms + RETRY_MS;
            return false;
        }
    }
    w->reader_state.ready = cache_reader_ready(w->reader);
    return w->reader_state.ready;
}
