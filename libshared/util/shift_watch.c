/* SPDX-License-Identifier: BSD-2-Clause */
/* shift_watch: see shift_watch.h. */
#include "polder/shift_watch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WEIGHT_MAX 1000000

static const char *const rule_names[SHIFT_RULES] = {"none",    "errors", "p95",  "connect", "first",
                                                    "ejected", "early",  "rise", "down"};

const char *shift_rule_name(enum shift_rule rule)
{
    return rule < SHIFT_RULES ? rule_names[rule] : "unknown";
}

/* ---- counting ---- */

static uint64_t grown(uint64_t now, uint64_t then)
{
    return now >= then ? now - then : now;
}

static void count_side(struct shift_counts *since, struct shift_counts *last,
                       const struct shift_counts *now)
{
    since->requests += grown(now->requests, last->requests);
    since->errors += grown(now->errors, last->errors);
    since->unconnected += grown(now->unconnected, last->unconnected);
    since->ejections += grown(now->ejections, last->ejections);
    since->failed_checks += grown(now->failed_checks, last->failed_checks);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        since->bucket[i] += grown(now->bucket[i], last->bucket[i]);
    *last = *now;
}

void shift_watch_begin(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES],
                       uint64_t now_ms)
{
    memset(w, 0, sizeof *w);
    w->begun_ms = now_ms;
    memcpy(w->last, now, sizeof w->last);
}

void shift_watch_rebase(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES])
{
    memcpy(w->last, now, sizeof w->last);
}

void shift_watch_count(struct shift_watch *w, const struct shift_counts now[SHIFT_SIDES])
{
    for (int side = 0; side < SHIFT_SIDES; side++)
        count_side(&w->since[side], &w->last[side], &now[side]);
}

/* ---- what was seen ---- */

static struct proportion proportion_of(const struct shift_watch *w, enum shift_side side)
{
    return (struct proportion){w->since[side].requests, w->since[side].errors};
}

static struct distribution answers_of(const struct shift_watch *w, enum shift_side side)
{
    struct distribution d = distribution_empty(HISTOGRAM_LATENCY);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        d.bucket[i] = w->since[side].bucket[i];
        d.count += d.bucket[i];
    }
    return d;
}

double shift_error_rate(const struct shift_watch *w, enum shift_side side)
{
    const struct proportion p = proportion_of(w, side);
    return proportion_rate(&p);
}

double shift_p95_s(const struct shift_watch *w, enum shift_side side)
{
    const struct distribution d = answers_of(w, side);
    return distribution_quantile_s(&d, .95);
}

uint64_t shift_answers(const struct shift_watch *w, enum shift_side side)
{
    return answers_of(w, side).count;
}

/* ---- judging ---- */

/* Answers in between may have come before or after: only a look without any says "in a row". */
static bool is_unreachable(struct shift_watch *w, uint64_t answers_before, uint64_t failed_before)
{
    if (shift_answers(w, SHIFT_NEW) != answers_before)
        w->unconnected = 0;
    else
        w->unconnected += (uint32_t)(w->since[SHIFT_NEW].unconnected - failed_before);
    return w->unconnected >= SHIFT_CONNECT_ROWS;
}

static bool is_alone_in_it(const struct shift_watch *w)
{
    return shift_error_rate(w, SHIFT_NEW) > 2 * shift_error_rate(w, SHIFT_OTHER);
}

/* It gets no requests, while others would. Where none of them is up, going back would not help. */
static bool shift_watch_is_down(const struct shift_watch *w)
{
    return w->last[SHIFT_NEW].out != SHIFT_IN && w->last[SHIFT_OTHER].up;
}

/* failed_before: checks and requests. */
static bool stays_down(struct shift_watch *w, uint64_t failed_before)
{
    const struct shift_counts *new = &w->since[SHIFT_NEW];
    const uint32_t out = w->last[SHIFT_NEW].out;
    if (!shift_watch_is_down(w)) {
        w->down = 0;
        return false;
    }
    w->down += (uint32_t)(new->failed_checks + new->errors - failed_before);
    return out == SHIFT_OUT_UNREACHABLE ||
           w->down >= (out == SHIFT_OUT_CHECKS ? SHIFT_DOWN_CHECKS : SHIFT_DOWN_TRIALS);
}

/* A second may bring many more than 20 requests: then the share of those that have come counts. */
static bool begins_badly(struct shift_watch *w)
{
    const struct proportion p = proportion_of(w, SHIFT_NEW);
    if (w->first_judged)
        return false;
    w->first_judged = p.requests >= SHIFT_FIRST;
    return p.errors >= SHIFT_FIRST_FAILED &&
           p.errors * SHIFT_FIRST >= p.requests * SHIFT_FIRST_FAILED && is_alone_in_it(w);
}

