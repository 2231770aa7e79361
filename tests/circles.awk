# SPDX-License-Identifier: BSD-2-Clause
# Which .c files of a folder use each other. An arrow goes from a file to the one whose function it names; functions are
# found by the style of the house: the brace that opens a body stands in the first column, below the signature.
# Prints circles of more than MAX files, pairs of files in different folders that use each other, and whether of all
# arrows more than SHARE percent have a counter-arrow (not asked if SHARE is empty).
#
#   awk -v max=2 [-v share=2] -f code.awk -f circles.awk FILE... FILE...      the same files twice: first what they define, then what they use
function folder(file) { sub(/\/[^\/]*$/, "", file); return file }
FNR == 1 {
    comment = 0
    signature = ""
    if (!(FILENAME in known)) { known[FILENAME]; file[++n] = FILENAME }
    else second = 1
}
{ line = code($0) }
!second {
    if (line ~ /^\{/) {
        if (signature !~ /=/ && match(signature, /[A-Za-z_][A-Za-z_0-9]*[ ]*\(/)) {
            name = substr(signature, RSTART, RLENGTH - 1)
            sub(/ +$/, "", name)
            if (signature ~ /(^| )static /) own[FILENAME, name]
            else if (name != "main") home[name] = FILENAME
        }
        signature = ""
    } else if (line ~ /^[#}]/ || line ~ /;[ ]*$/ || line ~ /^[ \t]*$/)
        signature = ""
    else
        signature = signature " " line
    next
}
line ~ /^#/ { next }
{
    gsub(/(struct|enum|union) +[A-Za-z_0-9]+/, "", line) # a name of its own
    while (match(line, /[A-Za-z_][A-Za-z_0-9]*/)) {
        word = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        if (word in home && home[word] != FILENAME && !((FILENAME, word) in own)) {
            if (!((FILENAME, home[word]) in arrow)) different++
            arrow[FILENAME, home[word]]
            path[FILENAME, home[word]]
            arrows++
        }
    }
}
END {
    if (arrows < 2) {
        print folder(file[1]) ": only " arrows + 0 " uses found: the check itself is broken"
        exit 1
    }
    for (k = 1; k <= n; k++)
        for (i = 1; i <= n; i++)
            if ((file[i], file[k]) in path)
                for (j = 1; j <= n; j++)
                    if ((file[k], file[j]) in path) path[file[i], file[j]]
    for (i = 1; i <= n; i++) {
        circle = ""
        size = 0
        for (j = 1; j <= n; j++) {
            if (j > i && (file[i], file[j]) in arrow && (file[j], file[i]) in arrow) {
                mutual++
                if (folder(file[i]) != folder(file[j])) {
                    print file[i] " and " file[j] " use each other"
                    bad = 1
                }
            }
            if (j == i || ((file[i], file[j]) in path && (file[j], file[i]) in path)) {
                if (j < i) break
                circle = circle " " file[j]
                size++
            }
        }
        if (j > n && size > max) {
            print "a circle of " size " files:" circle
            bad = 1
        }
    }
    if (share != "" && mutual * 100 > share * different) {
        print folder(file[1]) ": " mutual " of " different " arrows between files have a counter-arrow: more than " share " %"
        bad = 1
    }
    exit bad
}
