/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * replay: a fuzz target without libFuzzer: each file of the directories named, once, in the order of
 * names; and nothing at all, which is an input too.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

enum { INPUT_MAX = 1 << 20 };

/* The input is as long as its memory: a sanitizer sees a read behind it. */
static void run_file(const char *path)
{
    static uint8_t room[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    const size_t len = fread(room, 1, sizeof room, f);
    fclose(f);
    uint8_t *input = malloc(len ? len : 1);
    if (!input)
        abort();
    memcpy(input, room, len);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(input, len);
    free(input);
}

static void run_directory(const char *dir)
{
    struct dirent **names;
    const int n = scandir(dir, &names, NULL, alphasort);
    if (n < 0) {
        perror(dir);
        exit(1);
    }
    for (int i = 0; i < n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            run_file(path);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++)
        run_directory(argv[i]);
    return 0;
}
