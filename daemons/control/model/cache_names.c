/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_names: see cache_names.h. */
#include "daemons/control/model/cache_names.h"
#include "polder/config.h"
#include "polder/route.h"
#include "polder/url.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

int cache_prefix_normal(const char *text, char *out, size_t size)
{
    if (!strncasecmp(text, "http://", 7))
        text += 7;
    else if (!strncasecmp(text, "https://", 8))
        text += 8;
    const size_t host = strcspn(text, "/");
    if (host && text[host - 1] == ':' && text[host] && text[host + 1] == '/')
        return -EINVAL; /* "ftp://" */
    const char *path = text[host] ? text + host : "/";
    const size_t path_len = strcspn(path, "?");
    size_t n = 0;
    if (strlen(text) + 2 > size)
        return -ENAMETOOLONG;
    for (; n < host; n++)
        out[n] = text[n] >= 'A' && text[n] <= 'Z' ? (char)(text[n] | 0x20) : text[n];
    if (n > 3 && !memcmp(out + n - 3, ":80", 3))
        n -= 3;
    else if (n > 1 && out[n - 1] == ':')
        n--;
    const int written = route_path_normal(path, path_len, out + n, size - n);
    if (written < 0)
        return written;
    n += (size_t)written;
    const size_t query = strlen(path + path_len);
    if (n + query >= size)
        return -ENAMETOOLONG;
    memcpy(out + n, path + path_len, query + 1);
    return (int)(n + query);
}

/* "/path?query" of all hosts. */
static int path_normal(const struct config *config, const char *text, char *out, size_t size)
{
    const struct config_route *route;
    const size_t len = strcspn(text, "#"), path_len = strcspn(text, "?#");
    const struct str host = {text, 0}, path = {text, path_len};
    struct str query = {NULL, 0};
    if (text[path_len] == '?')
        query = (struct str){text + path_len + 1, len - path_len - 1};
    return url_normalise(config, host, path, query, out, size, &route);
}

int cache_url_normal(const struct config *config, const char *text, char *out, size_t size)
{
    const struct config_route *route;
    if (text[0] == '/')
        return path_normal(config, text, out, size);
    return url_normalise_text(config, text, strlen(text), out, size, &route);
}

const struct config_route *cache_url_route(const struct config *config, const char *url, size_t len)
{
    const char *path = memchr(url, '/', len);
    if (!path)
        return NULL;
    const size_t rest = len - (size_t)(path - url);
    const char *mark = memchr(path, '?', rest);
    return route_find(config, path, mark ? (size_t)(mark - path) : rest);
}
