/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * completion: scripts by which bash and zsh complete our command line, made from the table of
 * methods and, for KEY=VALUE, from that of the configuration's keys.
 *
 * Each script has a function that knows, for "NOUN" and "NOUN VERB", which words may follow. What
 * only the daemon knows (names of limits, metrics) is asked of it when it is wanted.
 */
#include "admin/polderctl.h"
#include "polder/recent.h"

#include <string.h>

static const struct {
    const char *section, *key, *live;
} keys[] = {
#define SECTION(id, name, type, live)
#define KEY(section, key, type, min, max, initial, member, inherits, live, help)                   \
    {#section, #key, #live},
#define LIST KEY
#include "libshared/tables/config_keys.def"
#undef SECTION
#undef KEY
#undef LIST
};

static const struct {
    const char *noun, *section;
} sections[] = {{"cache", "CACHE"}, {"limit", "LIMIT"}, {"ws", "WEBSOCKET"}};

/* Values of an argument, by the noun and its placeholder; "$(...)" is asked of the daemon. */
static const struct {
    const char *noun, *value, *words;
} values[] = {
    {"limit", "NAME", "$(_polderctl_ask limit list | awk 'NR > 1 { print $1 }')"},
    {"history", "METRIC", "$(_polderctl_ask history | awk 'NR > 1 { print $1 }')"},
    {"watch", "NOUN", RECENT_NOUNS},
    {"fleet", "HOST",
     "$(_polderctl_ask fleet | awk '/^host +self/ { on = 1; next } on { print $1 }')"},
    {"log", "LEVEL", "error warning info debug"},
};

static bool first_of_noun(int i)
{
    for (int k = 0; k < i; k++)
        if (!strcmp(rpc_methods[k].noun, rpc_methods[i].noun))
            return false;
    return true;
}

static void put_nouns(FILE *to)
{
    for (int i = 0; i < RPC_METHODS; i++)
        if (first_of_noun(i))
            fprintf(to, "%s ", rpc_methods[i].noun);
    fputs("help version", to);
}

static void put_verbs(FILE *to, const char *noun)
{
    for (int i = 0; i < RPC_METHODS; i++)
        if (!strcmp(rpc_methods[i].noun, noun) && *rpc_methods[i].verb)
            fprintf(to, "%s ", rpc_methods[i].verb);
}

/* ---- the words of one command ---- */

static void put_keys(FILE *to, const char *noun)
{
    const char *section = "";
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (!strcmp(sections[i].noun, noun))
            section = sections[i].section;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(keys[i].section, section) && !strcmp(keys[i].live, "LIVE"))
            fprintf(to, "%s= ", keys[i].key);
}

static void put_values(FILE *to, const char *noun, const char *value)
{
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (!strcmp(values[i].noun, noun) && !strcmp(values[i].value, value))
            fprintf(to, "%s ", values[i].words);
}

static void put_argument(FILE *to, const char *noun, const struct rpc_arg *a)
{
    if (a->kind == RPC_ARG_FLAG || a->kind == RPC_ARG_OPTION)
        fprintf(to, "--%s ", a->name);
    else if (a->kind == RPC_ARG_SET)
        put_keys(to, noun);
    else
        put_values(to, noun, a->value);
}

static void put_words(FILE *to, int method)
{
    struct rpc_args args;
    if (rpc_args_parse(rpc_methods[method].args, &args))
        return;
    for (unsigned i = 0; i < args.n; i++)
        put_argument(to, rpc_methods[method].noun, &args.at[i]);
    fputs("--json --help", to);
}

