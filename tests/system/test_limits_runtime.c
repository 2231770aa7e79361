/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of limits that are changed, tried and watched while they run. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=60\r\n", "ok");
}

/* ---- whom a limit exempts ---- */

static void start_keyed(struct house *h, unsigned workers, const char *more)
{
    house_start(h, workers,
                "trusted_proxies = {\"127.0.0.0/8\"}\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = 3 window = \"60s\" key = \"header:x-key\" %s }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"status\"} cache { } }\n",
                backend_port(backend), more);
}

/* A connection of its own, whose requests are all alike: from the third on its memo answers. */
struct poller {
    int fd;
    const char *lines;
};

static void poller_open(struct poller *p, struct house *h, const char *lines)
{
    p->fd = client_connect(h->port);
    p->lines = lines;
}

static int poll_once(struct poller *p)
{
    struct message m;
    client_send(p->fd, "GET /x HTTP/1.1\r\nHost: h\r\n%s\r\n", p->lines);
    client_read(p->fd, &m, false);
    const int status = m.status;
    message_free(&m);
    return status;
}

static unsigned polled(struct poller *p, unsigned n)
{
    unsigned ok = 0;
    for (unsigned i = 0; i < n; i++)
        ok += poll_once(p) == 200;
    return ok;
}

static void who_is_exempt_changes_for_the_next_request_on_open_connections(void **state)
{
    (void)state;
    struct house h;
    struct poller partner[4], network[4], other;
    start_keyed(&h, 4, "exempt = {\"198.51.100.0/24\"}");
    poller_open(&other, &h, "X-Key: other\r\n");
    assert_int_equal(polled(&other, 5), 3);
    for (int i = 0; i < 4; i++) {
        poller_open(&partner[i], &h, "X-Key: partner\r\n");
        poller_open(&network[i], &h, "X-Key: net\r\nX-Forwarded-For: 198.51.100.7\r\n");
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(polled(&partner[i], 5), i == 0 ? 3 : 0);
        assert_int_equal(polled(&network[i], 5), 5);
    }
    assert_int_equal(ctl(&h, NULL, "limit set status exempt=192.0.2.0/24,partner"), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(polled(&partner[i], 5), 5);
        assert_int_equal(polled(&network[i], 5), i == 0 ? 3 : 0);
    }
    assert_int_equal(polled(&other, 2), 0); /* counts are kept */
    assert_int_equal(ctl(&h, NULL, "limit set status exempt="), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(polled(&partner[i], 2), 0);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=5"), 0); /* is not the file's list */
    assert_int_equal(polled(&network[0], 5), 2);
    for (int i = 0; i < 4; i++) {
        close(partner[i].fd);
        close(network[i].fd);
    }
    close(other.fd);
    house_remove(&h);
}

static bool exempts(struct house *h, const char *want)
{
    const char *out;
    char text[256];
    assert_int_equal(ctl(h, &out, "--json limit show status"), 0);
    const char *list = strstr(out, "\"exempt\": [");
    assert_non_null(list);
    size_t n = 0;
    for (list += 11; *list != ']' && n + 1 < sizeof text; list++)
        if (*list != ' ' && *list != '\n' && *list != '"')
            text[n++] = *list;
    text[n] = 0;
    return !strcmp(text, want);
}

static void who_is_exempt_is_tried_persisted_and_shown(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    pid_t control;
    start_keyed(&h, 2, "exempt = {\"198.51.100.0/24\", \"old\"}");
    assert_true(exempts(&h, "198.51.100.0/24,old"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0.0/33"), 2);
    assert_non_null(strstr(out, "\"10.0.0.0/33\" is wrong; expected a network such as"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0"), 2);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=a,::/129,b"), 2);
    assert_non_null(strstr(out, "\"::/129\""));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=a,,b"), 2);
    assert_true(exempts(&h, "198.51.100.0/24,old"));
    /* nobody confirms: the file's, though control dies meanwhile */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=one --confirm-within 2s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=two --confirm-within 2s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=three --confirm-within 2s"), 0);
    assert_true(exempts(&h, "three"));
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    kill(control, SIGKILL);
    wait_until(ctl(&h, &out, "status") == 0, 5000);
    wait_until(exempts(&h, "198.51.100.0/24,old"), 8000);
    /* the list from before, where that was not the file's */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=kept"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=one --confirm-within 1s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=two --confirm-within 1s"), 0);
    wait_until(exempts(&h, "kept"), 8000);
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, "kept (file: 198.51.100.0/24, old)"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0.0/8,always --persist"), 0);
    assert_non_null(strstr(out, "exempt: kept -> 10.0.0.0/8, always"));
    assert_false(house_logged(&h, "always")); /* may be a secret */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=not-for-long"), 0);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    assert_true(exempts(&h, "not-for-long")); /* until a restart */
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_true(exempts(&h, "10.0.0.0/8,always"));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get_with(h.port, "/y", "X-Key: always\r\n", NULL), 200);
        assert_int_equal(get_with(h.port, "/y", "X-Key: other\r\n", NULL), i < 3 ? 200 : 429);
    }
    house_remove(&h);
}

