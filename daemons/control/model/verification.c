/* SPDX-License-Identifier: BSD-2-Clause */
/* verification: see verification.h. */
#include "daemons/control/model/verification.h"
#include "daemons/control/control.h"
#include "daemons/control/model/cache_names.h"
#include "daemons/control/model/invalidation.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/shared.h"

#include <stdio.h>
#include <string.h>

static struct verify_lease *lease_of(const struct control *c)
{
    return &c->shared->proc->verify;
}

int verification_begin(struct control *c, char token[VERIFY_TOKEN_SIZE])
{
    verification_follow(c);
    return verify_begin(lease_of(c), clock_mono_ms(), token);
}

bool verification_keep(struct control *c, const char *token)
{
    return verify_keep(lease_of(c), clock_mono_ms(), (struct str){token, strlen(token)});
}

bool verification_forget(struct control *c, const char *path)
{
    struct invalidation in = {.soft = false};
    char host[VERIFY_HOST_SIZE], text[CACHE_URL_SIZE];
    verify_host(atomic_load(&lease_of(c)->run), host);
    const int n = snprintf(text, sizeof text, "%s%s", host, path ? path : "/");
    if (n < 0 || (size_t)n >= sizeof text || (path && *path != '/'))
        return false;
    in.len = path ? cache_url_normal(c->config, text, in.text, sizeof in.text)
                  : cache_prefix_normal(text, in.text, sizeof in.text);
    return in.len > 0 && invalidate_probes(c, &in, path == NULL) == 0;
}

void verification_end(struct control *c)
{
    verify_end(lease_of(c)); /* first: no probe stores anything from now on that was not begun */
    verification_forget(c, NULL);
}

void verification_follow(struct control *c)
{
    if (!verify_expired(lease_of(c), clock_mono_ms()))
        return;
    log_info("verify: the token of a polderctl verify that did not end it has expired");
    verification_end(c);
}
