/* SPDX-License-Identifier: BSD-2-Clause */
/* What commands have changed goes over an upgrade by name, unless the file says another value now. */
#include "daemons/master/upgrade.h"
#include "polder/config.h"
#include "polder/runtime.h"
#include "polder/state_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[40];

static struct config_region *load(const char *limits, const char *server, const char *cache)
{
    char path[64];
    struct config_region *region =
        mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(region != MAP_FAILED);
    snprintf(path, sizeof path, "%s/polder.conf", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "listen = {\"127.0.0.1:8000\"}\nstate_dir = \"%s\"\nruntime_dir = \"%s\"\n%s\n"
            "upstream \"u\" { server \"127.0.0.1:1\" { weight = 7 } %s }\n"
            "cache { ttl = %s }\nroute \"/*\" { upstream = \"u\" cache { } }\n",
            dir, dir, limits, server, cache);
    fclose(f);
    if (config_region_load(region, path, 1, NULL) < 0)
        fail_msg("%s", region->errors);
    return region;
}

static struct runtime_limit *limit_in(struct config_region *region, struct runtime_values *v,
                                      const char *name)
{
    for (uint32_t i = 0; i < region->config->n_limits; i++)
        if (!strcmp(region->config->limits[i].name, name))
            return &v->limit[region->config->limits[i].index];
    fail_msg("there is no limit %s", name);
    return NULL;
}

#define BEFORE                                                                                     \
    "limit \"a\" { requests = 10 window = 1m }\nlimit \"b\" { requests = 20 window = 1m }\n"       \
    "limit \"c\" { requests = 30 window = 1m }"

/* The block that a master with this configuration leaves. */
static int block_of(struct config_region *region)
{
    static struct master m;
    struct state_writer w;
    m.shared.region[0] = region;
    state_writer_open(&w, STATE_OF_POLDERD, "1");
    running_values_write(&m, &w);
    const int block = state_writer_close(&w);
    assert_true(block >= 0);
    return block;
}

static struct config_region *changed(struct runtime_values *v)
{
    struct exempt list = {0}, before = {0};
    const char *why;
    struct config_region *region = load(BEFORE, "server \"127.0.0.1:2\" { }", "60s");
    runtime_read(&region->runtime, v);
    limit_in(region, v, "a")->requests = 11;
    limit_in(region, v, "b")->requests = 21;
    v->server[0].weight = 3;
    v->server[1].weight = 0;
    v->cache.ttl_ms = 5000;
    struct runtime_limit *c = limit_in(region, v, "c");
    assert_int_equal(exempt_add(&before, "10.0.0.0/8", &why), 0);
    assert_int_equal(exempt_add(&list, "192.0.2.0/24", &why), 0);
    const uint32_t index = (uint32_t)(c - v->limit);
    struct pending_change *t = &region->runtime.trial[index];
    t->before = *c;
    t->before.exempt = runtime_exempt_put(&region->runtime, index, &before);
    atomic_store(&t->until_ms, 123456);
    c->requests = 31;
    c->exempt = runtime_exempt_put(&region->runtime, index, &list);
    runtime_publish(&region->runtime, v);
    return region;
}

static void values_go_over_unless_the_file_has_changed(void **state)
{
    (void)state;
    static struct runtime_values v;
    struct config_region *old = changed(&v);
    const int block = block_of(old);
    /* in another order; b has another value in the file, and so has the first server */
    struct config_region *now = load("limit \"c\" { requests = 30 window = 1m }\n"
                                     "limit \"b\" { requests = 25 window = 1m }\n"
                                     "limit \"new\" { requests = 1 window = 1m }\n"
                                     "limit \"a\" { requests = 10 window = 1m }",
                                     "server \"127.0.0.1:2\" { }", "60s");
    running_values_read(now, block);
    runtime_read(&now->runtime, &v);
    assert_int_equal(limit_in(now, &v, "a")->requests, 11);
    assert_int_equal(limit_in(now, &v, "b")->requests, 25);
    assert_int_equal(limit_in(now, &v, "new")->requests, 1);
    assert_int_equal(v.server[0].weight, 3);
    assert_int_equal(v.server[1].weight, 0);
    assert_int_equal(v.cache.ttl_ms, 5000);

    const struct runtime_limit *c = limit_in(now, &v, "c");
    const uint32_t index = (uint32_t)(c - v.limit);
    const struct pending_change *t = &now->runtime.trial[index];
    assert_int_equal(c->requests, 31);
    assert_int_equal(atomic_load(&t->until_ms), 123456);
    assert_int_equal(t->before.requests, 30);
    const struct exempt *list = runtime_exempt_of(&now->runtime, index, c);
    const struct exempt *before = runtime_exempt_of(&now->runtime, index, &t->before);
    assert_non_null(list);
    assert_non_null(before);
    assert_int_equal(list->n_nets, 1);
    assert_int_equal(before->n_nets, 1);
    assert_memory_not_equal(&list->net[0], &before->net[0], sizeof list->net[0]);
    close(block);
}

static void a_changed_file_wins(void **state)
{
    (void)state;
    static struct runtime_values v;
    const int block = block_of(changed(&v));
    struct config_region *now = load("limit \"a\" { requests = 12 window = 1m }",
                                     "server \"127.0.0.1:2\" { weight = 9 }", "90s");
    running_values_read(now, block);
    runtime_read(&now->runtime, &v);
    assert_int_equal(limit_in(now, &v, "a")->requests, 12);
    assert_int_equal(v.server[1].weight, 9);
    assert_int_equal(v.cache.ttl_ms, 90000);
    close(block);
}

/* Of a later version, or out of this one's ranges: left to the file. */
static void what_does_not_fit_is_left_to_the_file(void **state)
{
    (void)state;
    static struct runtime_values v;
    static const char *const texts[][3] = {
        {"limit", "a", "window"}, {"limit", "a", "unheard"}, {"limit", "nobody", "requests"},
        {"cache", "", "unheard"}, {"unheard", "", "ttl"},
    };
    struct state_writer w;
    state_writer_open(&w, STATE_OF_POLDERD, "9");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        state_record(&w, STATE_VALUE, STATE_SKIPPABLE);
        for (unsigned k = 0; k < 3; k++)
            state_put_text(&w, texts[i][k]);
        state_put_u64(&w, 60000);
        state_put_u64(&w, 1); /* ms: too short for a window */
    }
    state_record(&w, STATE_EXEMPT, STATE_SKIPPABLE);
    state_put_text(&w, "a");
    state_put_bytes(&w, "of another layout", 17);
    state_record(&w, STATE_RECORDS_END, STATE_SKIPPABLE);
    state_put_u64(&w, 1);
    const int block = state_writer_close(&w);
    assert_true(block >= 0);
    struct config_region *now = load(BEFORE, "", "60s");
    running_values_read(now, block);
    runtime_read(&now->runtime, &v);
    assert_int_equal(limit_in(now, &v, "a")->requests, 10);
    assert_int_equal(limit_in(now, &v, "a")->window_ms, 60000);
    assert_int_equal(limit_in(now, &v, "a")->exempt, 0);
    assert_int_equal(v.cache.ttl_ms, 60000);
    close(block);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/polder-running.XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static int tear_down(void **state)
{
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "%s/polder.conf", dir);
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_over_unless_the_file_has_changed),
        cmocka_unit_test(a_changed_file_wins),
        cmocka_unit_test(what_does_not_fit_is_left_to_the_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
