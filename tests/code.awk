# SPDX-License-Identifier: BSD-2-Clause
# What a line of C has besides comments and texts, for the scripts that look at its names. `comment` says whether a
# comment goes on; a script that reads several files sets it to 0 at the beginning of each.
function code(line) {
    gsub(/"(\\.|[^"\\])*"/, "", line)
    gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", line)
    if (comment) {
        if (!match(line, /\*\//)) return ""
        line = substr(line, RSTART + 2)
        comment = 0
    }
    if (match(line, /\/\*/)) {
        comment = 1
        line = substr(line, 1, RSTART - 1)
    }
    return line
}
