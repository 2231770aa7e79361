/* SPDX-License-Identifier: BSD-2-Clause */
/* coding: which content coding a client gets, and what is worth one. */
#include "polder/coding.h"
#include <string.h>
#include <strings.h>

#define Q_ONE     1000
#define Q_UNKNOWN (-1)

static const char *const names[CODINGS] = {[CODING_IDENTITY] = "identity",
                                           [CODING_GZIP] = "gzip",
                                           [CODING_BR] = "br",
                                           [CODING_ZSTD] = "zstd"};

const char *coding_name(enum coding coding)
{
    return coding < CODINGS ? names[coding] : "";
}

enum coding coding_of(struct str name)
{
    if (field_is(name, "x-gzip")) /* RFC 9110 8.4.1.3 */
        return CODING_GZIP;
    for (unsigned i = 0; i < CODINGS; i++)
        if (field_is(name, names[i]))
            return (enum coding)i;
    return CODINGS;
}

/* ---- weights ---- */

static struct str trimmed(const char *at, const char *end)
{
    return field_trim((struct str){at, (size_t)(end - at)});
}

/* "gzip;q=0.5": its name, and its weight. */
static struct str weighed(struct str element, int *q)
{
    const char *end = element.at + element.len;
    const char *semicolon = memchr(element.at, ';', element.len);
    *q = Q_ONE;
    if (!semicolon)
        return trimmed(element.at, end);
    const struct str weight = trimmed(semicolon + 1, end);
    const bool stated = weight.len > 2 && (weight.at[0] | 0x20) == 'q' && weight.at[1] == '=';
    *q = stated ? field_qvalue((struct str){weight.at + 2, weight.len - 2}) : Q_UNKNOWN;
    return trimmed(element.at, semicolon);
}

enum coding coding_choose(struct str accept, const uint8_t *offer, unsigned n)
{
    int weight[CODINGS], any = Q_UNKNOWN, q, best_q = 0;
    struct str rest = accept, element;
    enum coding best = CODING_IDENTITY;
    for (unsigned i = 0; i < CODINGS; i++)
        weight[i] = Q_UNKNOWN;
    while (field_list_next(&rest, &element)) {
        const struct str name = weighed(element, &q);
        const enum coding coding = coding_of(name);
        if (q < 0)
            continue;
        if (name.len == 1 && name.at[0] == '*')
            any = q;
        else if (coding < CODINGS)
            weight[coding] = q;
    }
    for (unsigned i = 0; i < n; i++) {
        const int has = weight[offer[i]] != Q_UNKNOWN ? weight[offer[i]] : any;
        if (has > best_q) {
            best = (enum coding)offer[i];
            best_q = has;
        }
    }
    return best_q >= weight[CODING_IDENTITY] ? best : CODING_IDENTITY;
}

/* ---- media types ---- */

static bool starts(struct str text, const char *lower)
{
    const size_t n = strlen(lower);
    return text.len >= n && !strncasecmp(text.at, lower, n);
}

bool coding_type_is_compressible(struct str content_type)
{
    static const char *const dense[] = {"application/gzip",
                                        "application/x-gzip",
                                        "application/zip",
                                        "application/zstd",
                                        "application/x-bzip",
                                        "application/x-xz",
                                        "application/x-7z",
                                        "application/x-rar",
                                        "application/vnd.rar",
                                        "application/octet-stream",
                                        "application/pdf",
                                        "application/vnd.openxmlformats",
                                        "application/vnd.oasis",
                                        "application/java-arc",
                                        "application/epub",
                                        "application/ogg",
                                        "application/jose",
                                        "application/pkcs",
                                        "font/woff",
                                        "application/font-woff",
                                        "multipart/",
                                        "text/event-stream"};
    static const char *const plain_images[] = {"image/svg", "image/bmp", "image/x-icon",
                                               "image/vnd.microsoft.icon", "image/x-ms-bmp"};
    if (!content_type.at || !memchr(content_type.at, '/', content_type.len))
        return false;
    for (size_t i = 0; i < sizeof plain_images / sizeof *plain_images; i++)
        if (starts(content_type, plain_images[i]))
            return true;
    if (starts(content_type, "image/") || starts(content_type, "video/") ||
        starts(content_type, "audio/"))
        return false;
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
        if (starts(content_type, dense[i]))
            return false;
    return true;
}
