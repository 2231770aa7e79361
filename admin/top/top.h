/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * top: the service at a glance. Private to admin/.
 *
 *   frame.c   answers of the method top as lines of text; knows no terminal
 *   screen.c  the terminal: its size, its keys, and that it is as before in the end
 *   top.c     asks, shows, waits
 */
#ifndef POLDER_ADMIN_TOP_H
#define POLDER_ADMIN_TOP_H
#include "admin/polderctl.h"
#include <stdbool.h>

/* ---- frame.c ---- */
/* What came before, for rates; before NULL: none are shown. utf8: bars may be. */
void frame_print(FILE *to, const msgpack_object *now, const msgpack_object *before, bool utf8);

/* ---- screen.c ---- */
struct screen {
    unsigned rows, columns;
};
/* False: it is no terminal that can be drawn on. From then on any end of the process gives the
 * terminal back as it was. */
bool screen_open(struct screen *s);
void screen_close(void);
/* Lines that do not fit are cut, at the right and below; footer: the last line. */
void screen_draw(struct screen *s, const char *text, const char *footer);
enum screen_key { SCREEN_NONE, SCREEN_QUIT, SCREEN_RESIZED, SCREEN_OTHER };
/* Waits for a key, a new size, or the time. */
enum screen_key screen_wait(struct screen *s, unsigned ms);
#endif
