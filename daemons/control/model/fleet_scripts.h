/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_scripts: what runs within the store, each as one step that nothing comes between.
 *
 * Keys of the fleet NAME, which begin with "polder:{NAME}:", so that a cluster keeps them together:
 *
 *   log     stream; entry N-0 has the field e, an entry of fleet_entry.h
 *   count   the number of the last entry
 *   epoch   names this history of both: when it began, in ms of the store's clock, and six random
 *           digits; made by the first that finds none, or a server of another run; "fenced": it was
 *           ended by hosts that follow another master
 *   fence   the name of that master; it expires, and until then no epoch is made
 *   run     of the server under which the epoch was made
 *   hosts   hash: host -> what it says of itself, fleet_record.h
 *   shares, limit:HASH  of limits: fleet_limit_scripts.h
 *
 *   stored  stream; each entry names in the field k an object that a host has waited for
 *   o:NAME  a shared object of fleet_object.h: a response, or by which fields the URL varies
 *   v:NAME  sorted set: the names of a URL's variants, by when they end
 *   f:NAME  a host fetches it: "INSTANCE", and " w" behind it where another host waits; "-": what was
 *           fetched was for one client alone
 *
 * Times are the store's: clocks of hosts need not agree.
 */
#ifndef POLDER_CONTROL_FLEET_SCRIPTS_H
#define POLDER_CONTROL_FLEET_SCRIPTS_H

#define FLEET_LOG_MAX "100000" /* entries that are kept, about */

/* Before a script that takes no more room than there was, or little: it also runs in a store whose memory is
 * used up, which shared objects and what limits have counted may do. */
#define FLEET_ALWAYS "#!lua flags=allow-oom\n"

#define FLEET_NOW                                                                                  \
    "local t = redis.call('TIME')\n"                                                               \
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

/* Where a host has applied more than there is the log has lost its end, and begins anew. */
#define FLEET_ANEW                                                                                 \
    "local function begin_anew(digits)\n"                                                          \
    "  redis.call('DEL', KEYS[1], KEYS[2])\n"                                                      \
    "  redis.call('SET', KEYS[3], string.format('%.0f', now)..digits)\n"                           \
    "end\n"                                                                                        \
    "local count = tonumber(redis.call('GET', KEYS[2]) or '0') or 0\n"

/*
 * What hosts say of themselves. Hosts of one format are members at a time: in(now, lease, own, format) tells of
 * one that has a lease and another format, {"format", host, format, program}. So the newer ones enter when the
 * last of the older ones has gone.
 */
#define FLEET_LIST_MANY    "256"  /* hosts in the list: those without a lease are dropped */
#define FLEET_LIST_MAX     "1024" /* more are no fleet: no host is a member until it is shorter */
#define FLEET_LIST_AT_ONCE "20000"
#define FLEET_RECORDS                                                                              \
    "local function record_of(text)\n"                                                             \
    "  local i, of, applied, until_ms, rest = string.match(text, "                                 \
    "'^(%x+) (%d+) (%d+) (%d+)(.*)$')\n"                                                           \
    "  if not i or #text > 256 then return end\n"                                                  \
    "  local format, program = string.match(rest, '^ (%d+) %d+ %d+ %d+ (%S+) ')\n"                 \
    "  return {i = i, of = of, applied = tonumber(applied), until_ms = tonumber(until_ms), "       \
    "format = format or '1', program = program or ''}\n"                                           \
    "end\n"                                                                                        \
    "local function lives(r, now, lease)\n"                                                        \
    "  return r and r.until_ms > now and r.until_ms <= now + lease\n"                              \
    "end\n"                                                                                        \
    "local function other_format(all, now, lease, own, format)\n"                                  \
    "  for i = 1, #all, 2 do\n"                                                                    \
    "    local r = record_of(all[i + 1])\n"                                                        \
    "    if lives(r, now, lease) and all[i] ~= own and r.format ~= format then\n"                  \
    "      return {'format', string.sub(all[i], 1, 64), r.format, r.program}\n"                    \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "local function crowded(key, now, lease)\n"                                                    \
    "  local n = redis.call('HLEN', key)\n"                                                        \
    "  if n <= " FLEET_LIST_MAX " then return end\n"                                               \
    "  local from = string.format('%.0f', now * 7919 % 4294967296)\n"                              \
    "  local part = redis.call('HSCAN', key, from, 'COUNT', " FLEET_LIST_AT_ONCE ")[2]\n"          \
    "  for i = 1, #part, 2 do\n"                                                                   \
    "    if not lives(record_of(part[i + 1]), now, lease) then redis.call('HDEL', key, part[i]) "  \
    "end\n"                                                                                        \
    "  end\n"                                                                                      \
    "  return {'crowded', string.format('%.0f', n)}\n"                                             \
    "end\n"

