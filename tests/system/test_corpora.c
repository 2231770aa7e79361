/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each fuzz target still builds, and has nothing to say of any input of its corpus: what once was a
 * finding stays there.
 */
#include "harness.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void show(const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

/* target: tests/fuzz/fuzz_NAME.c */
static bool replayed(const char *target)
{
    char name[64], command[1024], log[] = "/tmp/polder-corpus-XXXXXX";
    const char *base = strrchr(target, '/') + 1;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(base, "."), base);
    const int fd = mkstemp(log);
    assert_true(fd >= 0);
    close(fd);
    const char *program = built("replay");
    snprintf(command, sizeof command, "%s/%s tests/fuzz/corpus/%s >%s 2>&1", program, name,
             name + strlen("fuzz_"), log);
    const bool ok = system(command) == 0;
    if (!ok) {
        fprintf(stderr, "%s:\n", name);
        show(log);
    }
    unlink(log);
    return ok;
}

static void every_fuzz_target_takes_all_of_its_corpus(void **state)
{
    glob_t targets;
    unsigned failed = 0;
    (void)state;
    assert_int_equal(glob("tests/fuzz/fuzz_*.c", 0, NULL, &targets), 0);
    assert_true(targets.gl_pathc > 30);
    for (size_t i = 0; i < targets.gl_pathc; i++)
        failed += !replayed(targets.gl_pathv[i]);
    globfree(&targets);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(every_fuzz_target_takes_all_of_its_corpus),
    };
    return cmocka_run_group_tests(stories, NULL, NULL);
}