static bool shows(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "--json limit show status") == 0 && strstr(out, text);
}

/* What was persisted, what is on trial, and both at once; also over a restart. */
static void a_limit_goes_back_to_what_the_file_says(void **state)
{
    (void)state;
    struct house h;
    struct poller p;
    const char *out;
    start_keyed(&h, 2, "exempt = {\"old\"}");
    poller_open(&p, &h, "X-Key: some\r\n");
    assert_int_equal(ctl(&h, NULL, "limit set status requests=40 exempt=some --persist"), 0);
    assert_int_equal(polled(&p, 10), 10);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=2 --confirm-within 3s"), 0);
    assert_int_equal(ctl(&h, &out, "limit revert status"), 0);
    assert_non_null(strstr(out, "requests: 2 -> 3"));
    assert_non_null(strstr(out, "exempt: some -> old"));
    assert_true(shows(&h, "\"changed\": false") && shows(&h, "\"persisted\": false"));
    assert_false(shows(&h, "confirm_within_ms"));
    assert_int_equal(polled(&p, 10), 3);
    wait_until(house_logged(&h, "limit.revert name=status by uid"), 5000);
    close(p.fd);
    house_advance(&h, 3500); /* longer than the trial would have lasted */
    nap_ms(1200);            /* control has looked meanwhile */
    assert_true(shows(&h, "\"changed\": false"));
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_true(shows(&h, "\"changed\": false") && shows(&h, "\"requests\": 3"));
    assert_int_equal(ctl(&h, &out, "limit revert status"), 0);
    assert_non_null(strstr(out, "nothing changed"));
    assert_int_equal(ctl(&h, NULL, "limit revert nothing"), 1);
    house_remove(&h);
}

/* ---- candidates beside a limit ---- */

static void start_by_client(struct house *h, unsigned workers)
{
    house_start(h, workers,
                "trusted_proxies = {\"127.0.0.0/8\"}\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = 20 window = \"60s\" }\n"
                "limit \"all\" { requests = 1000 window = \"60s\" key = \"global\" }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"status\"} cache { } }\n"
                "route \"/both\" { upstream = \"u\" limits = {\"status\", \"all\"} }\n",
                backend_port(backend));
}

/* A number of a report: behind `section` ("" for the top), the member. */
static long number_of(const char *report, const char *section, const char *member)
{
    char name[64];
    snprintf(name, sizeof name, "\"%s\": ", member);
    const char *at = strstr(report, section);
    at = at ? strstr(at, name) : NULL;
    if (!at)
        fail_msg("no %s of %s in: %s", member, section, report);
    return atol(at + strlen(name));
}

static const char *report_of(struct house *h)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "--json limit try status"), 0);
    return out;
}

static long tried(struct house *h, const char *section, const char *member)
{
    return number_of(report_of(h), section, member);
}

/* polderctl in the background, as an operator waits for it. */
struct waiting {
    pid_t pid;
    char path[160]; /* what it says */
    int status;     /* -1: it waits */
};