/* "noun verb") or "noun "*) */
static void put_cases(FILE *to)
{
    for (int i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        if (!*m->verb)
            continue;
        fprintf(to, "    \"%s %s\") candidates=\"", m->noun, m->verb);
        put_words(to, i);
        fputs("\" ;;\n", to);
    }
    for (int i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        if (*m->verb)
            continue;
        fprintf(to, "    \"%s \"*) candidates=\"", m->noun);
        put_words(to, i);
        fputs("\" ;;\n", to);
    }
    for (int i = 0; i < RPC_METHODS; i++) {
        if (!first_of_noun(i) || !*rpc_methods[i].verb)
            continue;
        fprintf(to, "    \"%s \"*) candidates=\"", rpc_methods[i].noun);
        put_verbs(to, rpc_methods[i].noun);
        fputs("\" ;;\n", to);
    }
    fputs("    \" \") candidates=\"", to);
    put_nouns(to);
    fputs(" --json --help --version --socket --timeout\" ;;\n", to);
}

/* ---- scripts ---- */

/* Sets candidates from the words before the one that is completed; both shells run it. */
static void put_choice(FILE *to)
{
    fputs(
        "_polderctl_ask() {\n"
        "    polderctl ${_polderctl_at:+-s \"$_polderctl_at\"} --timeout 1s \"$@\" 2>/dev/null\n"
        "}\n"
        "_polderctl_choose() {\n"
        "    local word noun='' verb='' skip=''\n"
        "    _polderctl_at='' candidates=''\n"
        "    for word in \"$@\"; do\n"
        "        case $skip:$word in\n"
        "        s:*) _polderctl_at=$word skip='' ;;\n"
        "        t:*) skip='' ;;\n"
        "        :-s | :--socket) skip=s ;;\n"
        "        :-t | :--timeout) skip=t ;;\n"
        "        :-*) ;;\n"
        "        *) if [ -z \"$noun\" ]; then noun=$word; elif [ -z \"$verb\" ]; then verb=$word; "
        "fi ;;\n"
        "        esac\n"
        "    done\n"
        "    [ -z \"$skip\" ] || return 0\n"
        "    case \"$noun $verb\" in\n",
        to);
    put_cases(to);
    fputs("    esac\n"
          "}\n",
          to);
}

static void put_bash(FILE *to)
{
    fputs("# bash completion for polderctl, made by polderctl --completion bash\n", to);
    put_choice(to);
    fputs("_polderctl() {\n"
          "    local candidates _polderctl_at words word cur=${COMP_WORDS[COMP_CWORD]}\n"
          "    COMPREPLY=()\n"
          "    _polderctl_choose \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"\n"
          "    [ -n \"$candidates\" ] || return 0\n"
          "    read -r -d '' -a words <<< \"$candidates\"\n" /* not compgen -W, which runs them */
          "    for word in \"${words[@]}\"; do\n"
          "        [[ $word == \"$cur\"* ]] || continue\n"
          "        printf -v word %q \"$word\"\n"
          "        COMPREPLY+=(\"$word\")\n"
          "    done\n"
          "    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace "
          "2>/dev/null\n"
          "    return 0\n"
          "}\n"
          "complete -o bashdefault -o default -F _polderctl polderctl\n",
          to);
}

static void put_zsh(FILE *to)
{
    fputs("#compdef polderctl\n"
          "# zsh completion for polderctl, made by polderctl --completion zsh\n",
          to);
    put_choice(to);
    fputs("_polderctl() {\n"
          "    local candidates _polderctl_at\n"
          "    local -a all\n"
          "    _polderctl_choose \"${(@)words[2,CURRENT-1]}\"\n"
          "    all=(${=candidates})\n"
          "    (( $#all )) || { _files; return; }\n"
          "    compadd -S '' -- ${(M)all:#*=}\n" /* a value follows at once */
          "    compadd -- ${all:#*=}\n"
          "}\n"
          "_polderctl \"$@\"\n",
          to);
}

int completion_print(FILE *to, const char *shell)
{
    if (!strcmp(shell, "bash"))
        put_bash(to);
    else if (!strcmp(shell, "zsh"))
        put_zsh(to);
    else {
        fputs("polderctl: --completion takes bash or zsh\n", stderr);
        return CTL_USAGE;
    }
    return fflush(to) ? CTL_FAILED : CTL_DONE;
}
