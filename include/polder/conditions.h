/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * conditions: the one table of everything that needs attention now.
 *
 * A condition is a name of libshared/tables/conditions.def and a subject: the server, route or
 * address that it is about, or "". Any process raises and clears it: master, workers, keeper and
 * control of polderd, and polder-supervisor. The process that sees the trouble raises it, as often
 * as it likes; the process that sees that it is over clears it. Raising a raised condition, or
 * clearing one that is not raised, changes nothing and costs a scan of 1 KiB; both may be called
 * each second, but not for each successful request. status, /readyz, /metrics and the log are made
 * from this table alone.
 *
 *     condition_raise(table, COND_BACKEND_DOWN, "api/10.0.0.7:80", "connection refused", now);
 *     condition_clear(table, COND_BACKEND_DOWN, "api/10.0.0.7:80", now);
 *
 * The log. The process that makes the change writes one line when a condition rises and one when it
 * falls. A new reason for a raised condition is kept and not logged; `since` stays.
 *
 * Bounds. CONDITION_ROWS at once, CONDITION_ROWS_EACH of one name; subject and reason are cut at
 * their sizes, and what is not printable becomes '?'. Conditions without room are counted
 * (conditions_lost()). Other severities replace a hint.
 *
 * Where it lives. A file, runtime_dir/conditions.page, mapped by both daemons, so that each may
 * come and go without the other; where it cannot be made, memory of polderd alone. Each daemon
 * forgets at its start what it had raised itself before (conditions_open()).
 *
 * Memory. A row has a state word and two pages of text. A writer holds the table's lock, writes the
 * page that is not shown, and then stores the state word (compare and swap, release), which shows
 * it: one atomic step. Readers take no lock: they load the word (acquire), copy the page it shows,
 * and look whether the word is still the same.
 *
 * A crash. Killed before the word is stored: nothing has happened; after it: all has. The lock
 * names its holder; it is taken over at once from a process that is dead, and after 100 ms from one
 * that hangs. If the latter wakes up, its compare and swap fails; at worst it has garbled a
 * reason's text. A condition outlives the process that raised it: its successor clears it, or the
 * trouble is still there.
 */
#ifndef POLDER_CONDITIONS_H
#define POLDER_CONDITIONS_H
#include "polder/shm.h"
#include <stdbool.h>

enum condition_id {
#define CONDITION(id, name, severity, readyz, meaning, action) COND_##id,
#include "libshared/tables/conditions.def"
#undef CONDITION
    CONDITIONS
};

enum condition_severity { CONDITION_ERROR, CONDITION_WARNING, CONDITION_HINT };
enum condition_readyz { CONDITION_UNREADY, CONDITION_REASON, CONDITION_SILENT };

struct condition_kind {
    const char *name, *meaning, *action;
    enum condition_severity severity;
    enum condition_readyz readyz;
};
const struct condition_kind *condition_kind(enum condition_id id);
const char *condition_severity_name(enum condition_severity severity);

#define CONDITION_ROWS      128
#define CONDITION_ROWS_EACH 24
#define CONDITION_SUBJECT   112 /* bytes, with the NUL */
#define CONDITION_REASON    120
#define CONDITION_HINT_MS   (UINT64_C(24) * 60 * 60 * 1000)

enum condition_owner { CONDITIONS_OF_POLDERD, CONDITIONS_OF_SUPERVISOR };

struct condition_table;

/* Maps path (NULL: memory of this process and its children) and clears what `owner` had raised.
 * Call once, before forking; a child inherits table and owner. 0 or a negative errno. */
int conditions_open(struct shm_segment *seg, const char *path, enum condition_owner owner);
/* The same without clearing: in a program that has replaced another one in its process. */
int conditions_continue(struct shm_segment *seg, const char *path, enum condition_owner owner);
/* Only makes the file, where there is none: for a process whose children may not make files. */
void conditions_make(const char *path);
static inline struct condition_table *conditions_of(const struct shm_segment *seg)
{
    return seg->base;
}

/* now_ms: real time. table NULL: nothing happens. True if this call made the change.
 * subject, reason: NULL is "". */
bool condition_raise(struct condition_table *table, enum condition_id id, const char *subject,
                     const char *reason, uint64_t now_ms);
bool condition_clear(struct condition_table *table, enum condition_id id, const char *subject,
                     uint64_t now_ms);
/* Clears those whose subject `keep` does not know, such as servers that a new configuration has
 * dropped. NULL: all of that name. A subject may be cut: keep compares with
 * condition_subject_is(). */
void condition_clear_except(struct condition_table *table, enum condition_id id,
                            bool (*keep)(void *arg, const char *subject), void *arg,
                            uint64_t now_ms);
bool condition_subject_is(const char *subject, const char *text);
/* Raises or clears it, in one call. */
static inline bool condition_set(struct condition_table *table, enum condition_id id,
                                 const char *subject, bool holds, const char *reason,
                                 uint64_t now_ms)
{
    return holds ? condition_raise(table, id, subject, reason, now_ms)
                 : condition_clear(table, id, subject, now_ms);
}
/* Only for names of severity HINT: raised once, and cleared automatically after
 * CONDITION_HINT_MS. */
bool condition_hint(struct condition_table *table, enum condition_id id, const char *subject,
                    const char *reason, uint64_t now_ms);

/* ---- readers ---- */

struct condition {
    enum condition_id id;
    uint64_t since_ms; /* real time */
    char subject[CONDITION_SUBJECT];
    char reason[CONDITION_REASON];
};

/* The conditions raised at now_ms, in the order of the .def, older ones first. */
size_t conditions_list(const struct condition_table *table, uint64_t now_ms,
                       struct condition out[CONDITION_ROWS]);
bool condition_is_raised(const struct condition_table *table, enum condition_id id,
                         const char *subject, uint64_t now_ms);
/* Raised conditions that found no room since the table was made. */
uint64_t conditions_lost(const struct condition_table *table);
#endif
