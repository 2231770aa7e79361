/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_scripts: what runs within the store, each as one step that nothing comes between.
 *
 * Keys of the fleet NAME, which begin with "polder:{NAME}:", so that a cluster keeps them together:
 *
 *   log     stream; entry N-0 has the field e, an entry of fleet_entry.h
 *   count   the number of the last entry
 *   epoch   names this history of both: when it began, in ms of the store's clock, and six random
 *           digits; made by the first that finds none, or a server of another run
 *   run     of the server under which the epoch was made
 *   hosts   hash: host -> "INSTANCE EPOCH APPLIED UNTIL", UNTIL in ms of the store's own clock
 *   shares  hash: host -> "INSTANCE HELD SINCE ACKED OFFERED WAS SEEN": its part of limits, which it
 *           uses while it is cut off
 *   limit:HASH:SUB:SPAN  hash: number of a sub-window -> requests of a key that hosts have taken
 *
 *   stored  stream; each entry names in the field k an object that a host has waited for
 *   o:NAME  a shared object of fleet_object.h, as long as it is fresh
 *   f:NAME  a host fetches it: "INSTANCE", and " w" behind it where another host waits; "-": what was
 *           fetched was for one client alone
 *
 * Times are the store's: clocks of hosts need not agree.
 */
#ifndef POLDER_CONTROL_FLEET_SCRIPTS_H
#define POLDER_CONTROL_FLEET_SCRIPTS_H

#define FLEET_LOG_MAX "100000" /* entries that are kept, about */
#define FLEET_SHARE_TEXT "1000000" /* FLEET_SHARE_WHOLE */

#define FLEET_NOW                                                                                  \
    "local t = redis.call('TIME')\n"                                                               \
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

/* KEYS log count epoch hosts run; ARGV host instance digits run: {epoch, count, first id of the log}, or
 * {"taken"} where a living host has that name. */
static const char fleet_script_enter[] =
    FLEET_NOW "local other = redis.call('HGET', KEYS[4], ARGV[1])\n"
              "if other then\n"
              "  local i, until_ms = string.match(other, '^(%x+) %d+ %d+ (%d+)$')\n"
              "  if i and i ~= ARGV[2] and tonumber(until_ms) > now then return {'taken'} end\n"
              "end\n"
              "if redis.call('GET', KEYS[5]) ~= ARGV[4] or not redis.call('GET', KEYS[3]) then\n"
              "  redis.call('SET', KEYS[5], ARGV[4])\n"
              "  redis.call('SET', KEYS[3], string.format('%.0f', now)..ARGV[3])\n"
              "end\n"
              "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)\n"
              "return {redis.call('GET', KEYS[3]), redis.call('GET', KEYS[2]) or '0', first[1] and "
              "first[1][1] or ''}\n";

/* KEYS log count epoch hosts; ARGV host instance epoch applied lease: {epoch, count, now, name, value,
 * name, value...}. A host in another epoch gets no lease. */
static const char fleet_script_renew[] =
    FLEET_NOW "local epoch = redis.call('GET', KEYS[3]) or ''\n"
              "if epoch == ARGV[3] then\n"
              "  redis.call('HSET', KEYS[4], ARGV[1], ARGV[2]..' '..ARGV[3]..' '..ARGV[4]..' "
              "'..string.format('%.0f', now + ARGV[5]))\n"
              "end\n"
              "local out = {epoch, redis.call('GET', KEYS[2]) or '0', string.format('%.0f', now)}\n"
              "local all = redis.call('HGETALL', KEYS[4])\n"
              "for i = 1, #all, 2 do\n"
              "  local until_ms = string.match(all[i + 1], ' (%d+)$')\n"
              "  if not until_ms or tonumber(until_ms) + 3600000 < now then\n"
              "    redis.call('HDEL', KEYS[4], all[i])\n"
              "  else\n"
              "    out[#out + 1] = all[i]\n"
              "    out[#out + 1] = all[i + 1]\n"
              "  end\n"
              "end\n"
              "return out\n";

/* KEYS log count epoch; ARGV epoch, digits, entries...: {epoch, number of the last}. Nothing
 * is added in another epoch. Where strangers have put their own ids into the log it begins anew. */