/* Whatever it finds it writes, which a replica may have to confirm.
 * KEYS log count epoch hosts run fence; ARGV host instance digits run format lease tail: {epoch, count, first
 * id of the log, now}, or {"taken"} where a living host has that name, {"fenced", name of the other
 * master}, {"format", ...}: then it is seen in the list, without a lease. */
static const char fleet_script_enter[] = FLEET_ALWAYS FLEET_NOW FLEET_ANEW FLEET_RECORDS
    "local by = redis.call('GET', KEYS[6])\n"
    "if by then return {'fenced', by} end\n"
    "local lease = tonumber(ARGV[6])\n"
    "local other = record_of(redis.call('HGET', KEYS[4], ARGV[1]) or '')\n"
    "if lives(other, now, lease) and other.i ~= ARGV[2] then return {'taken'} end\n"
    "local crowd = crowded(KEYS[4], now, lease)\n"
    "if crowd then return crowd end\n"
    "local all = redis.call('HGETALL', KEYS[4])\n"
    "local format = other_format(all, now, lease, ARGV[1], ARGV[5])\n"
    "if format then\n"
    "  redis.call('HSET', KEYS[4], ARGV[1], ARGV[2]..' 0 0 '..string.format('%.0f', now)..' "
    "'..ARGV[7])\n"
    "  return format\n"
    "end\n"
    "local epoch, run = redis.call('GET', KEYS[3]), redis.call('GET', KEYS[5])\n"
    "redis.call('SET', KEYS[5], ARGV[4])\n"
    "if run ~= ARGV[4] or not epoch or epoch == 'fenced' then\n"
    "  redis.call('SET', KEYS[3], string.format('%.0f', now)..ARGV[3])\n"
    "end\n"
    "for i = 2, #all, 2 do\n"
    "  local r = record_of(all[i])\n"
    "  if r and r.of == redis.call('GET', KEYS[3]) and r.applied > count then\n"
    "    begin_anew(ARGV[3])\n"
    "  end\n"
    "end\n"
    "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)\n"
    "return {redis.call('GET', KEYS[3]), redis.call('GET', KEYS[2]) or '0', first[1] and "
    "first[1][1] or '', string.format('%.0f', now)}\n";

/* KEYS epoch fence; ARGV the epoch that is to end, name of the other master, ms: "fenced", or "changed"
 * where the epoch is another one. */
static const char fleet_script_fence[] =
    FLEET_ALWAYS "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'changed' end\n"
                 "redis.call('SET', KEYS[1], 'fenced')\n"
                 "redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])\n"
                 "return 'fenced'\n";

/* KEYS log count epoch hosts; ARGV host instance epoch applied lease digits format tail: {epoch, count, now, what
 * was in the list of this host, 1: the log has not the entry after those that are applied, name,
 * value, name, value...}, or {"format", ...}, {"crowded", how many}. A host in another epoch gets no
 * lease. */
