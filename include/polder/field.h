/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * field: values of HTTP fields, parsed as the RFCs say. Pure functions over (pointer, length); they
 * allocate nothing and accept any bytes.
 */
#ifndef POLDER_FIELD_H
#define POLDER_FIELD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *at;
    size_t len;
};

/* Without the blanks (SP, HTAB) around it. */
struct str field_trim(struct str t);
bool field_is(struct str a, const char *lower); /* ASCII case-insensitive */

/* Elements of a #list (RFC 9110 5.6.1): commas outside quotes, empty elements skipped. Returns
 * false at the end. *rest starts as the whole value. */
bool field_list_next(struct str *rest, struct str *element);
/* A weight (RFC 9110 12.4.2) in thousandths, or -EINVAL. */
int field_qvalue(struct str text);
/* name[=value] of an element; value without quotes where quoted (escapes kept); value.at NULL: none
 */
void field_parameter(struct str element, struct str *name, struct str *value);

/* HTTP-date in all three forms (RFC 9110 5.6.7) to Unix seconds; strict: day names, ranges, GMT.
 * 0 or -EINVAL. */
int field_date(struct str value, int64_t *seconds);
#define FIELD_DATE_LEN 29
void field_date_format(int64_t seconds, char out[FIELD_DATE_LEN + 1]);

/* delta-seconds (RFC 9111 1.2.2): digits only; larger than 2^31 is 2^31. 0 or -EINVAL. */
int field_seconds(struct str value, uint32_t *seconds);

enum field_cc_flags {
    FIELD_CC_NO_STORE = 1u << 0,
    FIELD_CC_NO_CACHE = 1u << 1,
    FIELD_CC_NO_CACHE_FIELDS = 1u << 2, /* qualified form: no_cache_fields */
    FIELD_CC_PRIVATE = 1u << 3,
    FIELD_CC_PRIVATE_FIELDS = 1u << 4,
    FIELD_CC_PUBLIC = 1u << 5,
    FIELD_CC_MUST_REVALIDATE = 1u << 6,
    FIELD_CC_PROXY_REVALIDATE = 1u << 7,
    FIELD_CC_MUST_UNDERSTAND = 1u << 8,
    FIELD_CC_NO_TRANSFORM = 1u << 9,
    FIELD_CC_ONLY_IF_CACHED = 1u << 10,
    FIELD_CC_IMMUTABLE = 1u << 11,
    FIELD_CC_MAX_AGE = 1u << 12,
    FIELD_CC_S_MAXAGE = 1u << 13,
    FIELD_CC_MAX_STALE = 1u << 14, /* max_stale UINT32_MAX: any */
    FIELD_CC_MIN_FRESH = 1u << 15,
    FIELD_CC_SWR = 1u << 16,
    FIELD_CC_SIE = 1u << 17,
    FIELD_CC_INVALID = 1u << 18, /* an age that is no number, or conflicting ones: treat as stale */
    FIELD_CC_TOO_MANY = 1u << 19, /* more than FIELD_CC_MAX directives: the rest was not read */
    FIELD_CC_UNREADABLE =
        1u << 20, /* a member that is no directive; what it was to say is unknown */
};
#define FIELD_CC_MAX 64 /* directives read of one message; more than honest ones have */
struct field_cc {
    uint32_t flags;
    uint32_t n; /* directives so far */
    uint32_t max_age, s_maxage, max_stale, min_fresh, swr, sie;
    struct str no_cache_fields, private_fields; /* lists inside the quotes */
};
/* Adds one Cache-Control field line to *cc (start with a zeroed one). private and no-cache with an
 * argument that is no list of field names count as without one; an unreadable permission to serve
 * stale permits nothing. */
void field_cc_add(struct field_cc *cc, struct str value);
/* CDN-Cache-Control (RFC 9213): a Dictionary structured field, all lines joined with ", ". false:
 * invalid or empty, to be ignored altogether. */
bool field_cdn_cc(struct str value, struct field_cc *cc);

/* RFC 9651 List of Strings (Cache-Groups, Cache-Group-Invalidation): calls each() with a text that
 * is lent until it returns; false where the field is invalid (then each() has not been called). */
bool field_sf_strings(struct str value, void (*each)(void *arg, struct str text), void *arg);

/* Surrogate-Control (W3C Edge Architecture 1.0), one line: directives without a target or with the
 * target ";polder"; those for other devices are skipped. True: it has a directive that we know, and
 * replaces Cache-Control as CDN-Cache-Control does (which takes precedence over it). */
bool field_surrogate_cc(struct str value, struct field_cc *cc);

/* Age (RFC 9111 5.1): *age of the first member of a list, saturated at 2^31. -EINVAL: it is no
 * number, and the field is to be ignored. */
int field_age(struct str value, uint32_t *age);

/* Entity tags (RFC 9110 8.8.3): does the list (or "*") contain etag? weak: W/ is ignored. */
bool field_etag_listed(struct str list, struct str etag, bool weak);
bool field_etag_valid(struct str etag);
/* The next tag of a list, skipping other text. False: there are no more. */
bool field_etag_next(struct str *rest, struct str *tag);
/* A strong tag "v7" that we have made weak, because the body is now in a content coding, is
 * W/"v7~polder": it is recognised later, and the backend's own weak tags are left alone.
 * field_etag_listed() takes it for the strong one where W/ is ignored. True: *opaque is v7. */
#define FIELD_ETAG_MARK "~polder"
bool field_etag_unmark(struct str tag, struct str *opaque);

/* Range: bytes=…, a single range only. 1: *first,*last set (inclusive, within size); 0: ignore the
 * field (other unit, several ranges, malformed); -ERANGE: 416. */
int field_range(struct str value, uint64_t size, uint64_t *first, uint64_t *last);

/* Content-Range of a 206: "bytes first-last/size", 0 <= first <= last < size. 0, or -EINVAL:
 * another unit, malformed, or the size is not known. */
struct field_span {
    uint64_t first, last, size;
};
int field_content_range(struct str value, struct field_span *span);
/* The span that covers both, if they overlap or touch and are of the same size. */
bool field_span_join(const struct field_span *a, const struct field_span *b,
                     struct field_span *joined);

/* token characters only, at least one */
bool field_is_token(struct str text);
#endif