static const char fleet_script_append[] =
    FLEET_NOW "local epoch = redis.call('GET', KEYS[3]) or ''\n"
              "if epoch ~= ARGV[1] then return {epoch, '0'} end\n"
              "local n\n"
              "for i = 3, #ARGV do\n"
              "  n = redis.call('INCR', KEYS[2])\n"
              "  local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', " FLEET_LOG_MAX
              ", string.format('%.0f', n)..'-0', 'e', ARGV[i])\n"
              "  if type(added) == 'table' and added.err then\n"
              "    redis.call('DEL', KEYS[1], KEYS[2])\n"
              "    redis.call('SET', KEYS[3], string.format('%.0f', now)..ARGV[2])\n"
              "    return {'', '0'}\n"
              "  end\n"
              "end\n"
              "return {epoch, string.format('%.0f', n)}\n";

/* KEYS object claim; ARGV instance, ms of the claim (0: none), the signature of an object that is of
 * no use: {"o", object}, {"c"}: claimed, {"n"}: not there, {"w", ms of the other's claim}. */
static const char fleet_script_share_get[] =
    "local o = redis.call('GET', KEYS[1])\n"
    "if o and string.sub(o, -16) ~= ARGV[3] then return {'o', o} end\n"
    "if ARGV[2] == '0' then return {'n'} end\n"
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
    "if left <= 0 then\n"
    "  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])\n"
    "  return {'c'}\n"
    "end\n"
    "if string.sub(c, -1) ~= 'w' then redis.call('SET', KEYS[2], c..' w', 'PX', left) end\n"
    "return {'w', string.format('%.0f', left)}\n";

/* KEYS object claim stored; ARGV instance, name, ms of the object (0: there is none), object, ms for which it
 * is known that there is nothing to share. What waits is woken. */
static const char fleet_script_share_put[] =
    "if ARGV[3] ~= '0' then redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3]) end\n"
    "local c = redis.call('GET', KEYS[2])\n"
    "if not c or c == '-' then return {'0'} end\n"
    "if ARGV[3] == '0' and string.match(c, '^%x+') ~= ARGV[1] then return {'0'} end\n"
    "if ARGV[5] ~= '0' then redis.call('SET', KEYS[2], '-', 'PX', ARGV[5])\n"
    "else redis.call('DEL', KEYS[2]) end\n"
    "if string.sub(c, -1) == 'w' then\n"
    "  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'k', ARGV[2])\n"
    "end\n"
    "return {'1'}\n";
/*
 * Shares of limits, in millionths. What a host may use without asking is the share that it was offered
 * last, or the one before, where it has not heard of that: the greater of the two is kept for it, and
 * all of them together are never more than one.
 *
 * It does not use it before its lease ends, HELD or later, and not in windows that had begun by then;
 * so in windows that begin from HELD on the share is kept for it. It has ended to use it when it says
 * so the first time after, SINCE: in windows that had begun by then the share that it had, WAS, is kept,
 * too.
 */
#define FLEET_SHARES_KEPT "60000" /* ms: of a host that is gone */

/* KEYS epoch shares; ARGV epoch host instance held acked gap learning lease: {epoch, now, offered,
 * hosts}. held: when the last lease was asked for, at the earliest; 0: it has none. gap: 1: it may have
 * used its share until now. While the fleet is learning no share grows: hosts that are not known yet
 * have theirs. */
static const char fleet_script_limit_share[] =
    FLEET_NOW
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch, string.format('%.0f', now), '0', '0'} end\n"
    "local acked, held = tonumber(ARGV[5]), tonumber(ARGV[4])\n"
    "local lease = tonumber(ARGV[8])\n"
    "local form = '^(%x+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'\n"
    "local others, hosts, known = 0, 1, 1\n"
    "local all = redis.call('HGETALL', KEYS[2])\n"
    "local mine = {0, now, 0, 0, acked}\n"
    "for i = 1, #all, 2 do\n"
    "  local who, h, since, a, o, was, seen = string.match(all[i + 1], form)\n"
    "  if all[i] == ARGV[2] then\n"
    "    if who == ARGV[3] then\n"
    "      mine = {tonumber(h), tonumber(since), tonumber(a), tonumber(o), tonumber(was)}\n"
    "    end\n"
    "  elseif not seen or tonumber(seen) + " FLEET_SHARES_KEPT " < now then\n"
    "    redis.call('HDEL', KEYS[2], all[i])\n"
    "  else\n"
    "    others = others + math.max(tonumber(a), tonumber(o))\n"
    "    known = known + 1\n"
    "    if tonumber(seen) + lease > now then hosts = hosts + 1 end\n"
    "  end\n"
    "end\n"
    "if ARGV[6] == '1' then\n"
    "  mine[2] = now\n"
    "  mine[5] = math.max(mine[3], mine[4], acked)\n"
    "end\n"
    "if held > 0 then mine[1] = held + lease end\n"
    "local offered = math.min(math.floor(" FLEET_SHARE_TEXT
    " / known), " FLEET_SHARE_TEXT " - others)\n"
    "if ARGV[7] == '1' then offered = math.min(offered, acked) end\n"
    "offered = math.max(offered, 0)\n"
    "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]..string.format(' %.0f %.0f %.0f %.0f %.0f %.0f', "
    "mine[1], mine[2], acked, offered, mine[5], now))\n"
    "return {epoch, string.format('%.0f', now), string.format('%.0f', offered), "
    "string.format('%.0f', hosts)}\n";

