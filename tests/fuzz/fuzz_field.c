/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_field: any bytes as any field value; what is accepted keeps its promises. */
#include "polder/coding.h"
#include "polder/field.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void inside(struct str part, struct str all)
{
    must(part.at >= all.at && part.at + part.len <= all.at + all.len);
}

static void fuzz_lists(struct str value)
{
    struct str rest = value, element, name, parameter;
    size_t total = 0;
    while (field_list_next(&rest, &element)) {
        must(element.len > 0);
        inside(element, value);
        total += element.len;
        field_parameter(element, &name, &parameter);
        inside(name, value);
        if (parameter.at)
            inside(parameter, value);
    }
    must(total <= value.len && rest.len == 0);
}

static void fuzz_dates(struct str value)
{
    int64_t seconds, back;
    char out[FIELD_DATE_LEN + 1];
    if (field_date(value, &seconds) != 0 || seconds < 0)
        return;
    field_date_format(seconds, out);
    must(field_date((struct str){out, FIELD_DATE_LEN}, &back) == 0 && back == seconds);
}

static void fuzz_numbers(struct str value)
{
    uint32_t n;
    uint64_t first, last;
    if (field_seconds(value, &n) == 0)
        must(n <= UINT32_C(1) << 31);
    field_age(value, &n);
    for (uint64_t size = 0; size < 3; size++)
        if (field_range(value, size * 500, &first, &last) == 1)
            must(first <= last && last < size * 500);
    struct field_span span;
    if (field_content_range(value, &span) == 0)
        must(span.first <= span.last && span.last < span.size);
}

static void fuzz_directives(struct str value)
{
    struct field_cc cc = {0}, cdn = {0}, surrogate = {0};
    field_cc_add(&cc, value);
    if (cc.flags & FIELD_CC_NO_CACHE_FIELDS)
        inside(cc.no_cache_fields, value);
    if (cc.flags & FIELD_CC_PRIVATE_FIELDS)
        inside(cc.private_fields, value);
    field_cdn_cc(value, &cdn);
    field_surrogate_cc(value, &surrogate);
}

/* A String's escapes are resolved, unless it is longer than any tag: put back, the value has it so
 * (RFC 9651 4.1.6). */
#define RESOLVED_MAX 1024
static void check_string(void *arg, struct str t)
{
    const struct str all = *(struct str *)arg;
    char *quoted = malloc(2 * t.len + 2);
    size_t n = 0;
    must(quoted && t.len <= all.len);
    quoted[n++] = '"';
    for (size_t i = 0; i < t.len; i++) {
        must(t.at[i] >= 0x20 && t.at[i] <= 0x7e);
        if (t.len <= RESOLVED_MAX && (t.at[i] == '"' || t.at[i] == '\\'))
            quoted[n++] = '\\';
        quoted[n++] = t.at[i];
    }
    quoted[n++] = '"';
    must(memmem(all.at, all.len, quoted, n));
    free(quoted);
}

static void fuzz_tags(struct str value)
{
    static const struct str tag = {"W/\"a\"", 5};
    field_sf_strings(value, check_string, &value);
    if (field_etag_listed(value, tag, false))
        must(memchr(value.at, '*', value.len));
    field_etag_listed(value, tag, true);
    struct str rest = field_trim(value), one, opaque;
    while (field_etag_next(&rest, &one)) {
        must(field_etag_valid(one));
        must(field_etag_listed(value, one, true));
        if (field_etag_unmark(one, &opaque))
            must(opaque.at > one.at && opaque.at + opaque.len < one.at + one.len);
    }
    if (field_etag_valid(value)) {
        must(field_etag_listed(value, value, true));
        must(field_etag_listed(value, value, false) == (value.at[0] != 'W'));
    }
}

static void fuzz_codings(struct str value)
{
    static const uint8_t offer[] = {CODING_ZSTD, CODING_GZIP};
    const enum coding coding = coding_choose(value, offer, sizeof offer);
    must(coding == CODING_IDENTITY || coding == CODING_ZSTD || coding == CODING_GZIP);
    must(coding == CODING_IDENTITY || value.len);
    if (coding_type_is_compressible(value))
        must(memchr(value.at, '/', value.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *exact = malloc(size ? size : 1);
    must(exact);
    if (size)
        memcpy(exact, data, size);
    struct str value = {exact, size};
    fuzz_lists(value);
    fuzz_dates(value);
    fuzz_numbers(value);
    fuzz_directives(value);
    fuzz_tags(value);
    fuzz_codings(value);
    free(exact);
    return 0;
}
