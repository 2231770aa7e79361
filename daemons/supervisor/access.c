/* SPDX-License-Identifier: BSD-2-Clause */
/* access: the supervisor's lines of the access log, one for each WebSocket at its end and one for
 * each upgrade that is refused. */
#include "daemons/supervisor/supervisor.h"
#include "polder/access_log.h"
#include "polder/log.h"

int supervisor_log_open(struct supervisor *s, char *why, size_t size)
{
    int fd;
    const int code = access_log_open(s->config, &fd);
    if (code < 0) {
        access_log_explain(s->config, code, why, size);
        return code;
    }
    access_log_stop(&s->log);
    return access_log_start(&s->log, s->config->access_log, fd);
}
