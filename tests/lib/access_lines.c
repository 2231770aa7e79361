/* SPDX-License-Identifier: BSD-2-Clause */
#include "access_lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char access_dir[64], access_path[96], access_rotated[112];

int access_set_up(void **state)
{
    (void)state;
    strcpy(access_dir, "/tmp/polder-access.XXXXXX");
    assert_non_null(mkdtemp(access_dir));
    chmod(access_dir, 0755);
    snprintf(access_path, sizeof access_path, "%s/access.log", access_dir);
    snprintf(access_rotated, sizeof access_rotated, "%s.1", access_path);
    return 0;
}

int access_tear_down(void **state)
{
    (void)state;
    unlink(access_path);
    unlink(access_rotated);
    return rmdir(access_dir);
}

char *access_text(const char *file)
{
    static char text[1 << 20];
    FILE *f = fopen(file, "r");
    text[0] = 0;
    if (f) {
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
    }
    return text;
}

unsigned access_lines_with(char line[ACCESS_LINE], const char *const *words)
{
    unsigned n = 0;
    for (char *at = access_text(access_path), *end; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        bool all = true;
        for (size_t i = 0; words[i]; i++)
            all = all && strstr(at, words[i]);
        n += all;
        if (all && line)
            snprintf(line, ACCESS_LINE, "%s", at);
    }
    return n;
}

unsigned access_lines(void)
{
    static const char *const any[] = {"{\"time\":\"20", NULL};
    return access_lines_with(NULL, any);
}

long access_number(const char *line, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(line, key);
    return at ? atol(at + strlen(key)) : -1;
}

void access_member(const char *line, const char *name, char out[256])
{
    char key[64];
    snprintf(key, sizeof key, "\"%s\":\"", name);
    const char *at = strstr(line, key);
    snprintf(out, 256, "%.*s", at ? (int)strcspn(at + strlen(key), "\"") : 0,
             at ? at + strlen(key) : "");
}
