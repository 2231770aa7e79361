/* SPDX-License-Identifier: BSD-2-Clause */
/* cors: see cors.h. */
#include "daemons/worker/message/cors.h"
#include "daemons/http/h1_fields.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
#include "polder/field.h"

#include <string.h>
#include <strings.h>

bool cors_is_preflight(const struct h1_head *head)
{
    if (head->is_get || !head->first[H1_ORIGIN] || !field_is(head->method, "options"))
        return false;
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].id == H1_OTHER &&
            field_is(head->field[i].name, "access-control-request-method"))
            return true;
    return false;
}

/* One with a star stands for all hosts below, a star alone for all. */
static bool cors_matches(struct str origin, const char *pattern)
{
    const char *star = strchr(pattern, '*');
    if (!star)
        return field_is(origin, pattern);
    const size_t before = (size_t)(star - pattern), behind = strlen(star + 1);
    return origin.len > before + behind && !strncasecmp(origin.at, pattern, before) &&
           field_is((struct str){origin.at + origin.len - behind, behind}, star + 1);
}

void cors_put(struct h1_out *o, const struct request *r)
{
    const struct config_cors *cors =
        r->route && r->route->cors ? r->route->cors : &r->worker->config->cors;
    const struct h1_field *origin = cors->n_origins && r->head ? h1_only(r->head, H1_ORIGIN) : NULL;
    bool named = false;
    if (!origin || origin->value.len > 512)
        return;
    for (uint32_t i = 0; i < cors->n_origins && !named; i++)
        named = cors_matches(origin->value, cors->origins[i]);
    h1_puts(o, "Vary: Origin\r\n");
    if (!named)
        return;
    h1_puts(o, "Access-Control-Allow-Origin: ");
    h1_put(o, origin->value.at, origin->value.len);
    h1_puts(o, "\r\nAccess-Control-Expose-Headers: Retry-After, RateLimit, RateLimit-Policy, "
               "X-Request-Id\r\n");
    if (cors->credentials)
        h1_puts(o, "Access-Control-Allow-Credentials: true\r\n");
}