/* KEYS epoch shares limit...; ARGV epoch learned hosts, and "SUB SPAN LIMIT WANT COST" of each limit:
 * {epoch, "GRANTED LEFT MS"...}. SUB: ms of a sub-window; SPAN: how many count together. MS: until what is
 * granted ends, or, where nothing is, until there may be more. Windows that had begun before this
 * history of the store was learned get nothing: it is not known what was taken in them. */
static const char fleet_script_limit_take[] =
    FLEET_NOW
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch} end\n"
    "local learned, hosts = tonumber(ARGV[2]), tonumber(ARGV[3])\n"
    "local shares = {}\n"
    "local all = redis.call('HGETALL', KEYS[2])\n"
    "for i = 2, #all, 2 do\n"
    "  local h, since, a, o, was, seen = string.match(all[i], "
    "'^%x+ (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')\n"
    "  if seen and tonumber(seen) + " FLEET_SHARES_KEPT " >= now then\n"
    "    shares[#shares + 1] = {tonumber(h), tonumber(since), "
    "math.max(tonumber(a), tonumber(o)), tonumber(was)}\n"
    "  end\n"
    "end\n"
    "local out = {epoch}\n"
    "for i = 3, #KEYS do\n"
    "  local sub, span, limit, want, cost = string.match(ARGV[i + 1], "
    "'^(%d+) (%d+) (%d+) (%d+) (%d+)$')\n"
    "  sub, span, limit, want, cost = tonumber(sub), tonumber(span), tonumber(limit), "
    "tonumber(want), tonumber(cost)\n"
    "  local n = math.floor(now / sub)\n"
    "  local first, used, oldest = n - span + 1, 0, n\n"
    "  local counts = redis.call('HGETALL', KEYS[i])\n"
    "  for k = 1, #counts, 2 do\n"
    "    local number, count = tonumber(counts[k]), tonumber(counts[k + 1])\n"
    "    if not number or not count or number < first then\n"
    "      redis.call('HDEL', KEYS[i], counts[k])\n"
    "    else\n"
    "      used = used + count\n"
    "      if number < oldest then oldest = number end\n"
    "    end\n"
    "  end\n"
    "  local kept = 0\n"
    "  for k = 1, #shares do\n"
    "    local s, part = shares[k], 0\n"
    "    if n * sub >= s[1] then part = s[3] end\n"
    "    if first * sub <= s[2] and s[4] > part then part = s[4] end\n"
    "    kept = kept + part\n"
    "  end\n"
    "  local left = limit - math.floor(limit * math.min(kept, " FLEET_SHARE_TEXT
    ") / " FLEET_SHARE_TEXT " + 0.5) - used\n"
    "  if first * sub < learned then\n"
    "    local again = (math.ceil(learned / sub) + span - 1) * sub - now\n"
    "    out[#out + 1] = '0 0 '..string.format('%.0f', math.max(again, 1))\n"
    "  elseif left < cost or left < 1 then\n"
    "    local again = (used > 0 and oldest + span or n + 1) * sub - now\n"
    "    out[#out + 1] = '0 0 '..string.format('%.0f', again)\n"
    "  else\n"
    "    local granted = math.min(want, math.max(cost, math.floor(left / hosts)))\n"
    "    redis.call('HINCRBY', KEYS[i], string.format('%.0f', n), string.format('%.0f', granted))\n"
    "    redis.call('PEXPIRE', KEYS[i], string.format('%.0f', (span + 1) * sub + 1000))\n"
    "    out[#out + 1] = string.format('%.0f %.0f %.0f', granted, left - granted, "
    "(n + 1) * sub - now)\n"
    "  end\n"
    "end\n"
    "return out\n";

#endif
