#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Who may include whom. Prints each offence as FILE:LINE and fails if there is one.
#
#   include/polder, libshared   nothing of daemons or admin
#   daemons/http                (shared protocol code) nothing of a process
#   daemons/net                 (sockets that daemons share) http
#   daemons/rpc                 net
#   daemons/X                   nothing of another daemons/Y but http, net and rpc
#   daemons/control             model < methods, ops < the files of the folder itself; methods and ops know nothing of
#                               each other
#   admin                       of Polder only polder/*.h and the tables
#   lmdb.h                      only libshared/cache/ and daemons/keeper
#   daemons/master              no loop, no parser, no database
cd "$(dirname "$0")/.." || exit 2

includes() { # FILE:LINE:HEADER
    find include libshared daemons admin -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + |
        sed -nE 's/^([^:]+:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^>"]+)[>"].*/\1:\2/p'
}

includes | awk -F: '
function offence(why) { printf "%s:%s: %s: %s\n", $1, $2, $3, why; bad = 1 }
function ours(h) { return h ~ /^(daemons|admin|libshared|tests)\// }
BEGIN {
    below["daemons/http"]; below["daemons/net"] = "daemons/http"; below["daemons/rpc"] = "daemons/net"
}
{
    n = split($1, dir, "/")
    folder = dir[1] == "daemons" ? dir[1] "/" dir[2] : dir[1]
    header = $3
    split(header, part, "/")
    target = part[1] == "daemons" ? part[1] "/" part[2] : part[1]
    seen++
    if (header ~ /\.\.\// && header !~ /^(\.\.\/)+libshared\/tables\/[a-z_]+\.def$/)
        offence("no way around through ..")
    if (header == "lmdb.h" && $1 !~ /^libshared\/cache\// && folder != "daemons/keeper")
        offence("LMDB is for libshared/cache/.c and daemons/keeper")
    if (!ours(header) || header ~ /^libshared\/tables\/[a-z_]+\.def$/)
        ;
    else if (folder == "libshared" || folder == "include") {
        if (target != "libshared") offence("libshared knows no daemon and no admin")
    } else if (folder == "admin") {
        if (target != "admin") offence("admin speaks the protocol and knows no process")
    } else if (folder in below) {
        if (target != folder && target != below[folder]) offence("what daemons share knows no process")
    } else if (target ~ /^daemons\// && target != folder && !(target in below))
        offence("a process folder includes nothing of another")
    else if (target != folder && target !~ /^daemons\// )
        offence("a process folder uses polder/*.h")
    if (folder == "daemons/control" && n > 3 && part[2] == "control" && 4 in part && part[3] != dir[3] &&
        !(part[3] == "model" && dir[3] != "model"))
        offence("in control, model is below methods and ops, which know nothing of each other")
    if (folder == "daemons/master" && header ~ /^(ev|confuse|msgpack|lmdb|llhttp|jansson)\.h$/)
        offence("the master has no loop, no parser, no database")
}
END {
    if (seen < 50) { print "layering: only " seen+0 " includes found: the check itself is broken"; bad = 1 }
    exit bad
}'