static const char fleet_script_renew[] = FLEET_ALWAYS FLEET_NOW FLEET_ANEW FLEET_RECORDS
    "local epoch, lease, mine = redis.call('GET', KEYS[3]) or '', tonumber(ARGV[5]), "
    "tonumber(ARGV[4])\n"
    "local crowd = crowded(KEYS[4], now, lease)\n"
    "if crowd then return crowd end\n"
    "local many = redis.call('HLEN', KEYS[4]) > " FLEET_LIST_MANY "\n"
    "local all = redis.call('HGETALL', KEYS[4])\n"
    "local format = other_format(all, now, lease, ARGV[1], ARGV[7])\n"
    "if format then return format end\n"
    "local before, missing, out = '', '0', {}\n"
    "for i = 1, #all, 2 do\n"
    "  local r = record_of(all[i + 1])\n"
    "  if all[i] == ARGV[1] then\n"
    "    before = string.sub(all[i + 1], 1, 256)\n"
    "  elseif not r or #all[i] > 64 or r.until_ms + 3600000 < now or (many and (r.until_ms < now "
    "or r.until_ms > "
    "now + lease)) then\n"
    "    redis.call('HDEL', KEYS[4], all[i])\n"
    "  elseif r.of == epoch and r.applied > count then\n"
    "    begin_anew(ARGV[6])\n"
    "    return {''}\n"
    "  else\n"
    "    out[#out + 1] = all[i]\n"
    "    out[#out + 1] = all[i + 1]\n"
    "  end\n"
    "end\n"
    "if epoch == ARGV[3] and mine > count then\n"
    "  begin_anew(ARGV[6])\n"
    "  return {''}\n"
    "end\n"
    "if epoch == ARGV[3] then\n"
    "  local own = ARGV[2]..' '..ARGV[3]..' '..ARGV[4]..' '..string.format('%.0f', now + lease)..' "
    "'..ARGV[8]\n"
    "  redis.call('HSET', KEYS[4], ARGV[1], own)\n"
    "  out[#out + 1] = ARGV[1]\n"
    "  out[#out + 1] = own\n"
    "end\n"
    "if mine < count then\n"
    "  local id = string.format('%.0f', mine + 1)..'-0'\n"
    "  local next = redis.call('XRANGE', KEYS[1], id, '+', 'COUNT', 1)[1]\n"
    "  if not next or next[1] ~= id then missing = '1' end\n"
    "end\n"
    "return {epoch, redis.call('GET', KEYS[2]) or '0', string.format('%.0f', now), before, "
    "missing, "
    "unpack(out)}\n";

/* KEYS hosts holders; ARGV host lease: {"forgotten", how many holders of slots it was}, {"lives", ms of its lease},
 * {"unknown", 0}. What it held of slots is free with the next renewal of another holder. */
static const char fleet_script_forget[] = FLEET_ALWAYS FLEET_NOW FLEET_RECORDS
    "local text = redis.call('HGET', KEYS[1], ARGV[1])\n"
    "if not text then return {'unknown', '0'} end\n"
    "local r = record_of(text)\n"
    "if lives(r, now, tonumber(ARGV[2])) then\n"
    "  return {'lives', string.format('%.0f', r.until_ms - now)}\n"
    "end\n"
    "local n, all = 0, redis.call('HGETALL', KEYS[2])\n"
    "for i = 1, #all, 2 do\n"
    "  if r and string.match(all[i + 1], '^%x+') == r.i then\n"
    "    redis.call('HSET', KEYS[2], all[i], r.i..' 0 0 1')\n"
    "    n = n + 1\n"
    "  end\n"
    "end\n"
    "redis.call('HDEL', KEYS[1], ARGV[1])\n"
    "return {'forgotten', string.format('%.0f', n)}\n";

/* KEYS log count epoch; ARGV epoch, digits, what this host has applied, entries...: {epoch, number of
 * the last}. Nothing is added in another epoch. Where strangers have put their own ids into the log it
 * begins anew. */
