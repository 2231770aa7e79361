/* SPDX-License-Identifier: BSD-2-Clause */
/* read: records and cursors for callers that do not use LMDB, and the readers in other
 * processes. */
#include "daemons/keeper/store/store.h"
#include <lmdb.h>
#include <stdio.h>

int store_read_begin(const struct store *s, struct MDB_txn **txn)
{
    return mdb_txn_begin(s->env, NULL, MDB_RDONLY, txn);
}

void store_read_end(struct MDB_txn *txn)
{
    mdb_txn_abort(txn);
}

const struct cache_record *store_find(const struct store *s, struct MDB_txn *txn,
                                      const struct cache_key *key,
                                      bool (*good)(const void *bytes, size_t len))
{
    MDB_val k = {sizeof *key, (void *)(uintptr_t)key}, v;
    return mdb_get(txn, s->obj, &k, &v) == 0 && good(v.mv_data, v.mv_size) ? v.mv_data : NULL;
}

/* ---- cursors ---- */

static int cursor_move(struct store_cursor *c, struct str from, MDB_cursor_op op)
{
    MDB_val key = {from.len, (void *)(uintptr_t)from.at}, value = {0, NULL};
    const int rc = mdb_cursor_get(c->cursor, &key, &value, op);
    if (rc == 0) {
        c->key = (struct str){key.mv_data, key.mv_size};
        c->value = (struct str){value.mv_data, value.mv_size};
    }
    return rc;
}

int store_cursor_open(const struct store *s, struct MDB_txn *txn, enum store_table table,
                      struct store_cursor *c)
{
    return mdb_cursor_open(txn, table == STORE_BY_URL ? s->url : s->idx, &c->cursor);
}

int store_cursor_seek(struct store_cursor *c, struct str from)
{
    return cursor_move(c, from, from.len ? MDB_SET_RANGE : MDB_FIRST);
}

int store_cursor_next(struct store_cursor *c)
{
    return cursor_move(c, c->key, MDB_NEXT);
}

void store_cursor_close(struct store_cursor *c)
{
    mdb_cursor_close(c->cursor);
}

/* ---- readers in other processes ---- */

uint64_t store_last_txn(const struct store *s)
{
    MDB_envinfo info;
    return mdb_env_info(s->env, &info) == 0 ? info.me_last_txnid : 0;
}

/* A line of mdb_reader_list(): "pid thread txnid", with '-' for a reader at rest. */
static int reader_line(const char *line, void *arg)
{
    struct store_reader *oldest = arg;
    int pid;
    size_t thread;
    unsigned long long txn;
    if (sscanf(line, "%d %zx %llu", &pid, &thread, &txn) == 3 && txn < oldest->txn_id)
        *oldest = (struct store_reader){txn, pid};
    return 0;
}

bool store_oldest_reader(const struct store *s, struct store_reader *out)
{
    *out = (struct store_reader){UINT64_MAX, 0};
    mdb_reader_list(s->env, reader_line, out);
    return out->pid != 0;
}

int store_readers_bury(struct store *s)
{
    int dead = 0;
    mdb_reader_check(s->env, &dead);
    return dead;
}
