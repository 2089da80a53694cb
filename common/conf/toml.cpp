/* toml.cpp - toml++ behind the interface of toml.h
 *
 * toml++ keeps members sorted by name; they are put back into the order of the
 * file by the place where each key was first written.  Its assertions end the
 * process on a few invalid documents that its parser refuses anyway, so they
 * are defined away.  Exceptions do not leave this file. */
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 32
#define TOML_ASSERT(expression) static_cast<void>(0)

#include "common/conf/toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
#include "common/base/error.h"
}

struct ha_toml {
    enum ha_toml_type type = HA_TOML_TABLE;
    std::string key;
    std::string text;
    int64_t integer = 0;
    double real = 0;
    bool boolean = false;
    bool has_key = false;
    int64_t line = 0;
    int64_t key_line = 0;
    int64_t key_column = 0;
    std::vector<std::unique_ptr<ha_toml>> children;
};

namespace
{

constexpr int KEY_DOTS_MAX = 32;

/* Steps over a string that begins at `at`; newlines in it count. */
size_t skip_string(std::string_view text, size_t at, int64_t &line)
{
    const char quote = text[at];
    const bool escapes = quote == '"';
    const std::string_view three = text.substr(at, 3);
    const bool multi = three.size() == 3 && three[1] == quote && three[2] == quote;

    for (at += multi ? 3 : 1; at < text.size(); at++) {
        if (text[at] == '\n') {
            if (!multi)
                return at;
            line++;
        } else if (escapes && text[at] == '\\') {
            at++;
            if (at < text.size() && text[at] == '\n')
                line++;
        } else if (text[at] == quote) {
            if (!multi)
                return at + 1;
            if (at + 2 < text.size() && text[at + 1] == quote && text[at + 2] == quote) {
                for (at += 3; at < text.size() && text[at] == quote; at++)
                    ;
                return at;
            }
        }
    }
    return at;
}

/* The line of the first key with too many parts, or 0.  Each part becomes a
 * table inside the last one, so this bounds the depth of the tree. */
int64_t find_deep_key(std::string_view text)
{
    int64_t line = 1;
    int dots = 0;

    for (size_t at = 0; at < text.size();) {
        const char c = text[at];

        if (c == '"' || c == '\'') {
            at = skip_string(text, at, line);
            continue;
        }
        if (c == '#') {
            at = std::min(text.find('\n', at), text.size());
            continue;
        }
        if (c == '.' && ++dots > KEY_DOTS_MAX)
            return line;
        if (c == '\n')
            line++;
        if (std::strchr("=,[]{}\n", c) && c != '\0')
            dots = 0;
        at++;
    }
    return 0;
}

template <typename T> std::string time_text(const T &value)
{
    std::ostringstream out;

    out << value;
    return out.str();
}

std::unique_ptr<ha_toml> convert(const toml::node &from)
{
    auto to = std::make_unique<ha_toml>();

    to->line = to->key_line = static_cast<int64_t>(from.source().begin.line);
    if (const toml::table *table = from.as_table()) {
        to->type = HA_TOML_TABLE;
        for (const auto &[key, value] : *table) {
            auto child = convert(value);

            child->key = std::string(key.str());
            child->has_key = true;
            child->key_line = static_cast<int64_t>(key.source().begin.line);
            child->key_column = static_cast<int64_t>(key.source().begin.column);
            to->children.push_back(std::move(child));
        }
        std::stable_sort(to->children.begin(), to->children.end(),
                         [](const auto &a, const auto &b) {
                             return a->key_line != b->key_line ? a->key_line < b->key_line
                                                               : a->key_column < b->key_column;
                         });
    } else if (const toml::array *array = from.as_array()) {
        to->type = HA_TOML_ARRAY;
        for (const toml::node &value : *array)
            to->children.push_back(convert(value));
    } else if (const auto *text = from.as_string()) {
        to->type = HA_TOML_STRING;
        to->text = text->get();
    } else if (const auto *integer = from.as_integer()) {
        to->type = HA_TOML_INT;
        to->integer = integer->get();
    } else if (const auto *real = from.as_floating_point()) {
        to->type = HA_TOML_REAL;
        to->real = real->get();
    } else if (const auto *boolean = from.as_boolean()) {
        to->type = HA_TOML_BOOL;
        to->boolean = boolean->get();
    } else {
        to->type = HA_TOML_TIME;
        if (const auto *date = from.as_date())
            to->text = time_text(date->get());
        else if (const auto *time = from.as_time())
            to->text = time_text(time->get());
        else if (const auto *both = from.as_date_time())
            to->text = time_text(both->get());
    }
    return to;
}

int parse(std::string_view text, const char *name, ha_toml **ret_root, ha_error *err)
{
    const int64_t deep = find_deep_key(text);

    if (deep)
        return ha_error_set(err, E2BIG, "%s:%lld: a key of more than %d parts", name,
                            static_cast<long long>(deep), KEY_DOTS_MAX + 1);

    const toml::parse_result result = toml::parse(text);

    if (!result) {
        const toml::parse_error &error = result.error();

        return ha_error_set(err, EINVAL, "%s:%lld: %s", name,
                            static_cast<long long>(error.source().begin.line),
                            std::string(error.description()).c_str());
    }
    *ret_root = convert(result.table()).release();
    return 0;
}

} // namespace

