/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_custodian: what the custodian takes from others: the block that its program before has left,
 * and the notes of the process of the WebSockets, which may say anything, with a segment in which
 * anything stands. It holds each descriptor once, and lets go of all.
 *
 * The first byte says which part. A block is made of values that fit, of which the input changes
 * some, leaves out the last, or puts records in another order.
 */
#include <unistd.h>
#define fork() (-1) /* no proof is begun */
#include "daemons/supervisor/survive/child.c"
#include "daemons/supervisor/survive/custodian.c"
#include "daemons/supervisor/survive/held.c"
#include "daemons/supervisor/survive/proof.c"
#include "daemons/supervisor/survive/renew.c"
#define tell        restart_tell
#define proven      restart_proven
#define read_said   restart_read_said
#define run_proof   restart_run_proof
#define begin_proof restart_begin_proof
#include "daemons/supervisor/survive/restart.c"
#undef fork
#include "daemons/supervisor/survive/note.c"
#include "daemons/supervisor/survive/segment.c"

#include <limits.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- what it is surrounded by ---- */

int program_copy_file(void)
{
    return -ENOENT;
}
int program_run(enum program_run how)
{
    return -ENOENT;
}
const char *program_path(void)
{
    return "";
}
void program_forget(void)
{
}
const char *supervisor_version(void)
{
    return "1";
}
int sd_notify(int unset, const char *state)
{
    check(strlen(state) < sizeof((struct note *)0)->text);
    return 0;
}

bool manager_is_there(void)
{
    return true;
}
int manager_job(char *type, size_t type_size, char *why, size_t size)
{
    snprintf(type, type_size, "restart");
    return 0;
}
int manager_keep(int pair[2], const char *name, char *why, size_t size)
{
    close(pair[0]);
    pair[0] = -1;
    return 0;
}
void manager_remove(const char *name)
{
}
int parcel_box(int box[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, box) < 0 ? -errno : 0;
}
bool parcel_is_there(int box)
{
    return box >= 0;
}

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t byte(struct input *in)
{
    return in->left ? in->left--, *in->at++ : 0;
}

static uint64_t number(struct input *in)
{
    static const uint64_t odd[] = {
        0,          1,          INT32_MAX,         (uint64_t)INT32_MAX + 1,
        UINT32_MAX, UINT64_MAX, SEGMENT_SLOTS - 1, SEGMENT_SLOTS};
    const uint8_t b = byte(in);
    return b & 1 ? odd[b >> 1 & 7] : b >> 1;
}

static int segment_fd = -1, other_fd = -1;
static struct segment *segment;

static void begin(void)
{
    if (segment_fd < 0) {
        segment = segment_new_fd(&segment_fd);
        other_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        log_set_level(LOG_LEVEL_ERROR);
        check(segment && other_fd >= 0);
    }
    custodian = (struct custodian){0};
}

/* ---- the block ---- */

static int a_descriptor(struct input *in)
{
    const int fd[] = {segment_fd, other_fd, -1, INT_MAX, 500, segment_fd, other_fd, other_fd};
    return fd[byte(in) & 7];
}

static void put_one_custodian(struct state_writer *w, struct input *in)
{
    static char calls[SANDBOX_CALLS_MAX];
    const unsigned odd = byte(in) | (unsigned)byte(in) << 8 | (unsigned)byte(in) << 16;
    const unsigned n = byte(in), n_values = n & 1 ? n >> 1 : UINT_MAX;
    static const enum state_fd what[] = {STATE_FD_SEGMENT, STATE_FD_SEGMENT, STATE_FD_CHANNEL,
                                         STATE_FD_SIGNALS, STATE_FD_FILE,    STATE_FD_LISTENER,
                                         STATE_FD_LISTENER};
    sandbox_calls(SANDBOX_CUSTODIAN, calls, sizeof calls);
    state_record(w, RECORD_CUSTODIAN, 0);
    for (unsigned i = 0; i < 9 + NUMBERS + 2 && i < n_values; i++) {
        const bool is_odd = odd >> i & 1;
        if (i < 2)
            state_put_text(w, is_odd ? "" : "/run/polder");
        else if (i < 9)
            state_put_fd(w,
                         is_odd   ? a_descriptor(in)
                         : i == 2 ? segment_fd
                                  : other_fd,
                         what[(i - 2 + (is_odd && byte(in) == 7)) % 7]);
        else if (i < 9 + NUMBERS)
            state_put_u64(w, is_odd ? number(in) : 1);
        else
            state_put_text(w, is_odd ? "" : calls);
    }
}

static void put_one_kept(struct state_writer *w, struct input *in)
{
    state_record(w, RECORD_KEPT, 0);
    state_put_u64(w, number(in));
    for (unsigned i = byte(in) % 3; i < 2; i++)
        state_put_fd(w, a_descriptor(in), STATE_FD_SOCKET);
}