static void ctl_begins(struct house *h, struct waiting *w, const char *const words[])
{
    const char *argv[16] = {built("polderctl"), "-s", h->sock};
    static unsigned number;
    for (int i = 0; words[i]; i++)
        argv[3 + i] = words[i];
    snprintf(w->path, sizeof w->path, "%s/said.%u", h->dir, number++);
    w->status = -1;
    w->pid = fork();
    if (w->pid == 0) {
        if (!freopen(w->path, "w", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
            _exit(99);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(99);
    }
}
#define CTL_BEGINS(h, w, ...) ctl_begins(h, w, (const char *const[]){__VA_ARGS__, NULL})

static bool ctl_ended(struct waiting *w)
{
    int status;
    if (w->status < 0 && waitpid(w->pid, &status, WNOHANG) == w->pid)
        w->status = WIFEXITED(status) ? WEXITSTATUS(status) : 98;
    return w->status >= 0;
}

static const char *ctl_said(const struct waiting *w)
{
    static char text[8192];
    FILE *f = fopen(w->path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void ctl_interrupt(struct waiting *w)
{
    if (!ctl_ended(w)) {
        kill(w->pid, SIGINT);
        waitpid(w->pid, NULL, 0);
    }
}

static bool is_running(struct house *h)
{
    const char *out;
    return ctl(h, &out, "--json limit try status") == 0 && strstr(out, "\"running\"");
}

static void a_candidate_is_counted_exactly_beside_the_limit(void **state)
{
    (void)state;
    struct house h;
    struct poller a, b;
    struct waiting w;
    const char *out;
    start_by_client(&h, 4);
    assert_int_equal(ctl(&h, &out, "limit try status"), 1);
    assert_non_null(strstr(out, "nothing was tried"));
    poller_open(&a, &h, "X-Forwarded-For: 198.51.100.1\r\n");
    poller_open(&b, &h, "X-Forwarded-For: 198.51.100.2\r\n");
    assert_int_equal(polled(&a, 5), 5); /* before: of these the candidate knows nothing */
    CTL_BEGINS(&h, &w, "limit", "try", "status", "requests=10", "window=1h", "--for", "5s");
    wait_until(is_running(&h), 5000);
    assert_int_equal(polled(&a, 30), 15);
    assert_int_equal(polled(&b, 12), 12);
    out = report_of(&h);
    assert_non_null(strstr(out, "\"running\""));
    assert_int_equal(number_of(out, "\"left_ms\"", "requests"), 42);
    assert_int_equal(number_of(out, "\"live\"", "refused"), 15);
    assert_int_equal(number_of(out, "\"candidate\"", "requests"), 10);
    assert_int_equal(number_of(out, "\"candidate\"", "refused"), 22);
    assert_int_equal(number_of(out, "\"198.51.100.1\"", "refused"), 20);
    assert_int_equal(number_of(out, "\"198.51.100.2\"", "refused"), 2);
    wait_until(ctl_ended(&w), 15000);
    assert_int_equal(w.status, 0);
    const char *said = ctl_said(&w);
    assert_non_null(strstr(said, "state      ended"));
    assert_non_null(strstr(said, "198.51.100.1       20"));
    wait_until(house_logged(&h, "the try is over: of 42 requests the limit refused 15, the "
                                "candidate would have refused 22"),
               5000);
    polled(&b, 30); /* after: nothing more is counted */
    assert_int_equal(tried(&h, "\"left_ms\"", "requests"), 42);
    assert_int_equal(ctl(&h, NULL, "limit reset status"), 0);
    assert_int_equal(polled(&b, 25), 20); /* the limit itself was not touched */
    close(a.fd);
    close(b.fd);
    house_remove(&h);
}

/* Over many connections to all workers; what another limit refuses is charged to neither. */
static void a_candidate_is_one_over_all_workers(void **state)
{
    (void)state;
    struct house h;
    struct waiting w;
    unsigned counts[1000] = {0};
    start_by_client(&h, 4);
    assert_int_equal(ctl(&h, NULL, "limit set status dry_run=true"), 0);
    CTL_BEGINS(&h, &w, "limit", "try", "status", "requests=100", "algorithm=fixed", "window=1d");
    wait_until(is_running(&h), 5000);
    storm(h.port, "/both", 3000, 30, counts, NULL);
    assert_int_equal(counts[200], 1000);
    assert_int_equal(tried(&h, "\"left_ms\"", "requests"), 1000);
    assert_int_equal(tried(&h, "\"live\"", "refused"), 980);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 900);
    ctl_interrupt(&w);
    house_remove(&h);
}

/* Its head is what names a client whose requests a memo answers. */
static void clients_are_named_though_their_requests_are_all_alike(void **state)
{
    (void)state;
    struct house h;
    struct waiting w;
    struct poller greedy;
    start_keyed(&h, 2, "");
    assert_int_equal(ctl(&h, NULL, "limit set status requests=100"), 0);
    poller_open(&greedy, &h, "X-Key: greedy\r\n");
    assert_int_equal(polled(&greedy, 5), 5);
    CTL_BEGINS(&h, &w, "limit", "try", "status", "requests=10");
    wait_until(is_running(&h), 5000);
    assert_int_equal(polled(&greedy, 40), 40);
    assert_int_equal(tried(&h, "\"greedy\"", "refused"), 30);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 30);
    ctl_interrupt(&w);
    close(greedy.fd);
    house_remove(&h);
}

static void a_try_outlives_workers_control_and_reloads(void **state)
{
    (void)state;
    struct house h;
    struct waiting w;
    unsigned counts[1000] = {0};
    pid_t pid[8];
    start_by_client(&h, 4);
    CTL_BEGINS(&h, &w, "--json", "limit", "try", "status", "requests=10", "--for", "6s");
    wait_until(is_running(&h), 5000);
    for (int round = 0; round < 5; round++) {
        storm(h.port, "/x", 100, 10, counts, NULL);
        if (round == 3) {
            assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
            continue;
        }
        const size_t n = round == 1 ? house_children(&h, "polderd: control", pid, 8)
                                    : house_children(&h, "polderd: worker", pid, 8);
        for (size_t i = 0; i < n; i++)
            kill(pid[i], SIGKILL);
        wait_until(house_ready(&h) && ctl(&h, NULL, "status") == 0, 10000);
    }
    const unsigned answered = counts[200] + counts[429];
    wait_until(ctl_ended(&w), 20000);
    assert_int_equal(w.status, 0);
    const char *said = ctl_said(&w);
    assert_non_null(strstr(said, "\"ended\""));
    const long requests = number_of(said, "\"left_ms\"", "requests");
    assert_true(answered >= 300);
    /* each that was answered is counted, and some whose worker died before it could answer */
    assert_in_range(requests, answered, 500);
    assert_in_range(number_of(said, "\"candidate\"", "refused"), requests - 10, requests);
    assert_true(number_of(said, "\"live\"", "refused") >= (long)counts[429]);
    wait_until(house_logged(&h, "the try is over"), 5000);
    house_remove(&h);
}

static void the_second_try_of_a_limit_takes_the_place_of_the_first(void **state)
{
    (void)state;
    struct house h;
    struct waiting first, second;
    const char *out;
    start_by_client(&h, 2);
    CTL_BEGINS(&h, &first, "limit", "try", "status", "requests=10", "--for", "2s");
    wait_until(is_running(&h), 5000);
    for (int i = 0; i < 12; i++)
        get(h.port, "/x", NULL);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 2);
    CTL_BEGINS(&h, &second, "limit", "try", "status", "requests=5");
    wait_until(tried(&h, "\"candidate\"", "requests") == 5, 5000);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 0);
    for (int i = 0; i < 7; i++)
        get(h.port, "/x", NULL);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 2);
    wait_until(ctl_ended(&first), 10000);
    assert_int_equal(first.status, 1);
    assert_non_null(strstr(ctl_said(&first), "another try has taken the place"));
    assert_int_equal(ctl(&h, &out, "limit try status dry_run=true"), 2);
    assert_int_equal(ctl(&h, &out, "limit try status exempt=10.0.0.0/33"), 2);
    assert_int_equal(ctl(&h, &out, "limit try status requests=10 --for 500ms"), 2);
    assert_int_equal(ctl(&h, &out, "limit try status requests=70000"), 2);
    assert_int_equal(ctl(&h, &out, "limit try status --for 5s"), 2);
    assert_int_equal(ctl(&h, &out, "limit try nothing requests=1"), 1);
    ctl_interrupt(&second); /* ends nothing */
    assert_int_equal(tried(&h, "\"candidate\"", "requests"), 5);
    assert_true(is_running(&h));
    house_remove(&h);
}