extern "C" {

int ha_toml_parse(const char *text, size_t size, const char *name, struct ha_toml **ret_root,
                  struct ha_error *err)
{
    if (size > HA_TOML_LIMIT_BYTES)
        return ha_error_set(err, E2BIG, "%s: larger than %d bytes", name, HA_TOML_LIMIT_BYTES);
    try {
        return parse(std::string_view(text, size), name, ret_root, err);
    } catch (const std::bad_alloc &) {
        return ha_error_set(err, ENOMEM, "%s: out of memory", name);
    }
}

int ha_toml_load(const char *path, struct ha_toml **ret_root, struct ha_error *err)
{
    std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen(path, "re"), std::fclose);
    std::string text;
    char block[1 << 16];

    if (!file)
        return ha_error_set(err, errno, "%s: %s", path, std::strerror(errno));
    try {
        while (text.size() <= HA_TOML_LIMIT_BYTES) {
            const size_t got = std::fread(block, 1, sizeof(block), file.get());

            if (got == 0)
                break;
            text.append(block, got);
        }
    } catch (const std::bad_alloc &) {
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    }
    if (std::ferror(file.get()))
        return ha_error_set(err, errno ? errno : EIO, "%s: %s", path,
                            std::strerror(errno ? errno : EIO));
    return ha_toml_parse(text.data(), text.size(), path, ret_root, err);
}

void ha_toml_destroy(struct ha_toml *root)
{
    delete root;
}

enum ha_toml_type ha_toml_type(const struct ha_toml *node)
{
    return node ? node->type : HA_TOML_TABLE;
}

bool ha_toml_is(const struct ha_toml *node, enum ha_toml_type type)
{
    return node && node->type == type;
}

const char *ha_toml_type_name(const struct ha_toml *node)
{
    static const char *const names[] = {"a string",       "an integer", "a number", "true or false",
                                        "a date or time", "an array",   "a table"};

    return node ? names[node->type] : "nothing";
}

int64_t ha_toml_line(const struct ha_toml *node)
{
    return node ? node->line : 0;
}

int64_t ha_toml_key_line(const struct ha_toml *node)
{
    return node ? node->key_line : 0;
}

const char *ha_toml_key(const struct ha_toml *node)
{
    return node && node->has_key ? node->key.c_str() : nullptr;
}

int64_t ha_toml_size(const struct ha_toml *node)
{
    return node ? static_cast<int64_t>(node->children.size()) : 0;
}

const struct ha_toml *ha_toml_at(const struct ha_toml *node, int64_t index)
{
    if (index < 0 || index >= ha_toml_size(node))
        return nullptr;
    return node->children[static_cast<size_t>(index)].get();
}

const struct ha_toml *ha_toml_get(const struct ha_toml *table, const char *key)
{
    if (!ha_toml_is(table, HA_TOML_TABLE))
        return nullptr;
    for (const auto &child : table->children)
        if (child->key == key)
            return child.get();
    return nullptr;
}

const char *ha_toml_string(const struct ha_toml *node, const char *otherwise)
{
    if (ha_toml_is(node, HA_TOML_STRING) || ha_toml_is(node, HA_TOML_TIME))
        return node->text.c_str();
    return otherwise;
}

size_t ha_toml_string_bytes(const struct ha_toml *node)
{
    return node ? node->text.size() : 0;
}

int64_t ha_toml_int(const struct ha_toml *node, int64_t otherwise)
{
    return ha_toml_is(node, HA_TOML_INT) ? node->integer : otherwise;
}

double ha_toml_real(const struct ha_toml *node, double otherwise)
{
    if (ha_toml_is(node, HA_TOML_INT))
        return static_cast<double>(node->integer);
    return ha_toml_is(node, HA_TOML_REAL) ? node->real : otherwise;
}

bool ha_toml_bool(const struct ha_toml *node, bool otherwise)
{
    return ha_toml_is(node, HA_TOML_BOOL) ? node->boolean : otherwise;
}

} /* extern "C" */