static void put_one_link(struct state_writer *w, struct input *in)
{
    state_record(w, RECORD_LINK, 0);
    state_put_u64(w, number(in));
    state_put_fd(w, a_descriptor(in), STATE_FD_CHANNEL);
}

static void look_at(const struct taken *t)
{
    const struct custodian *c = t->c;
    check(t->said && c->segment && c->pid > 0 && c->channel >= 0 && c->signals >= 0);
    check(strlen(t->runtime_dir) < sizeof t->runtime_dir && strlen(c->death) < sizeof c->death);
    check(c->n_kept <= SEGMENT_SLOTS + SEGMENT_SLOTS / 2 + 64);
    for (uint32_t i = 0; i < c->n_kept; i++)
        check(c->kept[i].fd[0] >= -1 && c->kept[i].fd[1] >= -1);
}

static void read_block(struct input *in)
{
    struct state_writer w;
    char why[200];
    static struct taken t;
    t = (struct taken){0};
    const bool copy = byte(in) & 1;
    state_writer_open(&w, STATE_OF_CUSTODIAN, "1");
    while (in->left)
        switch (byte(in) & 7) {
        case 0:
            put_one_kept(&w, in);
            break;
        case 1:
            put_one_link(&w, in);
            break;
        case 2:
            state_record(&w, RECORD_HIGHEST + 1 + byte(in) % 3, byte(in) & STATE_SKIPPABLE);
            break;
        default:
            put_one_custodian(&w, in);
        }
    const int fd = state_writer_close(&w);
    check(fd >= 0);
    const int code = load(fd, copy, &t, why, sizeof why);
    check(!code == (strlen(why) == strlen("what the custodian would leave: ")));
    if (!code)
        look_at(&t);
    segment_free(custodian.segment);
    free(custodian.kept);
    close(fd);
}

/* ---- notes ---- */

#define GIVEN_MAX 64
static int given[GIVEN_MAX];
static unsigned n_given;

/* A descriptor that nobody else has; its number is seen again only when it was closed. */
static int give(int fd)
{
    if (n_given == GIVEN_MAX)
        return -1;
    return given[n_given++] = fcntl(fd, F_DUPFD_CLOEXEC, 100 + (int)n_given * 4);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void begin_notes(void)
{
    int fd = -1;
    struct custodian *c = custodian_init();
    n_given = 0;
    c->segment_fd = give(segment_fd);
    fd = fcntl(segment_fd, F_DUPFD_CLOEXEC, 0);
    c->segment = segment_map(fd);
    check(c->segment);
    memset((char *)segment + offsetof(struct segment, heartbeats), 0, 512);
    memset(segment_slot(segment, 0), 0, 16 * sizeof(struct slot));
    c->read_again = nothing;
    c->pid = INT_MAX;
}

/* What the other process writes meanwhile. */
static void change_segment(struct input *in)
{
    static const uint32_t useds[] = {0, 1, 16, SEGMENT_SLOTS - 1, SEGMENT_SLOTS, UINT32_MAX, 2, 3};
    const uint8_t what = byte(in);
    if (what & 1)
        atomic_store(&segment->used, useds[what >> 1 & 7] % 4096);
    else
        atomic_store(&segment_slot(segment, what >> 1 & 15)->phase, byte(in) % 7);
    atomic_store(&segment->missed, what >> 7);
}

static void note_one(struct input *in)
{
    struct note n = {.kind = byte(in) % 20, .number = (uint32_t)number(in)};
    const int fd = a_descriptor(in);
    snprintf(n.text, sizeof n.text, "STATUS=x");
    take_note(&custodian, &n, fd == segment_fd || fd == other_fd ? give(fd) : -1, "/nonexistent");
}

/* As child_ended() does. */
static void die_once(struct custodian *c)
{
    if (c->replaced)
        custodian_let_next(c);
    c->replaced = false;
    held_free_gone(c);
}

static void expect_all_let_go(void)
{
    for (unsigned i = 0; i < n_given; i++)
        check(fcntl(given[i], F_GETFD) < 0);
}

static void take_all_notes(struct input *in)
{
    struct custodian *c = &custodian;
    unsigned searches = 0;
    begin_notes();
    while (in->left && n_given < GIVEN_MAX - 1)
        switch (byte(in) & 7) {
        case 0:
            change_segment(in);
            break;
        case 1:
            if (!c->blind && searches++ < 4)
                die_once(c);
            break;
        case 7:
            c->draining = true;
            custodian_stop(c, byte(in) & 1 ? SIGTERM : SIGINT);
            break;
        default:
            note_one(in);
        }
    custodian_let_next(c);
    held_close_all(&c->kept, &c->n_kept);
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        held_close(&c->link[i]);
    held_close(&c->servers);
    held_close(&c->segment_fd);
    segment_free(c->segment);
    expect_all_let_go();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    begin();
    if (byte(&in) & 1)
        read_block(&in);
    else
        take_all_notes(&in);
    return 0;
}
