/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report: what was seen, and what it is worth.
 *
 * Each optimisation that is configured has the same share of 100. It gets the part of its share
 * that its routes or limits have earned: one whose checks have all been seen to hold counts as one,
 * one of which anything failed as none, one that could not be probed is left out. Where nothing of
 * an optimisation could be probed it has earned nothing, because it was not seen to work.
 */
#include "admin/verify/verify.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const optimisations[] = {
    [POLLING] = "polling",
    [WEBSOCKET] = "websocket",
    [CACHING] = "caching",
    [RATE_LIMITING] = "rateLimiting",
};
static const char *const outcomes[] = {
    [SEEN_OK] = "ok",
    [SEEN_FAILED] = "FAILED",
    [NOT_PROBED] = "not probed",
    [NOT_CONFIGURED] = "not configured",
};

/* The next word of a list, and what it is; -1: nothing. False: there is none. */
static bool next_word(const char **list, int *of)
{
    const size_t len = strcspn(*list, ",");
    *of = -1;
    if (!len)
        return false;
    for (int i = 0; i < OPTIMISATIONS; i++)
        if (strlen(optimisations[i]) == len && !memcmp(optimisations[i], *list, len))
            *of = i;
    *list += len + ((*list)[len] == ',');
    return true;
}

bool report_knows(const char *list)
{
    int of;
    while (next_word(&list, &of))
        if (of < 0)
            return false;
    return !*list;
}

bool report_wants(const struct verify *v, enum optimisation of)
{
    const char *list = v->only;
    int one;
    while (next_word(&list, &one))
        if (one == (int)of)
            return true;
    return !*v->only;
}

void report(struct verify *v, enum optimisation of, const char *subject, const char *name,
            enum outcome outcome, const char *format, ...)
{
    struct check *more = realloc(v->checks, (v->n_checks + 1) * sizeof *more);
    if (!more)
        return;
    v->checks = more;
    struct check *c = &more[v->n_checks++];
    *c = (struct check){.of = of, .outcome = outcome};
    snprintf(c->subject, sizeof c->subject, "%s", subject);
    snprintf(c->name, sizeof c->name, "%s", name);
    va_list args;
    va_start(args, format);
    vsnprintf(c->seen, sizeof c->seen, format, args);
    va_end(args);
    for (char *at = c->seen; *at; at++) /* some of it is a backend's */
        if (*at < ' ' || *at > '~')
            *at = '?';
}

void report_more(struct verify *v, enum optimisation of, unsigned n)
{
    if (n)
        report(v, of, "...", "", NOT_PROBED, "%u more: %d of each are looked at", n, VERIFY_ROUTES);
}

