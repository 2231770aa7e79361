/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of watching: each thing that happens is a line, and no secret is in it. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "here");
}

static void start(struct house *h)
{
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"gone\" { server \"127.0.0.1:1\" { } park = 0 }\n"
                "limit \"few\" { requests = 2 window = 1h key = \"header:x-api-key\" }\n"
                "cache { ttl = 1h }\n"
                "route \"/c/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n"
                "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n"
                "route \"/gone\" { upstream = \"gone\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(backend));
}

/* ---- a polderctl watch that runs beside the story ---- */

struct watcher {
    pid_t pid;
    char path[200];
    char *text; /* what it has printed so far */
};

static void watcher_start(struct watcher *w, struct house *h, const char *args)
{
    char line[512];
    static unsigned n;
    snprintf(w->path, sizeof w->path, "%s/watch.%u", h->dir, n++);
    snprintf(line, sizeof line, "exec %s -s %s watch %s >%s 2>&1", built("polderctl"), h->sock,
             args, w->path);
    w->text = NULL;
    w->pid = fork();
    if (w->pid == 0) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
}

static const char *watcher_text(struct watcher *w)
{
    FILE *f = fopen(w->path, "r");
    size_t size = 0;
    free(w->text);
    w->text = NULL;
    if (f) {
        if (getdelim(&w->text, &size, 0, f) < 0) {
            free(w->text);
            w->text = NULL;
        }
        fclose(f);
    }
    return w->text ? w->text : "";
}

static void watcher_stop(struct watcher *w)
{
    kill(w->pid, SIGTERM);
    waitpid(w->pid, NULL, 0);
    free(w->text);
}

#define sees(w, what) wait_until(strstr(watcher_text(w), what), 15000)

/* It has asked at least once when this has come back. */
static void watcher_is_there(struct watcher *w, struct house *h)
{
    wait_until((get(h->port, "/ping", NULL), strstr(watcher_text(w), "/ping")), 15000);
}

/* ---- stories ---- */

static void each_answer_is_a_line_with_its_decisions(void **state)
{
    struct house h;
    struct watcher w;
    (void)state;
    start(&h);
    watcher_start(&w, &h, "requests");
    watcher_is_there(&w, &h);
    get(h.port, "/c/1?token=s3cret", NULL);
    sees(&w, "GET /c/1?token=*  200 in ");
    sees(&w, "cache miss (fwd=uri-miss)");
    get(h.port, "/c/1?token=s3cret", NULL);
    sees(&w, "cache hit");
    get_with(h.port, "/c/1?token=s3cret", "Cookie: sid=s3cret\r\n", NULL);
    sees(&w, "cache bypass (fwd=bypass; identity: cookie sid)");
    for (int i = 0; i < 3; i++)
        get_with(h.port, "/few", "X-Api-Key: aaaabbbbs3cret\r\n", NULL);
    sees(&w, "admitted by few  key aaaa~");
    sees(&w, "429 in ");
    sees(&w, "refused by few  key aaaa~");
    assert_null(strstr(watcher_text(&w), "s3cret"));
    assert_null(strstr(watcher_text(&w), "aaaab"));
    watcher_stop(&w);
    house_remove(&h);
}

static void events_are_lines_of_json_and_filtered_by_noun(void **state)
{
    struct house h;
    struct watcher w, limits;
    const char *out;
    (void)state;
    start(&h);
    assert_int_equal(ctl(&h, &out, "watch nonsense"), 2);
    assert_non_null(strstr(out, "conditions config fleet limits"));
    watcher_start(&w, &h, "--json --events 0");
    watcher_start(&limits, &h, "limits --events 0");
    watcher_is_there(&w, &h);

    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag '\"t\"' --soft"), 0);
    sees(&w, "\"noun\":\"cache\",\"what\":\"invalidated\",\"subject\":\"\\\"t\\\"\",\"count\":1,"
             "\"detail\":\"tag, soft\"");
    sees(&w, "\"noun\":\"admin\"");
    request(h.port, "POST", "/c/2", "", "", NULL);
    sees(&w, "by answers to unsafe requests");
    for (int i = 0; i < 5; i++)
        get_with(h.port, "/few", "X-Api-Key: k\r\n", NULL);
    sees(&limits, "limits      refused few: ");
    get(h.port, "/gone", NULL);
    sees(&w, "\"noun\":\"upstreams\",\"what\":\"down\",\"subject\":\"gone/127.0.0.1:1\"");
    sees(&w, "\"noun\":\"conditions\",\"what\":\"raised\",\"subject\":\"gone/127.0.0.1:1\"");
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    sees(&w, "\"noun\":\"config\",\"what\":\"reloaded\"");

    const char *text = watcher_text(&limits);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        assert_int_equal(strncmp(line + 14, "limits ", 7), 0);
    watcher_stop(&limits);
    watcher_stop(&w);
    house_remove(&h);
}

/* A flood is sampled; a process that dies under it leaves whole lines, and its death is one. */
static void deaths_are_seen_and_tear_nothing(void **state)
{
    struct house h;
    struct watcher w;
    pid_t pid[2];
    unsigned counts[1000] = {0};
    (void)state;
    start(&h);
    watcher_start(&w, &h, "--json");
    watcher_is_there(&w, &h);
    storm(h.port, "/c/1", 2000, 8, counts, NULL);
    assert_int_equal(house_children(&h, "polderd: worker", pid, 2), 2);
    kill(pid[0], SIGKILL);
    sees(&w, "\"noun\":\"processes\",\"what\":\"died\",\"subject\":\"worker ");
    sees(&w, "\"stands_for\":");
    assert_int_equal(house_children(&h, "polderd: control", pid, 1), 1);
    kill(pid[0], SIGKILL); /* the watcher waits for the next one, and the list goes on */
    sees(&w, "\"what\":\"started\",\"subject\":\"control\"");
    for (const char *line = watcher_text(&w); *line; line += strcspn(line, "\n") + 1)
        if (line[strcspn(line, "\n")] && strncmp(line, "polderctl: ", 11) && *line != '{')
            fail_msg("%.200s", line);
    watcher_stop(&w);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(each_answer_is_a_line_with_its_decisions),
        cmocka_unit_test(events_are_lines_of_json_and_filtered_by_noun),
        cmocka_unit_test(deaths_are_seen_and_tear_nothing),
    };
    return run_with_backend(stories, &backend, answers);
}