/* Whom the limit exempts, whom the candidate, whom both, whom neither; with a memo and without. */
static void a_candidate_may_exempt_others_than_the_limit(void **state)
{
    (void)state;
    struct house h;
    struct waiting w;
    struct poller vip, partner, both, other, net;
    const char *out;
    start_keyed(&h, 2, "exempt = {\"vip\", \"both\"}");
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_null(strstr(out, "TRY LEFT"));
    poller_open(&vip, &h, "X-Key: vip\r\n");
    assert_int_equal(polled(&vip, 5), 5);
    CTL_BEGINS(&h, &w, "limit", "try", "status", "requests=2",
               "exempt=secret-partner,both,198.51.100.0/24");
    wait_until(is_running(&h), 5000);
    poller_open(&partner, &h, "X-Key: secret-partner\r\n");
    poller_open(&both, &h, "X-Key: both\r\n");
    poller_open(&other, &h, "X-Key: other\r\n");
    poller_open(&net, &h, "X-Key: net\r\nX-Forwarded-For: 198.51.100.7\r\n");
    assert_int_equal(polled(&vip, 10), 10);
    assert_int_equal(polled(&partner, 10), 3);
    assert_int_equal(polled(&both, 10), 10);
    assert_int_equal(polled(&other, 10), 3);
    assert_int_equal(polled(&net, 10), 3);
    assert_int_equal(tried(&h, "\"left_ms\"", "requests"), 40); /* nobody counts "both" */
    assert_int_equal(tried(&h, "\"live\"", "refused"), 21);
    assert_int_equal(tried(&h, "\"candidate\"", "refused"), 16);
    assert_int_equal(tried(&h, "\"vip\"", "refused"), 8);
    assert_int_equal(tried(&h, "\"other\"", "refused"), 8);
    assert_false(house_logged(&h, "secret-partner"));
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, "TRY LEFT"));
    assert_int_equal(ctl(&h, &out, "limit show status"), 0);
    assert_non_null(strstr(out, "\ntry:\n"));
    assert_non_null(strstr(out, "198.51.100.0/24, secret-partner, both"));
    ctl_interrupt(&w);
    const struct poller *all[] = {&vip, &partner, &both, &other, &net};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]->fd);
    house_remove(&h);
}

