/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_limit_scripts: what fleet_scripts.h says, for limits of the fleet. Keys:
 *
 *   shares      hash: host -> "RUN HELD SINCE LONG ACKED OFFERED WAS OLD SEEN", its part of limits,
 *               which it uses while it is cut off; and : -> until when a host is at reporting
 *   limit:HASH  hash, of one client under one limit:
 *                 e             the epoch in which it was written
 *                 "SUB SPAN N"  "TOTAL BASE LAST": requests that hosts have taken in sub-window N, each
 *                               of SUB ms, SPAN of which count together; and when they did last
 *                 g             "LEVEL TIME BASE TIME HELD MORE USED LIMIT" of gcra: requests in the
 *                               bucket, and when; the others: see fleet_script_limit_take
 *                 oID           "OUT GONE HELD TIME" of gcra: what a host has taken and may not have
 *                               used, under terms that ID stands for; GONE: until when that counts;
 *                               and HELD when it asked last
 *
 * BASE is what is known of former epochs, from the store itself if it has kept it, or from what hosts
 * report: each reports what the store answered last, and the greatest of that is right, for the last
 * answer contains all that was taken before it. So nothing is counted twice, however often it is
 * reported.
 *
 * Hosts whose windows or algorithms differ, as a change reaches one after the other, count what the
 * others take: whatever overlaps their own window, until a window has passed in which none of it was
 * taken. A bucket that is over the LIMIT of another host flows out as that says.
 */
#ifndef POLDER_CONTROL_FLEET_LIMIT_SCRIPTS_H
#define POLDER_CONTROL_FLEET_LIMIT_SCRIPTS_H

#define FLEET_SHARE_TEXT "1000000" /* FLEET_SHARE_WHOLE */
/*
 * Shares of limits, in millionths. What a host may use without asking is the share that it was offered
 * last, or the one before, where it has not heard of that: the greater of the two is kept for it, and
 * all of them together are never more than one.
 *
 * It does not use it before its lease ends, HELD or later, and not in windows that had begun by then
 * (fleet_share_of); so in windows that begin from HELD on the share is kept for it. It says when it has
 * used it last, SINCE, when it could have done so for LONG: in windows that had begun by then, and are
 * short enough for that, the share that it had, WAS, is kept, too.
 *
 * OLD is the share that it had when it came into this epoch, 0 until it has reported what it knows. What is
 * missing of the whole has a host that has not come yet: it is kept for it.
 */
#define FLEET_SHARES_KEPT    "60000"      /* ms: of a host that is gone */
#define FLEET_REPORT_LONGEST "10000"      /* ms; what has not come by then comes late */
#define FLEET_ALONE_LONGEST  "3700000000" /* of windows of 30 days */
#define FLEET_LASTS          "1000" /* ms: what is taken of gcra, in short windows; FLEET_LASTS_MS */
#define FLEET_KEPT_AGAIN     "500"  /* ms: what is kept for others may be free then */

/* All shares but that of host `own`: they are lists {HELD, SINCE, LONG, GREATER, WAS, OLD, SEEN}. */
#define FLEET_SHARES                                                                               \
    "local function shares_of(key, now, own)\n"                                                    \
    "  local all, out, mine, busy = redis.call('HGETALL', key), {}, nil, 0\n"                      \
    "  for i = 1, #all, 2 do\n"                                                                    \
    "    local who, h, since, long, a, o, was, old, seen = string.match(all[i + 1], "              \
    "'^(%x+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')\n"                                 \
    "    local s = seen and {tonumber(h), tonumber(since), tonumber(long), "                       \
    "math.max(tonumber(a), tonumber(o)), tonumber(was), tonumber(old), tonumber(seen), who}\n"     \
    "    if all[i] == ':' then\n"                                                                  \
    "      busy = tonumber(all[i + 1]) or 0\n"                                                     \
    "    elseif all[i] == own then\n"                                                              \
    "      mine = s\n"                                                                             \
    "    elseif not s or s[7] + " FLEET_SHARES_KEPT " < now then\n"                                \
    "      redis.call('HDEL', key, all[i])\n"                                                      \
    "    else\n"                                                                                   \
    "      out[#out + 1] = s\n"                                                                    \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  return out, mine, busy\n"                                                                   \
    "end\n"                                                                                        \
    "local function is_busy(busy, now, learned)\n"                                                 \
    "  return now < busy and now < learned + " FLEET_REPORT_LONGEST "\n"                           \
    "end\n"                                                                                        \
    "local function missing_of(shares, now, learned)\n"                                            \
    "  local sum = 0\n"                                                                            \
    "  for i = 1, #shares do sum = sum + shares[i][6] end\n"                                       \
    "  if sum == 0 or now > learned + " FLEET_SHARES_KEPT " then return 0 end\n"                   \
    "  return math.max(0, " FLEET_SHARE_TEXT " - sum)\n"                                           \
    "end\n"

