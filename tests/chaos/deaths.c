/* SPDX-License-Identifier: BSD-2-Clause */
/* deaths: victims, and what a house weighs afterwards. */
#include "tests/chaos/chaos.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

pid_t victim_of(struct house *h, const char *title)
{
    pid_t pid[16];
    const size_t n = house_children(h, title, pid, 16);
    return n ? pid[(unsigned)rand() % n] : 0;
}

unsigned long store_kib(struct house *h)
{
    char dir[256], path[600];
    unsigned long sum = 0;
    snprintf(dir, sizeof dir, "%s/state", h->dir);
    DIR *d = opendir(dir);
    const struct dirent *e;
    struct stat st;
    while (d && (e = readdir(d))) {
        snprintf(path, sizeof path, "%s/%s/data.mdb", dir, e->d_name);
        if (!strncmp(e->d_name, "cache.", 6) && stat(path, &st) == 0)
            sum += (unsigned long)st.st_size / 1024;
    }
    if (d)
        closedir(d);
    return sum;
}

unsigned long long stat_of(struct house *h, const char *key)
{
    const char *out;
    char want[64];
    snprintf(want, sizeof want, "\"%s\":", key);
    const int status = ctl(h, &out, "--json cache stats");
    const char *at = strstr(out, want);
    if (status != 0 || !at)
        fail_msg("cache stats does not tell %s: %s", key, out);
    at += strlen(want);
    at += strspn(at, " ");
    return *at == 't' ? 1 : strtoull(at, NULL, 10);
}