static const char fleet_script_append[] = FLEET_ALWAYS FLEET_NOW FLEET_ANEW
    "local epoch = redis.call('GET', KEYS[3]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch, '0'} end\n"
    "if count < tonumber(ARGV[3]) then\n"
    "  begin_anew(ARGV[2])\n"
    "  return {'', '0'}\n"
    "end\n"
    "local n\n"
    "for i = 4, #ARGV do\n"
    "  n = redis.call('INCR', KEYS[2])\n"
    "  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', " FLEET_LOG_MAX
    ", string.format('%.0f', n)..'-0', 'e', ARGV[i])\n"
    "  if type(added) == 'table' and added.err then\n"
    "    begin_anew(ARGV[2])\n"
    "    return {'', '0'}\n"
    "  end\n"
    "end\n"
    "return {epoch, string.format('%.0f', n)}\n";

/* KEYS object claim; ARGV instance ('': it only looks), ms of the claim, the signature of an object
 * that is of no use: {"o", object}, {"c"}: claimed, {"n"}: waiting is of no use, {"w", ms of the
 * other's claim}. */
static const char fleet_script_share_get[] =
    "local o = redis.call('GET', KEYS[1])\n"
    "if o and string.sub(o, -16) ~= ARGV[3] then return {'o', o} end\n"
    "if ARGV[1] == '' then return {'n'} end\n"
    "local c = redis.call('GET', KEYS[2])\n"
    "if not c then\n"
    "  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])\n"
    "  return {'c'}\n"
    "end\n"
    "if c == '-' then return {'n'} end\n"
    "if string.match(c, '^%x+') == ARGV[1] then\n"
    "  redis.call('PEXPIRE', KEYS[2], ARGV[2])\n"
    "  return {'c'}\n"
    "end\n"
    "local left = redis.call('PTTL', KEYS[2])\n"
    "if left <= 0 or left > tonumber(ARGV[2]) then\n"
    "  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])\n"
    "  return {'c'}\n"
    "end\n"
    "if string.sub(c, -1) ~= 'w' then redis.call('SET', KEYS[2], c..' w', 'PX', left) end\n"
    "return {'w', string.format('%.0f', left)}\n";

/* KEYS object claim stored marks variants; ARGV instance, name of the claim, ms of the object (0: there
 * is none), object, ms for which it is known that there is nothing to share, name of the object where
 * it is a variant, what says by which fields its URL varies ('': that is there), most variants. What
 * waits is woken. */
static const char fleet_script_share_put[] =
    FLEET_NOW "local ms = tonumber(ARGV[3])\n"
              "if ms > 0 then redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3]) end\n"
              "if ms > 0 and ARGV[6] ~= '' then\n"
              "  local last = string.format('%.0f', math.max(redis.call('PTTL', KEYS[4]), ms))\n"
              "  if ARGV[7] ~= '' then redis.call('SET', KEYS[4], ARGV[7], 'PX', last)\n"
              "  else redis.call('PEXPIRE', KEYS[4], last) end\n"
              "  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', now))\n"
              "  redis.call('ZADD', KEYS[5], string.format('%.0f', now + ms), ARGV[6])\n"
              "  redis.call('PEXPIRE', KEYS[5], last)\n"
              "  local many = redis.call('ZCARD', KEYS[5]) - ARGV[8]\n"
              "  if many > 0 then\n"
              "    local first = string.sub(KEYS[1], 1, -1 - #ARGV[6])\n"
              "    for _, old in ipairs(redis.call('ZRANGE', KEYS[5], 0, many - 1)) do\n"
              "      redis.call('DEL', first..old)\n"
              "      redis.call('ZREM', KEYS[5], old)\n"
              "    end\n"
              "  end\n"
              "end\n"
              "local c = redis.call('GET', KEYS[2])\n"
              "if not c or c == '-' then return {'0'} end\n"
              "if ms == 0 and string.match(c, '^%x+') ~= ARGV[1] then return {'0'} end\n"
              "if ARGV[5] ~= '0' then redis.call('SET', KEYS[2], '-', 'PX', ARGV[5])\n"
              "else redis.call('DEL', KEYS[2]) end\n"
              "if string.sub(c, -1) == 'w' then\n"
              "  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'k', ARGV[2])\n"
              "end\n"
              "return {'1'}\n";
#include "daemons/control/model/fleet_limit_scripts.h"
#endif