/* KEYS epoch shares; ARGV epoch host run held acked ago long was learned lease fresh free: {epoch, now,
 * offered, hosts, learning}. held: when the last lease was asked for, at the earliest; 0: it has none. ago: ms
 * since it has ended to use its share; learned: until then hosts that are not known yet have theirs,
 * and none grows; fresh: 1: it has had no lease since it was started. free:
 * ms since its lease has ended, or, of such a host, since it was started. */
static const char fleet_script_limit_share[] = FLEET_NOW FLEET_SHARES
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch, string.format('%.0f', now), '0', '0'} end\n"
    "local held, acked, learned, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[9]), "
    "tonumber(ARGV[10])\n"
    "local shares, mine, busy = shares_of(KEYS[2], now, ARGV[2])\n"
    "local from = now - tonumber(ARGV[12])\n"
    /* an earlier run of it may have used its share until now: for how long is not known where it has
     * not come into this epoch */
    "if not mine then\n"
    "  local alone = ARGV[11] == '1' and acked > 0 and " FLEET_ALONE_LONGEST " or 0\n"
    "  mine = {from, now, alone, 0, acked, acked}\n"
    "elseif mine[8] ~= ARGV[3] then\n"
    "  local alone = math.max(now - mine[1], 0)\n"
    "  if alone > 0 then\n"
    "    mine[2], mine[3], mine[5] = now, math.max(alone, mine[3]), math.max(mine[4], mine[5])\n"
    "  end\n"
    "  mine[1] = from\n"
    "end\n"
    "local since, alone, was = math.max(now - tonumber(ARGV[6]), 0), tonumber(ARGV[7]), "
    "tonumber(ARGV[8])\n"
    "if now - mine[2] <= mine[3] then\n"
    "  since, alone, was = math.max(since, mine[2]), math.max(alone, mine[3]), math.max(was, "
    "mine[5])\n"
    "end\n"
    "if held > 0 then mine[1] = held + lease end\n"
    "local others, hosts = 0, 1\n"
    "for i = 1, #shares do\n"
    "  others = others + shares[i][4]\n"
    "  if shares[i][7] + lease > now then hosts = hosts + 1 end\n"
    "end\n"
    "local known = #shares + 1\n"
    "shares[known] = mine\n"
    "local rest = " FLEET_SHARE_TEXT " - others - missing_of(shares, now, learned)\n"
    "local offered = math.min(math.floor(" FLEET_SHARE_TEXT " / known), rest)\n"
    "local learning = now < learned or is_busy(busy, now, learned)\n"
    "if learning then offered = math.min(offered, acked) end\n"
    "offered = math.max(offered, 0)\n"
    "redis.call('HSET', KEYS[2], ARGV[2], string.format('%s %.0f %.0f %.0f %.0f %.0f %.0f %.0f "
    "%.0f', ARGV[3], mine[1], since, alone, acked, offered, was, mine[6], now))\n"
    "return {epoch, string.format('%.0f', now), string.format('%.0f', offered), "
    "string.format('%.0f', hosts), learning and '1' or '0'}\n";

