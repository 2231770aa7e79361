/* SPDX-License-Identifier: BSD-2-Clause */
/* host: see host.h. */
#include "daemons/control/ops/host.h"
#include "polder/config.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LEN 255

/* Without the port, the brackets of IPv6 and the dot of a full name. */
static struct str name_of(struct str host)
{
    if (host.len && *host.at == '[') {
        const char *end = memchr(host.at, ']', host.len);
        return end ? (struct str){host.at + 1, (size_t)(end - host.at - 1)} : (struct str){0};
    }
    const char *colon = memchr(host.at, ':', host.len);
    if (colon)
        host.len = (size_t)(colon - host.at);
    if (host.len && host.at[host.len - 1] == '.')
        host.len--;
    return host;
}

static bool name_is(struct str name, const char *wanted, size_t len)
{
    return name.len == len && !strncasecmp(name.at, wanted, len);
}

static bool is_address(const char *name)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static bool is_of_listener(const struct config *config, struct str name)
{
    const char *text = config->ops_listen.text;
    if (!config->ops_listen.len || !text)
        return false;
    const struct str own = name_of((struct str){text, strlen(text)});
    return own.len && name_is(name, own.at, own.len);
}

static bool is_configured(const struct config *config, struct str name)
{
    for (uint32_t i = 0; i < config->n_ops_hosts; i++)
        if (name_is(name, config->ops_hosts[i], strlen(config->ops_hosts[i])))
            return true;
    return false;
}

bool host_is_ours(const struct config *config, struct str host)
{
    static const char localhost[] = "localhost", below[] = ".localhost";
    char text[NAME_MAX_LEN + 1];
    if (!host.len)
        return true;
    const struct str name = name_of(host);
    if (!name.len || name.len > NAME_MAX_LEN)
        return false;
    memcpy(text, name.at, name.len);
    text[name.len] = 0;
    return is_address(text) || name_is(name, localhost, sizeof localhost - 1) ||
           (name.len > sizeof below - 1 &&
            !strcasecmp(text + name.len - (sizeof below - 1), below)) ||
           is_of_listener(config, name) || is_configured(config, name);
}
