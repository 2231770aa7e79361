#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Who may include whom. Prints each offence as FILE:LINE and fails if there is one.
#
#   include/polder, libshared   nothing of daemons or admin
#   daemons/http, daemons/rpc   (shared protocol code) nothing of a process
#   daemons/X                   nothing of another daemons/Y but http and rpc
#   admin                       of Polder only polder/*.h and the tables
#   lmdb.h                      only libshared/cache*.c and daemons/keeper
#   daemons/master              no loop, no parser, no database
cd "$(dirname "$0")/.." || exit 2

includes() { # FILE:LINE:HEADER
    find include libshared daemons admin -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + |
        sed -nE 's/^([^:]+:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^>"]+)[>"].*/\1:\2/p'
}

includes | awk -F: '
function offence(why) { printf "%s:%s: %s: %s\n", $1, $2, $3, why; bad = 1 }
function ours(h) { return h ~ /^(daemons|admin|libshared|tests)\// }
{
    n = split($1, dir, "/")
    folder = dir[1] == "daemons" ? dir[1] "/" dir[2] : dir[1]
    header = $3
    split(header, part, "/")
    target = part[1] == "daemons" ? part[1] "/" part[2] : part[1]
    seen++
    if (header ~ /\.\.\// && header !~ /^(\.\.\/)+libshared\/tables\/[a-z_]+\.def$/)
        offence("no way around through ..")
    if (header == "lmdb.h" && $1 !~ /^libshared\/cache[a-z_]*\.[ch]$/ && folder != "daemons/keeper")
        offence("LMDB is for libshared/cache*.c and daemons/keeper")
    if (!ours(header) || header ~ /^libshared\/tables\/[a-z_]+\.def$/)
        ;
    else if (folder == "libshared" || folder == "include") {
        if (target != "libshared") offence("libshared knows no daemon and no admin")
    } else if (folder == "admin") {
        if (target != "admin") offence("admin speaks the protocol and knows no process")
    } else if (folder == "daemons/http" || folder == "daemons/rpc") {
        if (target != folder) offence("protocol code knows no process")
    } else if (target ~ /^daemons\// && target != folder && target != "daemons/http" && target != "daemons/rpc")
        offence("a process folder includes nothing of another")
    else if (target != folder && target !~ /^daemons\// )
        offence("a process folder uses polder/*.h")
    if (folder == "daemons/master" && header ~ /^(ev|confuse|msgpack|lmdb|llhttp|jansson)\.h$/)
        offence("the master has no loop, no parser, no database")
}
END {
    if (seen < 50) { print "layering: only " seen+0 " includes found: the check itself is broken"; bad = 1 }
    exit bad
}'
