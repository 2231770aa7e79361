/* SPDX-License-Identifier: BSD-2-Clause */
/* host: see host.h. */
#include "daemons/control/ops/host.h"
#include "polder/config.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_LEN 255

/* Nothing, or a colon and digits. */
static bool is_port(const char *at, const char *end)
{
    if (at < end && *at++ != ':')
        return false;
    for (; at < end; at++)
        if (*at < '0' || *at > '9')
            return false;
    return true;
}

/* Without the port, the brackets of IPv6 and the dot of a full name; empty: that is no host. */
static struct str name_of(struct str host)
{
    const char *end = host.at + host.len, *at = host.at, *stop;
    const bool bracket = host.len && *at == '[';
    at += bracket;
    stop = memchr(at, bracket ? ']' : ':', (size_t)(end - at));
    if (!stop && bracket)
        return (struct str){0};
    if (stop && !is_port(stop + bracket, end))
        return (struct str){0};
    struct str name = {at, (size_t)((stop ? stop : end) - at)};
    if (!bracket && name.len && name.at[name.len - 1] == '.')
        name.len--;
    return name;
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
    if (!name.len || name.len > NAME_MAX_LEN || memchr(name.at, 0, name.len))
        return false;
    memcpy(text, name.at, name.len);
    text[name.len] = 0;
    return is_address(text) || name_is(name, localhost, sizeof localhost - 1) ||
           (name.len > sizeof below - 1 &&
            !strcasecmp(text + name.len - (sizeof below - 1), below)) ||
           is_of_listener(config, name) || is_configured(config, name);
}