static atomic_bool let_go;

static bool answers_late(struct asked *a)
{
    while (!atomic_load(&let_go))
        nap_ms(5);
    return reply_ok(a, "", "ok");
}

static void a_candidate_bounds_requests_under_way(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct waiting w;
    int fd[5];
    struct backend *slow = backend_start(answers_late, NULL);
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = 1000 window = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"status\"} }\n",
                backend_port(slow));
    CTL_BEGINS(&h, &w, "limit", "try", "status", "concurrent=3");
    wait_until(is_running(&h), 5000);
    for (int round = 0; round < 2; round++) { /* places are given back */
        atomic_store(&let_go, false);
        backend_forget(slow);
        for (int i = 0; i < 5; i++) {
            fd[i] = client_connect(h.port);
            client_send(fd[i], "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        wait_until(backend_calls(slow) == 5, 10000);
        wait_until(tried(&h, "\"candidate\"", "refused") == 2 * (round + 1), 5000);
        atomic_store(&let_go, true);
        for (int i = 0; i < 5; i++) {
            client_read(fd[i], &m, false);
            assert_int_equal(m.status, 200);
            message_free(&m);
            close(fd[i]);
        }
    }
    assert_int_equal(tried(&h, "\"left_ms\"", "requests"), 10);
    ctl_interrupt(&w);
    house_remove(&h);
    backend_stop(slow);
}

/* ---- limits that change places ---- */

static void a_reload_gives_no_limit_the_clients_of_another(void **state)
{
    (void)state;
    static const char *const order[] = {
        "limit \"one\" { requests = 5 key = \"header:x-key\" }\nlimit \"two\" { requests = 9 }\n",
        "limit \"two\" { requests = 9 }\nlimit \"one\" { requests = 5 key = \"header:x-key\" }\n"};
    struct house h;
    struct poller p;
    const char *out;
    char routes[512];
    static const char form[] = "%supstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                               "route \"/*\" { upstream = \"u\" limits = {\"one\"} }\n";
    house_start(&h, 2, form, order[0], backend_port(backend));
    poller_open(&p, &h, "X-Key: secret-of-one\r\n");
    polled(&p, 200);
    assert_int_equal(ctl(&h, &out, "limit top one"), 0);
    assert_non_null(strstr(out, "secret-of-one"));
    snprintf(routes, sizeof routes, form, order[1], backend_port(backend));
    house_write_conf(&h, 2, routes);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    for (int round = 0; round < 2; round++) { /* also while the old worker serves what it has */
        assert_int_equal(ctl(&h, &out, "limit top two"), 0);
        assert_null(strstr(out, "secret-of-one"));
        poll_once(&p);
        close(p.fd);
        poller_open(&p, &h, "X-Key: secret-of-one\r\n");
        polled(&p, 200);
    }
    assert_int_equal(ctl(&h, &out, "limit top one"), 0);
    assert_non_null(strstr(out, "secret-of-one"));
    close(p.fd);
    house_remove(&h);
}

/* ---- a table that is too small ---- */

/* n requests of as many keys, in bundles over one connection. */
static void flood(struct house *h, unsigned n)
{
    enum { BUNDLE = 20 };
    char text[BUNDLE * 64];
    struct message m;
    const int fd = client_connect(h->port);
    for (unsigned i = 0; i < n; i += BUNDLE) {
        size_t len = 0;
        for (unsigned k = i; k < i + BUNDLE; k++)
            len += (size_t)snprintf(text + len, sizeof text - len,
                                    "GET /x HTTP/1.1\r\nHost: h\r\nX-Key: flood%u\r\n\r\n", k);
        client_send_bytes(fd, text, len);
        for (unsigned k = 0; k < BUNDLE; k++) {
            client_read(fd, &m, false);
            message_free(&m);
        }
    }
    close(fd);
}

static double metric(struct house *h, const char *name)
{
    struct message m;
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, name);
    if (!at)
        fail_msg("no %s", name);
    const double value = strtod(at + strlen(name), NULL);
    message_free(&m);
    return value;
}