/* Its own few requests say little of p, the share of errors; so the test is an exact one. */
static bool is_bad_early(struct shift_watch *w)
{
    const struct proportion of = proportion_of(w, SHIFT_NEW), other = proportion_of(w, SHIFT_OTHER);
    const double rate = proportion_rate(&of), beside = proportion_rate(&other);
    if (of.requests < SHIFT_EARLY_MIN || of.requests > SHIFT_EARLY_MAX)
        return false;
    w->chance = proportion_chance(&of, &other);
    return of.errors >= SHIFT_EARLY_ERRORS && rate - beside > PROPORTION_FLOOR &&
           rate >= SHIFT_EARLY_RATIO * beside && w->chance < SHIFT_EARLY_CHANCE;
}

static bool has_risen(struct shift_watch *w, const struct proportion before[SHIFT_SIDES])
{
    struct proportion more[SHIFT_SIDES];
    for (int side = 0; side < SHIFT_SIDES; side++) {
        more[side].requests = w->since[side].requests - before[side].requests;
        more[side].errors = w->since[side].errors - before[side].errors;
    }
    proportion_rise_add(&w->rise, &more[SHIFT_NEW], &more[SHIFT_OTHER]);
    return proportion_rise_look(&w->rise, w->since[SHIFT_NEW].requests) == PROPORTION_WORSE;
}

static bool is_slower(const struct shift_watch *w)
{
    const double p95 = shift_p95_s(w, SHIFT_NEW), other = shift_p95_s(w, SHIFT_OTHER);
    return p95 > SHIFT_P95_RATIO * other && p95 > other + SHIFT_P95_MORE_S;
}

static bool is_slow(struct shift_watch *w)
{
    if (shift_answers(w, SHIFT_NEW) < SHIFT_P95_SAMPLES ||
        shift_answers(w, SHIFT_OTHER) < SHIFT_P95_SAMPLES)
        return false;
    w->slow = is_slower(w) ? w->slow + 1 : 0;
    return w->slow >= SHIFT_P95_ROWS;
}

static enum shift_verdict worse(struct shift_watch *w, enum shift_rule rule)
{
    w->rule = rule;
    return w->verdict = SHIFT_WORSE;
}

static enum shift_verdict check(struct shift_watch *w, uint64_t now_ms)
{
    const struct proportion of = proportion_of(w, SHIFT_NEW), other = proportion_of(w, SHIFT_OTHER);
    const enum proportion_result errors = proportion_look(&w->errors, &of, &other);
    w->checked_ms = now_ms;
    w->z = proportion_z(&of, &other);
    if (errors == PROPORTION_WORSE)
        return worse(w, SHIFT_RULE_ERRORS);
    if (is_slow(w))
        return worse(w, SHIFT_RULE_P95);
    const bool rises = proportion_rise_look(&w->rise, of.requests) != PROPORTION_FINE;
    if (errors == PROPORTION_SUSPECT || w->slow || rises || shift_watch_is_down(w))
        return w->verdict = SHIFT_SUSPECT;
    return w->verdict = errors == PROPORTION_TOO_FEW ? SHIFT_TOO_FEW : SHIFT_FINE;
}

enum shift_verdict shift_watch_look(struct shift_watch *w,
                                    const struct shift_counts now[SHIFT_SIDES], uint64_t now_ms)
{
    const uint64_t answers = shift_answers(w, SHIFT_NEW);
    const uint64_t unconnected = w->since[SHIFT_NEW].unconnected;
    const uint64_t failed = w->since[SHIFT_NEW].failed_checks + w->since[SHIFT_NEW].errors;
    const struct proportion before[] = {proportion_of(w, SHIFT_NEW), proportion_of(w, SHIFT_OTHER)};
    const uint64_t checked_ms = w->checked_ms ? w->checked_ms : w->begun_ms;
    shift_watch_count(w, now);
    if (w->verdict == SHIFT_WORSE)
        return SHIFT_WORSE;
    if (is_unreachable(w, answers, unconnected))
        return worse(w, SHIFT_RULE_CONNECT);
    if (stays_down(w, failed))
        return worse(w, SHIFT_RULE_DOWN);
    if (begins_badly(w))
        return worse(w, SHIFT_RULE_FIRST);
    if (w->since[SHIFT_NEW].ejections && is_alone_in_it(w))
        return worse(w, SHIFT_RULE_EJECTED);
    if (has_risen(w, before))
        return worse(w, SHIFT_RULE_RISE);
    if (is_bad_early(w))
        return worse(w, SHIFT_RULE_EARLY);
    if (now_ms >= checked_ms && now_ms < checked_ms + SHIFT_CHECK_MS)
        return (enum shift_verdict)w->verdict;
    return check(w, now_ms); /* also after the clock was set back */
}

