#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Who may include whom. Prints each offence as FILE:LINE and fails if there is one.
#
#   include/polder, libshared   nothing of daemons or admin
#   daemons/http                (shared protocol code) nothing of a process
#   daemons/net                 (sockets that daemons share) http
#   daemons/rpc                 net
#   daemons/X                   nothing of another daemons/Y but http, net and rpc
#   daemons/control             peers, regions, call < model < methods, ops < dispatch < main; the model knows nothing
#                               of calls and answers, methods and ops nothing of each other
#   daemons/worker              timers, buffers, permits, links < client < message < fetch, cache < request
#                               < background, leak_guard < client_events, route_settings < loop, parts, main
#   admin                       of Polder only polder/*.h and the tables
#                               it calls sockets in accept.c and supervisor_link.c alone: connections have transports
#   lmdb.h                      only libshared/cache/ and daemons/keeper/store/
#   daemons/master              no loop, no parser, no database
cd "$(dirname "$0")/.." || exit 2

includes() { # FILE:LINE:HEADER
    find include libshared daemons admin -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include' {} + |
        sed -nE 's/^([^:]+:[0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([^>"]+)[>"].*/\1:\2/p'
}

includes | awk -F: '
function offence(why) { printf "%s:%s: %s: %s\n", $1, $2, $3, why; bad = 1 }
function ours(h) { return h ~ /^(daemons|admin|libshared|tests)\// }
# In which part of the worker a file is.
function worker_part(file) {
    sub(/^daemons\/worker\//, "", file)
    sub(/(\/.*|\.[ch])$/, "", file)
    return file
}
BEGIN {
    base = " buffer timer permit reader uncounted keeper_link supervisor_link fleet_link worker "
    split(base, bottom, " ")
    for (i in bottom) rank[bottom[i]] = 1
    rank["client"] = 2; rank["message"] = 3; rank["fetch"] = rank["cache"] = 4; rank["request"] = 5
    rank["background"] = rank["leak_guard"] = 6; rank["client_events"] = rank["route_settings"] = 7; rank["loop"] = rank["main"] = rank["parts"] = 8
    below["daemons/http"]; below["daemons/net"] = "daemons/http"; below["daemons/rpc"] = "daemons/net"
}
# of a file in daemons/control, NAME or FOLDER/NAME
function level(name, below_it)
{
    if (below_it) return name == "model" ? 1 : 2
    name = stem(name)
    return name == "main" ? 4 : name == "dispatch" ? 3 : name == "admin_socket" ? 2 : 0
}
function stem(name) { sub(/\..*/, "", name); return name }
{
    n = split($1, dir, "/")
    delete dir[n + 1]
    sub(/:.*/, "", dir[n])
    folder = dir[1] == "daemons" ? dir[1] "/" dir[2] : dir[1]
    header = $3
    split(header, part, "/")
    target = part[1] == "daemons" ? part[1] "/" part[2] : part[1]
    seen++
    if (header ~ /\.\.\// && header !~ /^(\.\.\/)+libshared\/tables\/[a-z_]+\.def$/)
        offence("no way around through ..")
    if (header == "lmdb.h" && $1 !~ /^libshared\/cache\// && $1 !~ /^daemons\/keeper\/store\//)
        offence("LMDB is for libshared/cache/ and daemons/keeper/store/")
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
    if (folder == "daemons/control" && target == folder && $1 !~ /\/control\.h$/) {
        from = level(dir[3], dir[4]); to = level(part[3], part[4])
        if (to > from || (to == from && to >= 2 && stem(part[3]) != stem(dir[3])))
            offence("in control: peers, regions, call < model < methods, ops < dispatch < main")
    }
    if (folder == "daemons/control" && dir[3] == "model" && header ~ /rpc|call\.h$/)
        offence("the model of control knows nothing of calls and answers")
    if (folder == "daemons/worker" && target == folder) {
        from = worker_part($1); to = worker_part(header)
        name = header
        sub(/^daemons\/worker\//, "", name)
        if (!(from in rank) || !(to in rank))
            offence("no part of the worker that has its place in the order")
        else if (rank[to] > rank[from])
            offence("in the worker, " from " is below " to)
    }
    if (folder == "daemons/master" && header ~ /^(ev|confuse|msgpack|lmdb|llhttp|jansson)\.h$/)
        offence("the master has no loop, no parser, no database")
}
END {
    if (seen < 50) { print "layering: only " seen+0 " includes found: the check itself is broken"; bad = 1 }
    exit bad
}' || bad=1

# Connections of the worker are carried by transports (daemons/net/transport.h).
if grep -rnE '(^|[^>.a-z_])(recv|recvmsg|send|sendmsg|readv|writev|shutdown|setsockopt|accept4|connect)\([^)]' daemons/worker --include='*.c' |
    grep -vE '^daemons/worker/(client/accept|supervisor_link)\.c:'; then
    echo "layering: a worker's connections are read and written through their transports"
    bad=1
fi

# Files that use each other: no circle of more than two files (four in the worker), and none across folders.
for folder in libshared admin daemons/control daemons/http daemons/keeper daemons/master daemons/net daemons/notifier daemons/resolver daemons/rpc \
    daemons/supervisor; do
    # shellcheck disable=SC2046 # no spaces in these names
    set -- $(find $folder -name '*.c' | sort)
    awk -v max=2 -f tests/code.awk -f tests/circles.awk "$@" "$@" || bad=1
done
# And they are seen: a circle of three files, two of which use each other over the folders' border.
tried=$(mktemp -d) || exit 2
mkdir "$tried/up" "$tried/down"
printf 'int a(void)\n{\n    return b();\n}\n' >"$tried/up/a.c"
printf 'int b(void)\n{\n    return a() + c();\n}\n' >"$tried/down/b.c"
printf 'int c(void)\n{\n    return a();\n}\n' >"$tried/down/c.c"
set -- "$tried"/*/*.c
seen=$(awk -v max=2 -v share=2 -f tests/code.awk -f tests/circles.awk "$@" "$@" | grep -cE 'a circle of 3 |use each other$|have a counter-arrow')
rm -r "$tried"
if [ "$seen" -ne 3 ]; then
    echo "circles: a circle is not seen: the check itself is broken"
    bad=1
fi
# shellcheck disable=SC2046
set -- $(find daemons/worker -name '*.c' | sort)
awk -v max=4 -v share=2 -f tests/code.awk -f tests/circles.awk "$@" "$@" || bad=1

# Everything in the worker sees struct worker: what a part keeps for itself is in a struct of its own.
awk -v max=40 '
/^struct worker \{/ { inside = 1; next }
inside && /^\};/ { inside = 0 }
inside {
    gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "")
    if (comment && !sub(/.*\*\//, "")) next
    comment = sub(/\/\*.*/, "")
    members += gsub(/[,;]/, "")
}
END {
    if (members < 10) { print "struct worker: only " members + 0 " members found: the check itself is broken"; exit 1 }
    if (members > max) { print "struct worker has " members " members: more than " max; exit 1 }
}' daemons/worker/worker.h || bad=1

# Names in the field's words; and a bad one is seen.
# shellcheck disable=SC2046
set -- $(find include libshared admin daemons -name '*.[ch]' | sort)
awk -v min=50000 -f tests/code.awk -f tests/words.awk "$@" || bad=1
if printf 'int tee_open; /* least */ int at_most;\n' | awk -v min=1 -f tests/code.awk -f tests/words.awk >/dev/null; then
    echo "words: a bad name is not seen: the check itself is broken"
    bad=1
fi

# Things are "it" and "which" in what the headers say.
if grep -nEwi 'whom|whoever|nobody|somebody' "$@" /dev/null | grep '\.h:' | grep -v 'user nobody'; then
    echo "words: a header speaks of a thing as of a person"
    bad=1
fi
exit ${bad:-0}
