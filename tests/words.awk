# SPDX-License-Identifier: BSD-2-Clause
# Words that the house has no use for as names, for the field has better ones: each as a part of an identifier between
# underscores. Prints FILE:LINE: IDENTIFIER: what it is called. Comments, texts and single names that other software gives
# us do not count.
#
#   awk -f code.awk -f words.awk FILE...
BEGIN {
    split("tee:store shrink:compress coder:encoder coded:encoded freshen:revalidate failing:error_backoff" \
        " parked:waiter flight:fetch_lock flights:claims flying:fetching" \
        " land:release lands:releases landed:released landing:release ticket:fetch_lock exchange:fetch memo:repeat" \
        " surplus:pipelined birth:fetch_seq marker:vary_record companion:ws_process least:min most:max wish:request" \
        " told:notified asked:requested beat:heartbeat outrun:superseded calmer:quiet", list, " ")
    for (i in list) { split(list[i], pair, ":"); better[pair[1]] = pair[2] }
    better["place_of"] = "slot_of"; better["tells_nothing"] = "is_inconclusive"; better["sane_id"] = "request_id_valid"
    better["field_text"] = "str"
    # at most, at least: English; the rest is libc's and C's
    split("F_SEAL_SHRINK atomic_exchange atomic_compare_exchange_strong atomic_compare_exchange_weak" \
        " atomic_compare_exchange_strong_explicit atomic_compare_exchange_weak_explicit atomic_exchange_explicit" \
        " most_verbose", list, " ")
    for (i in list) fine[list[i]]
}
FNR == 1 { comment = 0 }
{
    line = code($0)
    while (match(line, /[A-Za-z_][A-Za-z_0-9]*/)) {
        name = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        seen++
        if (name in fine || name in judged) { if (!judged[name]) continue }
        else judged[name] = better_name(name)
        if (judged[name]) { print FILENAME ":" FNR ": " name ": " judged[name]; bad = 1 }
    }
}
function better_name(name,    lower, n, i, part) {
    lower = tolower(name)
    if (lower in better) return better[lower] " is the word"
    gsub(/at_(most|least)/, "", lower)
    n = split(lower, part, "_")
    for (i = 1; i <= n; i++)
        if (part[i] in better) return better[part[i]] " is the word"
    return ""
}
END {
    if (seen < min) { print "words: only " seen + 0 " names found: the check itself is broken"; bad = 1 }
    exit bad
}
