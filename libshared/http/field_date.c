/* SPDX-License-Identifier: BSD-2-Clause */
/* field_date: HTTP-date in its three forms (RFC 9110 5.6.7). */
#include "polder/field.h"
#include <errno.h>
#include <string.h>
#include <strings.h>

static const char month_name[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const day_name[7] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                        "Thursday", "Friday", "Saturday"};

struct date {
    unsigned year, month /* 1..12 */, day, hour, minute, second;
};

/* Days from 1970-01-01, Gregorian. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t yoe = year - era * 400;
    int64_t doy = (153 * (int64_t)(month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static unsigned days_in(unsigned year, unsigned month)
{
    static const unsigned char days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* Names match without regard to case (RFC 9111 4.2 asks caches for that). */
struct reader {
    const char *at, *end;
    bool bad;
};

static unsigned digits(struct reader *r, int n)
{
    unsigned value = 0;
    for (; n > 0; n--) {
        if (r->at == r->end || *r->at < '0' || *r->at > '9') {
            r->bad = true;
            return 0;
        }
        value = value * 10 + (unsigned)(*r->at++ - '0');
    }
    return value;
}

static void literal(struct reader *r, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(r->end - r->at) < n || strncasecmp(r->at, text, n) != 0)
        r->bad = true;
    else
        r->at += n;
}

static unsigned month(struct reader *r)
{
    for (unsigned m = 0; m < 12; m++) {
        if (r->end - r->at >= 3 && strncasecmp(r->at, month_name[m], 3) == 0) {
            r->at += 3;
            return m + 1;
        }
    }
    r->bad = true;
    return 1;
}

static void time_of_day(struct reader *r, struct date *d)
{
    d->hour = digits(r, 2);
    literal(r, ":");
    d->minute = digits(r, 2);
    literal(r, ":");
    d->second = digits(r, 2);
}

/* Behind the day name: " Nov  6 08:49:37 1994" */
static void read_asctime(struct reader *r, struct date *d)
{
    literal(r, " ");
    d->month = month(r);
    literal(r, " ");
    if (r->at < r->end && *r->at == ' ') {
        r->at++;
        d->day = digits(r, 1);
    } else {
        d->day = digits(r, 2);
    }
    literal(r, " ");
    time_of_day(r, d);
    literal(r, " ");
    d->year = digits(r, 4);
}

/* Behind the day name: ", 06 Nov 1994 08:49:37 GMT" */
static void read_imf(struct reader *r, struct date *d)
{
    literal(r, ", ");
    d->day = digits(r, 2);
    literal(r, " ");
    d->month = month(r);
    literal(r, " ");
    d->year = digits(r, 4);
    literal(r, " ");
    time_of_day(r, d);
    literal(r, " GMT"); /* no other zone counts (RFC 9111 4.2) */
}

/* Behind the long day name: ", 06-Nov-94 08:49:37 GMT". A year over 50 years ahead is in the past;
 * the turn is fixed at 76, so that this needs no clock: a date read wrongly later on is stale. */
static void read_rfc850(struct reader *r, struct date *d)
{
    literal(r, ", ");
    d->day = digits(r, 2);
    literal(r, "-");
    d->month = month(r);
    literal(r, "-");
    d->year = digits(r, 2);
    d->year += d->year <= 76 ? 2000 : 1900;
    literal(r, " ");
    time_of_day(r, d);
    literal(r, " GMT");
}

/* Reads along a day name: 1 short, 2 long, 0 none. Whether it fits the date is not checked.
 */
static int day(struct reader *r)
{
    for (int i = 0; i < 7; i++) {
        size_t n = strlen(day_name[i]), left = (size_t)(r->end - r->at);
        if (left < 3 || strncasecmp(r->at, day_name[i], 3) != 0)
            continue;
        if (left >= n && strncasecmp(r->at, day_name[i], n) == 0) {
            r->at += n;
            return 2;
        }
        r->at += 3;
        return 1;
    }
    return 0;
}

int field_date(struct str value, int64_t *seconds)
{
    struct reader r = {value.at, value.at + value.len, false};
    struct date d = {.month = 1};
    int form = day(&r);
    if (form == 0)
        return -EINVAL;
    if (form == 2)
        read_rfc850(&r, &d);
    else if (r.at < r.end && *r.at == ',')
        read_imf(&r, &d);
    else
        read_asctime(&r, &d);
    if (r.bad || r.at != r.end)
        return -EINVAL;
    if (d.day < 1 || d.day > days_in(d.year, d.month) || d.hour > 23 || d.minute > 59 ||
        d.second > 60)
        return -EINVAL;
    *seconds = days_of(d.year, d.month, d.day) * 86400 + d.hour * 3600 + d.minute * 60 + d.second;
    return 0;
}

static void two_digits(char *out, int64_t n)
{
    out[0] = (char)('0' + n / 10 % 10);
    out[1] = (char)('0' + n % 10);
}

/* The civil date of a day number, and then the text: "Sun, 06 Nov 1994 08:49:37 GMT". */
void field_date_format(int64_t seconds, char out[FIELD_DATE_LEN + 1])
{
    const int64_t last = INT64_C(253402300799); /* 9999-12-31 23:59:59 */
    seconds = seconds < 0 ? 0 : seconds > last ? last : seconds;
    int64_t days = seconds / 86400, rest = seconds % 86400;
    int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t mon = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (mon <= 2);
    memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", FIELD_DATE_LEN + 1);
    memcpy(out, day_name[(days + 4) % 7], 3);
    two_digits(out + 5, doy - (153 * mp + 2) / 5 + 1);
    memcpy(out + 8, month_name[mon - 1], 3);
    two_digits(out + 12, year / 100);
    two_digits(out + 14, year % 100);
    two_digits(out + 17, rest / 3600);
    two_digits(out + 20, rest / 60 % 60);
    two_digits(out + 23, rest % 60);
}
