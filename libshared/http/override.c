/* SPDX-License-Identifier: BSD-2-Clause */
/* override: see override.h. */
#include "polder/override.h"

#define TEXT(name)                                                                                 \
    {                                                                                              \
        name, sizeof name - 1                                                                      \
    }

static const struct {
    struct str name;
    bool replaces;
} known[] = {
#define OVERRIDE(name, replaces) {TEXT(name), replaces},
#include "libshared/tables/override_fields.def"
#undef OVERRIDE
};

static const struct str defaults[] = {
#define OVERRIDE(name, replaces) TEXT(name),
#include "libshared/tables/override_fields.def"
#undef OVERRIDE
};

static char override_plain(char c)
{
    return c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool override_matches(struct str name, struct str pattern)
{
    const bool prefix = pattern.len && pattern.at[pattern.len - 1] == '*';
    const size_t len = pattern.len - prefix;
    if (prefix ? name.len < len : name.len != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (override_plain(name.at[i]) != pattern.at[i])
            return false;
    return true;
}

bool override_is_listed(struct str name, const struct str *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (override_matches(name, list[i]))
            return true;
    return false;
}

const struct str *override_defaults(uint32_t *n)
{
    *n = sizeof defaults / sizeof *defaults;
    return defaults;
}

bool override_replaces_request(struct str name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].replaces && override_matches(name, known[i].name))
            return true;
    return false;
}
