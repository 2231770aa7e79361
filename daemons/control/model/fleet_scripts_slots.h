/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_scripts_slots: what runs within the store for slots (polder/fleet_slots.h), beside
 * fleet_scripts.h. Keys of the fleet NAME, which begin with "polder:{NAME}:slots:EPOCH:": another
 * history of the store has others, and those of the former one expire.
 *
 *   holders  hash: holder -> "INSTANCE SEEN KEEP REPORTED"; SEEN in ms of the store's clock; REPORTED 1: it has
 *            said all that it holds
 *   all      hash: key -> slots that all holders together hold
 *   of:ID    hash: key -> slots that this holder holds
 */
#ifndef POLDER_CONTROL_FLEET_SCRIPTS_SLOTS_H
#define POLDER_CONTROL_FLEET_SCRIPTS_SLOTS_H

#include "daemons/control/model/fleet_scripts.h"

#define FLEET_SLOTS_EXPIRE  "172800000" /* ms; more than any slots_keep */
#define FLEET_SLOTS_DROPPED "500"       /* keys of holders that are gone, of one call */
#define FLEET_SLOTS_WITHIN  "60000"     /* ms: in a young history all hosts' words are waited for */

/* KEYS epoch holders all; ARGV epoch holder instance keep reported alone prefix began lease: {epoch,
 * hosts, fresh, learning}. alone: 1: other holders of this host are gone. fresh: 1: the store did not
 * know this one. learning: 1: it is not known yet what others hold. Holders that have not been heard
 * of for their KEEP hold nothing any more. */
static const char fleet_script_slots_renew[] = FLEET_NOW
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch} end\n"
    "local began, lease, left = tonumber(ARGV[8]), tonumber(ARGV[9]), " FLEET_SLOTS_DROPPED "\n"
    "local function drop(id)\n"
    "  local of = ARGV[7]..id\n"
    "  local part = redis.call('HSCAN', of, '0', 'COUNT', left)[2]\n"
    "  for i = 1, #part, 2 do\n"
    "    if redis.call('HINCRBY', KEYS[3], part[i], -part[i + 1]) <= 0 then\n"
    "      redis.call('HDEL', KEYS[3], part[i])\n"
    "    end\n"
    "    redis.call('HDEL', of, part[i])\n"
    "    left = left - 1\n"
    "  end\n"
    "  if redis.call('EXISTS', of) == 0 then redis.call('HDEL', KEYS[2], id) end\n"
    "end\n"
    "local hosts, fresh, missing = 1, '1', false\n"
    "local all = redis.call('HGETALL', KEYS[2])\n"
    "for i = 1, #all, 2 do\n"
    "  local instance, seen, keep, reported = string.match(all[i + 1], '^(%x+) (%d+) (%d+) "
    "([01])$')\n"
    "  if all[i] == ARGV[2] then\n"
    "    fresh = '0'\n"
    "  elseif not seen or seen + keep < now or (instance == ARGV[3] and ARGV[6] == '1') then\n"
    "    if left > 0 then drop(all[i]) end\n"
    "  elseif seen + lease > now and instance ~= ARGV[3] then\n"
    "    hosts = hosts + 1\n"
    "    if reported == '0' then missing = true end\n"
    "  end\n"
    "end\n"
    "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]..' '..string.format('%.0f', now)..' "
    "'..ARGV[4]..' "
    "'..ARGV[5])\n"
    "for _, key in ipairs({KEYS[2], KEYS[3], ARGV[7]..ARGV[2]}) do\n"
    "  redis.call('PEXPIRE', key, " FLEET_SLOTS_EXPIRE ")\n"
    "end\n"
    "local learning = now < began + lease or (missing and now < began + " FLEET_SLOTS_WITHIN ")\n"
    "return {epoch, string.format('%.0f', hosts), fresh, learning and '1' or '0'}\n";

/* KEYS epoch holders all of; ARGV epoch holder hosts, and "KEY HAVE WANT LIMIT" of each key: {epoch,
 * "GRANTED LEFT"...}. The holder holds HAVE of it, whatever it held before, and what is granted.
 * {epoch, "gone"}: the store does not know that holder. */
static const char fleet_script_slots_take[] =
    "local epoch = redis.call('GET', KEYS[1]) or ''\n"
    "if epoch ~= ARGV[1] then return {epoch} end\n"
    "if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return {epoch, 'gone'} end\n"
    "local hosts, out = tonumber(ARGV[3]), {epoch}\n"
    "for i = 4, #ARGV do\n"
    "  local key, have, want, limit = string.match(ARGV[i], '^(%x+) (%d+) (%d+) (%d+)$')\n"
    "  have, want, limit = tonumber(have), tonumber(want), tonumber(limit)\n"
    "  local before = tonumber(redis.call('HGET', KEYS[4], key) or '0')\n"
    "  local others = tonumber(redis.call('HGET', KEYS[3], key) or '0') - before\n"
    "  local left = math.max(limit - others - have, 0)\n"
    "  local granted = math.min(want, left, math.max(1, math.floor(left / hosts)))\n"
    "  local held = have + granted\n"
    "  if held > 0 then redis.call('HSET', KEYS[4], key, string.format('%.0f', held))\n"
    "  else redis.call('HDEL', KEYS[4], key) end\n"
    "  if others + held > 0 then\n"
    "    redis.call('HSET', KEYS[3], key, string.format('%.0f', others + held))\n"
    "  else redis.call('HDEL', KEYS[3], key) end\n"
    "  out[#out + 1] = string.format('%.0f %.0f', granted, left - granted)\n"
    "end\n"
    "return out\n";

#endif