/* The state of a key, in which what was written in another epoch is base; and how it is written. */
#define FLEET_LIMIT_STATE                                                                          \
    "local function put_count(key, c)\n"                                                           \
    "  redis.call('HSET', key, string.format('%.0f %.0f %.0f', c[1], c[2], c[3]), "                \
    "string.format('%.0f %.0f %.0f', c[4], c[5], c[6]))\n"                                         \
    "end\n"                                                                                        \
    "local function put_level(key, s)\n"                                                           \
    "  redis.call('HSET', key, 'g', string.format('%.17g %.0f %.17g %.0f %.17g %.17g %s %.0f', "   \
    "s.level, s.time, s.base, s.base_time, s.sum > 0 and s.held or 0, s.more, s.used, s.limit))\n" \
    "end\n"                                                                                        \
    "local function put_out(key, s, id, n, gone)\n"                                                \
    "  s.sum = s.sum + n - (s.out[id] and s.out[id][1] or 0)\n"                                    \
    "  if n > 0 then\n"                                                                            \
    "    redis.call('HSET', key, 'o'..id, string.format('%.0f %.0f %.17g %.0f', n, gone, s.held, " \
    "now))\n"                                                                                      \
    "  elseif s.out[id] then\n"                                                                    \
    "    redis.call('HDEL', key, 'o'..id)\n"                                                       \
    "  end\n"                                                                                      \
    "  s.out[id] = n > 0 and {n, gone, s.held, now} or nil\n"                                      \
    "end\n"                                                                                        \
    "local function state_of(key, epoch)\n"                                                        \
    "  local all, s, e = redis.call('HGETALL', key), {level = 0, time = 0, base = 0, "             \
    "base_time = 0, out = {}, sum = 0, held = 0, more = 0, used = '0', limit = 0}, ''\n"           \
    "  for i = 1, #all, 2 do\n"                                                                    \
    "    local sub, span, n = string.match(all[i], '^(%d+) (%d+) (%d+)$')\n"                       \
    "    local total, base, last = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')\n"              \
    "    local id = string.match(all[i], '^o(%d+)$')\n"                                            \
    "    local out, gone, held, asked = string.match(all[i + 1], '^(%d+) (%d+) (%S+) (%d+)$')\n"   \
    "    if all[i] == 'e' then\n"                                                                  \
    "      e = all[i + 1]\n"                                                                       \
    "    elseif all[i] == 'g' then\n"                                                              \
    "      local l, t, b, bt, h, m, u, max = string.match(all[i + 1], "                            \
    "'^(%S+) (%d+) (%S+) (%d+) (%S+) (%S+) (%d) (%d+)$')\n"                                        \
    "      s.level, s.time = tonumber(l) or 0, tonumber(t) or 0\n"                                 \
    "      s.base, s.base_time, s.held = tonumber(b) or 0, tonumber(bt) or 0, tonumber(h) or 0\n"  \
    "      s.more, s.used, s.limit = tonumber(m) or 0, u or '0', tonumber(max) or 0\n"             \
    "    elseif id and out and tonumber(gone) > now then\n"                                        \
    "      s.out[id] = {tonumber(out), tonumber(gone), tonumber(held) or 0, tonumber(asked)}\n"    \
    "      s.sum = s.sum + s.out[id][1]\n"                                                         \
    "    elseif sub and total then\n"                                                              \
    "      s[#s + 1] = {tonumber(sub), tonumber(span), tonumber(n), tonumber(total), "             \
    "tonumber(base), tonumber(last)}\n"                                                            \
    "    else\n"                                                                                   \
    "      redis.call('HDEL', key, all[i])\n"                                                      \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  if e ~= epoch then\n"                                                                       \
    "    redis.call('HSET', key, 'e', epoch)\n"                                                    \
    "    for i = 1, #s do\n"                                                                       \
    "      s[i][5] = s[i][4]\n"                                                                    \
    "      put_count(key, s[i])\n"                                                                 \
    "    end\n"                                                                                    \
    "    if s.time > 0 then\n"                                                                     \
    "      s.base, s.base_time = s.level, s.time\n"                                                \
    "      put_level(key, s)\n"                                                                    \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  return s\n"                                                                                 \
    "end\n"                                                                                        \
    "local function count_of(s, sub, span, n)\n"                                                   \
    "  for i = 1, #s do\n"                                                                         \
    "    if s[i][1] == sub and s[i][2] == span and s[i][3] == n then return s[i] end\n"            \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "local function keep(key, ms)\n"                                                               \
    "  if redis.call('PTTL', key) < ms then\n"                                                     \
    "    redis.call('PEXPIRE', key, string.format('%.0f', ms))\n"                                  \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "local function drained(level, ms, limit, window)\n"                                           \
    "  return math.max(0, level - math.max(0, ms) * limit / window)\n"                             \
    "end\n"                                                                                        \
    "local function flow(s, level, ms, rate, limit, window)\n"                                     \
    "  local fast = s.limit * rate / limit / window\n"                                             \
    "  if level > limit and s.limit > limit and fast > 0 then\n"                                   \
    "    local t = math.min(ms, (level - limit) / fast)\n"                                         \
    "    level, ms = level - t * fast, ms - t\n"                                                   \
    "  end\n"                                                                                      \
    "  return drained(level, ms, rate, window)\n"                                                  \
    "end\n"                                                                                        \
    "local function pass(s, at, rate, limit, window)\n"                                            \
    "  local ms = math.max(at - s.time, 0)\n"                                                      \
    "  local less = math.max(flow(s, s.level - s.more, ms, limit, limit, window), s.sum)\n"        \
    "  s.held = s.held + math.max(s.sum - s.level + ms * rate / window, 0)\n"                      \
    "  s.level, s.time = math.max(flow(s, s.level, ms, rate, limit, window), s.sum), s.time + "    \
    "ms\n"                                                                                         \
    "  s.more = math.max(s.level - less, 0)\n"                                                     \
    "  s.limit = s.level > limit and math.max(s.limit, limit) or limit\n"                          \
    "end\n"                                                                                        \
    "local function lasts(window)\n"                                                               \
    "  return math.max(math.floor(window / 10), math.min(window, " FLEET_LASTS "))\n"              \
    "end\n"

