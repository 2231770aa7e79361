/* SPDX-License-Identifier: BSD-2-Clause */
/* Any records as the state of a master: what is read lies within its tables, and what is refused says
 * why. */
#include "daemons/master/upgrade.h"
#include "daemons/master/upgrade_state.c"
#include "tests/lib/block_maker.h"
#include "tests/lib/block_maker.c"

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

void running_values_write(const struct master *m, struct state_writer *w)
{
    (void)m, (void)w; /* nothing is written here */
}

static void check_read(const struct master *m, const struct inherited *in)
{
    check(m->current < SHARED_REGIONS && m->listeners.count <= PROCESS_LISTENERS_MAX);
    check(m->generation[m->current].state == GENERATION_CURRENT);
    check(in->n_left <= SHARED_LEFT_MAX);
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++)
        check(in->child[slot].pid != 1 && in->child[slot].region < SHARED_REGIONS);
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        check(m->generation[r].workers <= PROC_WORKER_SLOTS);
    for (size_t i = 0; i < in->n_left; i++)
        check(memchr(in->left[i].name, 0, sizeof in->left[i].name) && in->left[i].fd >= 0);
    check(memchr(in->state_dir, 0, sizeof in->state_dir));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct master m;
    static struct inherited in;
    uint8_t header[BLOCK_HEADER];
    char why[4200] = "";
    memset(&m, 0, sizeof m);
    memset(&in, 0, sizeof in);
    block_header_make(header, STATE_FORMAT, STATE_OF_POLDERD, data, len);
    const int block = block_seal(header, sizeof header, data, len);
    check(block >= 0);
    if (upgrade_state_read(&m, &in, block, why, sizeof why) == 0)
        check_read(&m, &in);
    else
        check(why[0]);
    close(block);
    return 0;
}