void report_progress(const struct verify *v, const char *format, ...)
{
    va_list args;
    if (v->json && !isatty(STDERR_FILENO))
        return;
    va_start(args, format);
    fputs("verify: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

const char *report_time(uint64_t ms, char out[32])
{
    if (ms % 1000)
        snprintf(out, 32, "%.4gs", (double)ms / 1000);
    else if (ms % 60000 || ms == 0)
        snprintf(out, 32, "%llus", (unsigned long long)ms / 1000);
    else if (ms % 3600000)
        snprintf(out, 32, "%llum", (unsigned long long)ms / 60000);
    else
        snprintf(out, 32, "%lluh", (unsigned long long)ms / 3600000);
    return out;
}

/* ---- the score ---- */

static bool same_subject(const struct check *a, const struct check *b)
{
    return a->of == b->of && !strcmp(a->subject, b->subject);
}

/* Of the subject that begins with check i; false: it began before. */
static bool judge(const struct verify *v, size_t i, bool *ok, bool *failed)
{
    *ok = *failed = false;
    for (size_t k = 0; k < v->n_checks; k++) {
        if (!same_subject(&v->checks[i], &v->checks[k]))
            continue;
        if (k < i)
            return false;
        *ok |= v->checks[k].outcome == SEEN_OK;
        *failed |= v->checks[k].outcome == SEEN_FAILED;
    }
    return true;
}

/* The part that an optimisation has earned, 0 to 1; -1: it is not configured. */
static double earned(const struct verify *v, enum optimisation of)
{
    unsigned good = 0, all = 0;
    bool configured = false, ok, failed;
    for (size_t i = 0; i < v->n_checks; i++) {
        if (v->checks[i].of != of || v->checks[i].outcome == NOT_CONFIGURED)
            continue;
        configured = true;
        if (!judge(v, i, &ok, &failed) || (!ok && !failed))
            continue;
        good += !failed;
        all++;
    }
    return !configured ? -1 : all ? (double)good / all : 0;
}

int report_score(const struct verify *v)
{
    double sum = 0;
    unsigned n = 0;
    for (int of = 0; of < OPTIMISATIONS; of++) {
        const double part = earned(v, (enum optimisation)of);
        if (part < 0)
            continue;
        sum += part;
        n++;
    }
    return n ? (int)(100 * sum / n) : -1; /* 99.9 is not 100 */
}

/* ---- for people ---- */

static void print_table(const struct verify *v)
{
    size_t subject = 7, name = 5;
    for (size_t i = 0; i < v->n_checks; i++) {
        subject = strlen(v->checks[i].subject) > subject ? strlen(v->checks[i].subject) : subject;
        name = strlen(v->checks[i].name) > name ? strlen(v->checks[i].name) : name;
    }
    printf("%-12s  %-*s  %-*s  %-14s  %s\n", "optimisation", (int)subject, "subject", (int)name,
           "check", "result", "seen");
    for (int of = 0; of < OPTIMISATIONS; of++)
        for (size_t i = 0; i < v->n_checks; i++) {
            const struct check *c = &v->checks[i];
            if (c->of == (enum optimisation)of)
                printf("%-12s  %-*s  %-*s  %-14s  %s\n", optimisations[of], (int)subject,
                       c->subject, (int)name, c->name, outcomes[c->outcome], c->seen);
        }
}

static void print_score(const struct verify *v, int score)
{
    if (score < 0) {
        puts("\nnothing of polling, websocket, caching and rateLimiting is configured: there is "
             "nothing to verify");
        return;
    }
    printf("\nscore %d of 100 for %s (", score, v->where);
    for (int of = 0; of < OPTIMISATIONS; of++) {
        const double part = earned(v, (enum optimisation)of);
        printf("%s%s ", of ? ", " : "", optimisations[of]);
        if (part < 0)
            fputs(report_wants(v, (enum optimisation)of) ? "not configured" : "not asked for",
                  stdout);
        else
            printf("%d %%", (int)(100 * part));
    }
    printf("): %s, for %u is asked\n", score >= (int)v->threshold ? "passed" : "FAILED",
           v->threshold);
}

static void print_text(const struct verify *v, int score)
{
    print_table(v);
    print_score(v, score);
    if (*v->note)
        printf("\nnote: %s\n", v->note);
}

/* ---- for programs ---- */

static json_t *json_optimisations(const struct verify *v)
{
    json_t *list = json_array();
    for (int of = 0; of < OPTIMISATIONS; of++) {
        const double part = earned(v, (enum optimisation)of);
        json_array_append_new(
            list, json_pack("{s:s, s:b, s:o}", "name", optimisations[of], "configured", part >= 0,
                            "score", part < 0 ? json_null() : json_integer((int)(100 * part))));
    }
    return list;
}

static json_t *json_checks(const struct verify *v)
{
    static const char *const names[] = {[SEEN_OK] = "ok",
                                        [SEEN_FAILED] = "failed",
                                        [NOT_PROBED] = "not probed",
                                        [NOT_CONFIGURED] = "not configured"};
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_checks; i++) {
        const struct check *c = &v->checks[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:s}", "optimisation",
                                        optimisations[c->of], "subject", c->subject, "check",
                                        c->name, "result", names[c->outcome], "seen", c->seen));
    }
    return list;
}

void report_print(const struct verify *v)
{
    const int score = report_score(v);
    if (!v->json) {
        print_text(v, score);
        return;
    }
    json_t *root =
        json_pack("{s:s, s:o, s:i, s:b, s:o, s:o, s:s*}", "address", v->where, "score",
                  score < 0 ? json_null() : json_integer(score), "threshold", (int)v->threshold,
                  "passed", score >= (int)v->threshold, "optimisations", json_optimisations(v),
                  "checks", json_checks(v), "note", *v->note ? v->note : NULL);
    if (root)
        json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}