static unsigned times_logged(struct house *h, const char *text)
{
    static char log[1 << 20];
    unsigned n = 0;
    FILE *f = fopen(h->log, "r");
    assert_non_null(f);
    log[fread(log, 1, sizeof log - 1, f)] = 0;
    fclose(f);
    for (const char *at = log; (at = strstr(at, text)); at++)
        n++;
    return n;
}

static void a_table_that_is_too_small_is_seen(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    struct poller heavy;
    house_start(&h, 2,
                "limit_entries = 1000\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = 100 window = \"10m\" key = \"header:x-key\" }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"status\"} cache { } }\n",
                backend_port(backend));
    poller_open(&heavy, &h, "X-Key: heavy\r\n");
    assert_int_equal(polled(&heavy, 110), 100);
    flood(&h, 400);
    nap_ms(1200); /* control has looked meanwhile */
    assert_int_equal(ctl(&h, &out, "--json status"), 0);
    assert_null(strstr(out, "\"condition\": \"limit"));
    assert_true(metric(&h, "\npolder_limit_evicted_live_total ") == 0);
    assert_true(metric(&h, "\npolder_limit_entries ") == 1008);
    flood(&h, 8000);
    wait_until(metric(&h, "\npolder_condition{name=\"limit_table_full\",subject=\"\"} ") == 1,
               5000);
    assert_true(metric(&h, "\npolder_limit_evicted_live_total ") > 5000);
    assert_true(metric(&h, "\npolder_condition{name=\"limit_rows_full\",subject=\"\"} ") == 0);
    assert_int_equal(ctl(&h, &out, "status"), 0);
    assert_non_null(strstr(out, "\nlimit_table_full "));
    assert_non_null(strstr(out, "PROCESS  NUMBER"));
    wait_until(house_logged(&h, "condition limit_table_full: the limiter's table is full"), 5000);
    flood(&h, 2000);
    nap_ms(2500); /* control has looked twice */
    assert_int_equal(times_logged(&h, "condition limit_table_full"), 1);
    assert_int_equal(polled(&heavy, 10), 0); /* a flood does not free who was heavy */
    /* only a restart makes it larger */
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    char edit[256];
    snprintf(edit, sizeof edit, "sed -i 's/limit_entries = 1000/limit_entries = 5000/' %s", h.conf);
    assert_int_equal(system(edit), 0);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 1);
    assert_non_null(strstr(out, "limit_entries cannot change while Polder runs"));
    close(heavy.fd);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_exempt_changes_for_the_next_request_on_open_connections),
        cmocka_unit_test(who_is_exempt_is_tried_persisted_and_shown),
        cmocka_unit_test(a_limit_goes_back_to_what_the_file_says),
        cmocka_unit_test(a_candidate_is_counted_exactly_beside_the_limit),
        cmocka_unit_test(a_candidate_is_one_over_all_workers),
        cmocka_unit_test(clients_are_named_though_their_requests_are_all_alike),
        cmocka_unit_test(a_try_outlives_workers_control_and_reloads),
        cmocka_unit_test(the_second_try_of_a_limit_takes_the_place_of_the_first),
        cmocka_unit_test(a_candidate_may_exempt_others_than_the_limit),
        cmocka_unit_test(a_candidate_bounds_requests_under_way),
        cmocka_unit_test(a_reload_gives_no_limit_the_clients_of_another),
        cmocka_unit_test(a_table_that_is_too_small_is_seen),
    };
    return run_with_backend(tests, &backend, answers);
}