bool shift_watch_passes(const struct shift_watch *w, uint64_t hold_ms, uint64_t now_ms)
{
    return w->verdict == SHIFT_FINE && w->last[SHIFT_NEW].out == SHIFT_IN &&
           now_ms >= w->begun_ms + hold_ms;
}

/* ---- words ---- */

static void put_side(const struct shift_watch *w, enum shift_side side, const char *name, char *out,
                     size_t size)
{
    const size_t n = strlen(out);
    snprintf(out + n, size - n, "%s: %.2f %% errors of %" PRIu64 " requests, p95 %.0f ms", name,
             100 * shift_error_rate(w, side), w->since[side].requests, 1e3 * shift_p95_s(w, side));
}

static const char *out_text(uint32_t out)
{
    switch ((enum shift_out)out) {
    case SHIFT_OUT_CHECKS:
        return "its active checks fail";
    case SHIFT_OUT_UNREACHABLE:
        return "its active checks get no connection";
    default:
        return "it does not answer";
    }
}

static void put_reason(const struct shift_watch *w, char *out, size_t size)
{
    switch ((enum shift_rule)w->rule) {
    case SHIFT_RULE_ERRORS:
        snprintf(out, size, "more errors than beside it, z %.1f twice in a row (limit 3); ", w->z);
        break;
    case SHIFT_RULE_EARLY:
        snprintf(out, size,
                 "more errors than beside it in its first requests, by chance in %.1f %% of cases "
                 "(limit %.0f %%); ",
                 100 * w->chance, 100 * SHIFT_EARLY_CHANCE);
        break;
    case SHIFT_RULE_RISE:
        snprintf(out, size,
                 "its errors have risen, %" PRIu64 " in the last %" PRIu64
                 " requests, evidence %.1f (limit %.1f); ",
                 w->rise.of.errors, w->rise.of.requests, w->rise.evidence,
                 proportion_rise_limit(w->since[SHIFT_NEW].requests));
        break;
    case SHIFT_RULE_P95:
        snprintf(out, size, "slower than beside it, three times in a row; ");
        break;
    case SHIFT_RULE_CONNECT:
        snprintf(out, size, "%u connections in a row have failed; ", w->unconnected);
        break;
    case SHIFT_RULE_FIRST:
        snprintf(out, size, "%d or more of the first %d requests have failed; ", SHIFT_FIRST_FAILED,
                 SHIFT_FIRST);
        break;
    case SHIFT_RULE_DOWN:
        snprintf(out, size, "it gets no requests: %s; ", out_text(w->last[SHIFT_NEW].out));
        break;
    case SHIFT_RULE_EJECTED:
        snprintf(out, size, "it was ejected for its errors; ");
        break;
    default:
        *out = 0;
    }
}

void shift_explain(const struct shift_watch *w, char *out, size_t size)
{
    put_reason(w, out, size);
    put_side(w, SHIFT_NEW, "new", out, size);
    put_side(w, SHIFT_OTHER, "; other", out, size);
}

/* ---- shares ---- */

static uint64_t common(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Smaller numbers of the same proportions; sums of 100 where that can be. */
static void reduce(uint64_t *wide, uint32_t n, uint32_t *weight)
{
    uint64_t divisor = 0, sum = 0, max = 0;
    for (uint32_t i = 0; i < n; i++)
        divisor = common(divisor, wide[i]);
    for (uint32_t i = 0; i < n; i++) {
        wide[i] /= divisor ? divisor : 1;
        sum += wide[i];
        max = wide[i] > max ? wide[i] : max;
    }
    const uint64_t times = sum && 100 % sum == 0 ? 100 / sum : 1;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t w = wide[i] * times;
        if (max * times > WEIGHT_MAX)
            w = w ? 1 + (uint64_t)((double)w * (WEIGHT_MAX - 1) / ((double)max * (double)times))
                  : 0;
        weight[i] = (uint32_t)(w < WEIGHT_MAX ? w : WEIGHT_MAX);
    }
}

void shift_weights(const uint32_t *base, uint32_t n, uint32_t at, uint32_t percent,
                   uint32_t *weight)
{
    uint64_t wide[SHIFT_SERVERS], others = 0;
    for (uint32_t i = 0; i < n; i++)
        others += i == at ? 0 : base[i];
    for (uint32_t i = 0; i < n; i++)
        wide[i] = i == at ? percent * others : (uint64_t)(100 - percent) * base[i];
    if (percent)
        reduce(wide, n, weight);
    for (uint32_t i = 0; i < n && !percent; i++)
        weight[i] = i == at ? 0 : base[i];
}
