/* SPDX-License-Identifier: BSD-2-Clause */
/* server_kept: the table of servers of an earlier run; see server_state.h. */
#include "polder/server_check.h"
#include "polder/server_state.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Most of it was never written: a hole is made rather than pages of zeros. */
static void forget_loads(struct server_table *table, int fd)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t from = offsetof(struct server_table, load), to = from + sizeof table->load;
    const size_t first = (from + page - 1) / page * page, last = to / page * page;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
                  (off_t)(last - first)) < 0) {
        memset(table->load, 0, sizeof table->load);
        return;
    }
    memset(table->load, 0, first - from);
    memset((char *)table + last, 0, to - last);
}

/* Counters begin anew with those of all processes (stats.h), or shares of errors would be of two
 * times. */
static void forget_counts(struct server_row *row)
{
    atomic_store(&row->untold, 0);
    atomic_store(&row->upgrades, 0);
    for (size_t i = 0; i < sizeof row->errors / sizeof *row->errors; i++)
        atomic_store(&row->errors[i], 0);
    atomic_store(&row->ejections, 0);
    for (size_t i = 0; i < sizeof row->checks / sizeof *row->checks; i++)
        atomic_store(&row->checks[i], 0);
    atomic_store(&row->bad_weights, 0);
}

void server_table_mend(struct server_table *table, int fd, uint64_t now_ms)
{
    forget_loads(table, fd);
    for (unsigned i = 0; i < SERVER_ROWS; i++) {
        struct server_row *row = &table->row[i];
        if (!atomic_load(&table->id[i]))
            continue;
        forget_counts(row);
        server_check_mend(row, now_ms);
        server_addresses_mend(row);
        if (!server_state_mend(row, now_ms))
            server_row_free(table, i);
    }
}