/* KEYS epoch shares limit...; ARGV epoch, and of each limit what was answered to a host last: "SUB SPAN LIMIT
 * ENDS COUNT...", ENDS: ms from now to the end of the newest sub-window, whose count is the first; or
 * "WINDOW 0 LIMIT AGE LEVEL OUT ID", LEVEL in 2^20ths, and what it has not used: {epoch}. The clock of this store may be another one: a
 * sub-window that is not one of its own counts in the later of the two that it overlaps. */
static const char fleet_script_limit_report[] = FLEET_NOW FLEET_LIMIT_STATE
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch} end\n"
    "redis.call('HSET', KEYS[2], ':', string.format('%.0f', now + 1000))\n"
    "for i = 3, #KEYS do\n"
    "  local sub, span, limit, ms, list = string.match(ARGV[i - 1], "
    "'^(%d+) (%d+) (%d+) (%-?%d+)([ %d]+)$')\n"
    "  sub, span, limit, ms = tonumber(sub), tonumber(span), tonumber(limit), tonumber(ms)\n"
    "  local s = state_of(KEYS[i], epoch)\n"
    "  if span == 0 then\n"
    "    local level, out, id = string.match(list, '^ (%d+) (%d+) (%d+)$')\n"
    "    level = drained(tonumber(level) / 1048576, ms, limit, sub)\n"
    "    local base = drained(s.base, now - s.base_time, limit, sub)\n"
    "    if tonumber(out) > 0 then put_out(KEYS[i], s, id, tonumber(out), now + lasts(sub) + "
    "sub) end\n"
    "    if level > base then\n"
    "      pass(s, now, 0, limit, sub)\n"
    "      s.level = s.level + level - base\n"
    "      s.base, s.base_time = level, now\n"
    "      put_level(KEYS[i], s)\n"
    "    end\n"
    "  else\n"
    "    local ends = (now + ms) / sub\n"
    "    local n = math.floor(ends + 0.5) - 1\n"
    "    if math.abs(now + ms - (n + 1) * sub) > math.min(100, sub / 4) then\n"
    "      n = math.ceil(ends) - 1\n"
    "    end\n"
    "    for count in string.gmatch(list, '%d+') do\n"
    "      count = tonumber(count)\n"
    "      local c = count_of(s, sub, span, n) or {sub, span, n, 0, 0}\n"
    "      if count > c[5] then\n"
    "        c[4], c[5], c[6] = c[4] + count - c[5], count, now\n"
    "        put_count(KEYS[i], c)\n"
    "      end\n"
    "      n = n - 1\n"
    "    end\n"
    "  end\n"
    "  keep(KEYS[i], (span + 1) * sub + 1000)\n"
    "end\n"
    "return {epoch}\n";

/* KEYS epoch shares limit...; ARGV epoch learned hosts, and "SUB SPAN LIMIT WANT COST BACK WHEN HAD OUT
 * AGO AFTER ID" of each limit: {epoch, "GRANTED LEFT MS NUMBER TILL COUNT..."...}. SUB: ms of a sub-window; SPAN: how many count
 * together; 0: gcra, and SUB is the window. BACK of what was granted with NUMBER = WHEN was not used and
 * never will be. HAD: what this host has counted before the limit was one of the fleet. MS: until what is granted ends, or, where nothing is, until there may be more. TILL: ms
 * to the end of sub-window NUMBER; it and COUNT...: as the host reports it to a store that has lost its
 * data. WANT 0: only BACK is of interest.
 *
 * gcra: what is granted may be used so long later as lasts() says. OUT is what the host named by ID
 * has of it still; it used some last at least AGO ms before it asked, and at most AFTER ms after it had
 * asked before. What hosts have taken and may not have
 * used does not flow out: the level is never below the sum of that. So, with LEVEL that of one bucket
 * over all hosts and UNUSED what they hold, LEVEL + UNUSED <= level here <= LIMIT whenever something is
 * granted, however late it is used. After a window has passed since its end, what was never reported
 * has flown out wherever it was.
 *
 * HELD is all that has not flown out because the level stood at that sum. A host that has used what it
 * had, and when, takes back what it has held up since: at most HELD since it had asked, but for what was
 * held before that, and no more than it used. What remains is less than the sum at that time, and a host
 * holds no more than half a lease: so the level here is above LEVEL by no more than a lease of each,
 * which is two requests or more.
 *
 * While a part of the limit is kept for hosts that are cut off, the level flows out as slowly as the rest
 * of the limit says: MORE is what would have flown out otherwise. It goes when nothing is kept any more,
 * but where a host has been cut off for so long that it may have used its part: USED, 1.
 */
