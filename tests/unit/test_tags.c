/* SPDX-License-Identifier: BSD-2-Clause */
/* The fields that name tags: what a worker takes from a head, the keeper finds again in it. */
#include "daemons/keeper/removals.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/worker.h"
#include "polder/inval.h"
#include "polder/tags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct worker *worker;
static struct shared shared;

static int start(void **state)
{
    (void)state;
    worker = worker_alloc();
    shared.inval = calloc(1, inval_page_size());
    inval_page_init(shared.inval);
    worker->shared = &shared;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(worker);
    free(shared.inval);
    return 0;
}

static struct cache_record tags_of(const char *lines)
{
    static struct h1_head head;
    char text[1024];
    size_t scanned = 0;
    static const char url[] = "h/";
    const struct request r = {.worker = worker, .url = url, .url_len = sizeof url - 1};
    struct cache_record rec;
    cache_record_init(&rec);
    const int n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n%s\r\n", lines);
    assert_int_equal(h1_parse_response(text, (size_t)n, &scanned, true, &head), H1_DONE);
    assert_true(tags_read(&r, &head, &rec));
    return rec;
}

static void has_tag(const struct cache_record *rec, const char *lines, const char *tag)
{
    const uint32_t slot = inval_tag_slot(shared.inval, tag, strlen(tag));
    struct cache_record stored = *rec;
    char name[64] = "";
    bool read = false;
    for (uint32_t i = 0; i < rec->n_tags; i++)
        read = read || inval_slot_alone(rec->tag_slot[i]) == slot;
    assert_true(read);
    stored.head_len = (uint32_t)strlen(lines);
    const struct cache_view v = {.record = &stored, .head = lines};
    assert_int_equal(explain_tag(shared.inval, &v, slot, name, sizeof name), strlen(tag));
    assert_string_equal(name, tag);
}

static void each_field_of_the_table_is_read_and_explained(void **state)
{
    static const struct {
        const char *name, *separators;
    } fields[] = {
#define FIELD(id, name, separators) {name, separators},
#include "libshared/tables/tag_fields.def"
#undef FIELD
    };
    (void)state;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char lines[128];
        const char between = fields[i].separators ? fields[i].separators[0] : 0;
        if (between)
            snprintf(lines, sizeof lines, "%s: item-7%clist\r\n", fields[i].name, between);
        else
            snprintf(lines, sizeof lines, "%s: \"item-7\", \"list\"\r\n", fields[i].name);
        const struct cache_record rec = tags_of(lines);
        assert_int_equal(rec.n_tags, 2);
        has_tag(&rec, lines, "item-7");
        has_tag(&rec, lines, "list");
    }
}

static void tags_of_all_fields_and_lines_count(void **state)
{
    (void)state;
    static const char lines[] =
        "Surrogate-Key: a b\r\nxkey: c,  d\r\nXKEY: e\r\n"
        "Cache-Groups: \"f\"\r\nCache-Tag: a,g\r\nCache-Groups: \"h i\"\r\n";
    const struct cache_record rec = tags_of(lines);
    assert_int_equal(rec.n_tags, 8);
    for (const char *tag = "abcdefg"; *tag; tag++)
        has_tag(&rec, lines, (char[]){*tag, 0});
    has_tag(&rec, lines, "h i");
}

static void separators_alone_name_nothing(void **state)
{
    (void)state;
    assert_int_equal(tags_of("Surrogate-Key:  \t \r\nxkey: , ,,\r\nCache-Tag:\r\n").n_tags, 0);
    assert_int_equal(tags_of("Cache-Groups: \"a\", broken\"\r\n").n_tags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_of_the_table_is_read_and_explained),
        cmocka_unit_test(tags_of_all_fields_and_lines_count),
        cmocka_unit_test(separators_alone_name_nothing),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
