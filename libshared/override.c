/* SPDX-License-Identifier: BSD-2-Clause */
/* override: see override.h. */
#include "polder/override.h"

#define TEXT(name)                                                                                 \
    {                                                                                              \
        name, sizeof name - 1                                                                      \
    }

static const struct {
    struct field_text name;
    bool replaces;
} known[] = {
#define OVERRIDE(name, replaces) {TEXT(name), replaces},
#include "libshared/tables/override_fields.def"
#undef OVERRIDE
};

static const struct field_text defaults[] = {
#define OVERRIDE(name, replaces) TEXT(name),
#include "libshared/tables/override_fields.def"
#undef OVERRIDE
};

static char override_plain(char c)
{
    return c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool override_matches(struct field_text name, struct field_text pattern)
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

bool override_is_listed(struct field_text name, const struct field_text *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (override_matches(name, list[i]))
            return true;
    return false;
}

const struct field_text *override_defaults(uint32_t *n)
{
    *n = sizeof defaults / sizeof *defaults;
    return defaults;
}

bool override_replaces_request(struct field_text name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].replaces && override_matches(name, known[i].name))
            return true;
    return false;
}
