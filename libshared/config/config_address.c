/* SPDX-License-Identifier: BSD-2-Clause */
/* config_address: where to listen, and where servers are: an address, a path or a name. */
#include "libshared/config/config_parse.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static int parse_unix(const char *path, struct config_address *address, const char **why)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (*path != '/' || strlen(path) >= sizeof un.sun_path) {
        *why = "\"unix:/PATH\" with a path of at most 107 bytes";
        return -EINVAL;
    }
    strcpy(un.sun_path, path);
    memcpy(&address->sa, &un, sizeof un);
    address->len = sizeof un;
    return 0;
}

static bool is_name(const char *host)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    const size_t len = strlen(host);
    return len < 254 && strspn(host, letters) == len && host[0] != '.' && host[0] != '-' &&
           host[strspn(host, "0123456789.")] != 0;
}

static int numeric_address(const char *host, const char *port, bool names,
                           struct config_address *address, const char **why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    if (names || strcmp(host, "localhost")) /* a name that needs no network */
        hints.ai_flags |= AI_NUMERICHOST;
    const int code = getaddrinfo(host, port, &hints, &found);
    if (names && code && is_name(host))
        return 0;
    if (code || !found) {
        *why = names ? "a name, or an address"
                     : "an address such as \"127.0.0.1:8000\" or \"[::1]:8000\"";
        return -EINVAL;
    }
    const struct addrinfo *one = found;
    for (const struct addrinfo *a = found; a; a = a->ai_next)
        if (a->ai_family == AF_INET) { /* as the order of the resolver may change: IPv4 first */
            one = a;
            break;
        }
    memcpy(&address->sa, one->ai_addr, one->ai_addrlen);
    address->len = one->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static bool is_port(const char *text)
{
    if (!*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    const unsigned long long port = strtoull(text, NULL, 10);
    return errno == 0 && port > 0 && port <= 65535;
}

int config_address_parse(struct config_arena *arena, const char *text, bool names,
                         struct config_address *address, const char **why)
{
    static const char right[] =
        "an address such as \"127.0.0.1:8000\", \"[::1]:8000\" or \"unix:/path\"";
    char host[256];
    memset(address, 0, sizeof *address);
    address->text = arena ? config_arena_strdup(arena, text) : text;
    if (!strncmp(text, "unix:", 5))
        return parse_unix(text + 5, address, why);
    const char *colon = strrchr(text, ':');
    const size_t len = colon ? (size_t)(colon - text) : 0;
    *why = right;
    if (!colon || len == 0 || len >= sizeof host || !is_port(colon + 1))
        return -EINVAL;
    memcpy(host, text, len);
    host[len] = 0;
    char *name = host;
    if (host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = 0;
        name++;
    } else if (strchr(host, ':')) {
        return -EINVAL;
    }
    if (numeric_address(name, colon + 1, names && name == host, address, why))
        return -EINVAL;
    *why = NULL;
    return 0;
}