static const char fleet_script_limit_take[] = FLEET_NOW FLEET_SHARES FLEET_LIMIT_STATE
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch} end\n"
    "local learned, hosts = tonumber(ARGV[2]), tonumber(ARGV[3])\n"
    "local shares, _, busy = shares_of(KEYS[2], now)\n"
    "local learning = now < learned or is_busy(busy, now, learned)\n"
    "local missing = missing_of(shares, now, learned)\n"
    /* what is left of a limit in a window that has begun at `begun`, of a span from `from` */
    "local function rest_of(limit, window, from, begun, wait)\n"
    "  local kept, used = missing, false\n"
    "  for i = 1, #shares do\n"
    "    local s, part = shares[i], 0\n"
    "    if begun >= s[1] then part = s[4] end\n"
    "    if from <= s[2] and s[3] >= wait and s[5] > part then\n"
    "      part, used = s[5], true\n"
    "    end\n"
    "    kept = kept + part\n"
    "  end\n"
    "  return limit - math.floor(limit * math.min(kept, " FLEET_SHARE_TEXT ") / " FLEET_SHARE_TEXT
    " + 0.5), used\n"
    "end\n"
    "local function answer(granted, left, ms, number, till)\n"
    "  return string.format('%.0f %.0f %.0f %.0f %.0f', granted, left, math.max(ms, 1), number, "
    "till)\n"
    "end\n"
    "local function part_of(left, want, cost)\n"
    "  if left < cost or left < 1 then return 0 end\n"
    "  return math.min(want, math.max(cost, math.floor(left / hosts)))\n"
    "end\n"
    "local taken = {}\n"
    "local function take_level(key, window, limit, want, cost, back, had, out, ago, after, "
    "id)\n"
    "  local s, others = state_of(key, epoch), 0\n"
    "  local rate, used = rest_of(limit, window, now - window, now, window + lasts(window))\n"
    "  for i = 1, #s do\n"
    "    if (s[i][3] + 1) * s[i][1] > now - window and s[i][6] + window > now then\n"
    "      others = others + s[i][4]\n"
    "    end\n"
    "  end\n"
    "  local last = s.out[id] or {0, now + lasts(window) + window, s.held, now}\n"
    /* twice in one call: the host has not heard of what was granted a moment ago */
    "  if taken[key..id] then out, back, ago = last[1], 0, 0 end\n"
    "  taken[key..id] = true\n"
    "  pass(s, now - ago, rate, limit, window)\n"
    "  back = math.min(back, last[1])\n"
    "  local before = math.max(math.min(now - ago - last[4], after), 0) * limit / window\n"
    "  local free = math.max(0, math.min(last[1] - back - out, s.held - last[3] - before))\n"
    "  s.held = s.held - free\n"
    "  put_out(key, s, id, out, last[2])\n"
    "  s.level = math.max(s.level - back - free, s.sum)\n"
    "  pass(s, now, rate, limit, window)\n"
    "  put_out(key, s, id, out, last[2])\n" /* HELD and TIME, as they are now */
    "  s.level = s.level + had\n"
    "  if used then s.used = '1' end\n"
    "  if rate == limit then\n"
    "    if s.used == '0' then s.level = s.level - s.more end\n"
    "    s.more, s.used = 0, '0'\n"
    "  end\n"
    "  local left = math.floor(rate - s.level - others + 1e-9)\n"
    "  local granted = part_of(left, want, cost)\n"
    "  local ms = lasts(window)\n"
    "  if granted > 0 then\n"
    "    s.level = s.level + granted\n"
    "    put_out(key, s, id, out + granted, now + ms + window)\n"
    "  else\n"
    "    local need = math.max(cost, math.ceil(want / 2), 1)\n"
    "    ms = need > rate and window or math.min(window, math.ceil((s.level + others + need - "
    "rate) * window / rate))\n"
    "    if rate < limit then ms = math.min(ms, " FLEET_KEPT_AGAIN ") end\n"
    "  end\n"
    "  put_level(key, s)\n"
    "  keep(key, 2 * window + 1000)\n"
    "  return answer(granted, math.max(left - granted, 0), ms, now, 0)..string.format(' %.0f', "
    "math.ceil(s.level * 1048576))\n"
    "end\n"
    "local function take_count(key, sub, span, limit, want, cost, back, number, had)\n"
    "  local s, n = state_of(key, epoch), math.floor(now / sub)\n"
    "  local from, used, oldest, longest = (n - span + 1) * sub, 0, nil, sub * span\n"
    "  for i = 1, #s do longest = math.max(longest, s[i][1] * s[i][2]) end\n"
    "  for i = 1, #s do\n"
    "    local c = s[i]\n"
    "    local ends = (c[3] + 1) * c[1]\n"
    "    if back > 0 and c[1] == sub and c[2] == span and c[3] == number then\n"
    "      c[4] = c[4] - math.min(back, c[4] - c[5])\n"
    "      put_count(key, c)\n"
    "    end\n"
    "    local own = c[1] == sub and c[2] == span\n"
    "    if ends > from and (own or c[6] + sub * span > now) then\n"
    "      used = used + c[4]\n"
    "      if c[4] > 0 and (not oldest or ends < oldest) then oldest = ends end\n"
    "    elseif ends + longest <= now then\n"
    "      redis.call('HDEL', key, string.format('%.0f %.0f %.0f', c[1], c[2], c[3]))\n"
    "    end\n"
    "  end\n"
    "  local window = span > 1 and sub * (span - 1) or sub\n"
    "  if s.time > 0 then\n"
    "    pass(s, now, limit, limit, window)\n"
    "    local level = math.ceil(s.level)\n"
    "    if level > 0 then used, oldest = used + level, oldest or now + 1 end\n"
    "  end\n"
    "  local rest = rest_of(limit, window, from, n * sub, span > 1 and window * 1.2 or window)\n"
    "  local left = rest - used - had\n"
    "  local granted = part_of(left, want, cost)\n"
    "  local c = count_of(s, sub, span, n)\n"
    "  if granted + had > 0 then\n"
    "    if not c then\n"
    "      c = {sub, span, n, 0, 0, 0}\n"
    "      s[#s + 1] = c\n"
    "    end\n"
    "    c[4], c[6] = c[4] + granted + had, now\n"
    "    put_count(key, c)\n"
    "  end\n"
    "  keep(key, longest + sub + 1000)\n"
    "  local till = (n + 1) * sub - now\n"
    "  local ms = till\n"
    "  if granted == 0 and oldest then\n"
    "    ms = math.min((math.ceil(oldest / sub) + span - 1) * sub - now, span * sub)\n"
    "  end\n"
    "  if granted == 0 and rest < limit then ms = math.min(ms, " FLEET_KEPT_AGAIN ") end\n"
    "  local out = answer(granted, math.max(left - granted, 0), ms, n, till)\n"
    "  for k = n, n - span + 1, -1 do\n"
    "    local x = count_of(s, sub, span, k)\n"
    "    out = out..string.format(' %.0f', x and x[4] or 0)\n"
    "  end\n"
    "  return out\n"
    "end\n"
    "local out = {epoch}\n"
    "for i = 3, #KEYS do\n"
    "  local v, id = {}, ''\n"
    "  for word in string.gmatch(ARGV[i + 1], '%d+') do v[#v + 1], id = tonumber(word), word end\n"
    "  local sub, span, limit, want, cost, back, number, had, has, ago, after = unpack(v)\n"
    "  if learning then\n"
    "    out[#out + 1] = answer(0, 0, math.max(learned - now, 100), 0, 0)\n"
    "  elseif span == 0 then\n"
    "    out[#out + 1] = take_level(KEYS[i], sub, limit, want, cost, back, had, has, ago, "
    "after, id)\n"
    "  else\n"
    "    out[#out + 1] = take_count(KEYS[i], sub, span, limit, want, cost, back, number, had)\n"
    "  end\n"
    "end\n"
    "return out\n";

#endif
