#include "common/conf/blocks.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"

bool ha_blocks_range(const char *strategy, int64_t layers, int64_t *ret_first, int64_t *ret_end)
{
    int64_t n = layers / 3, r = layers % 3;
    int64_t local = n + (r > 0), mid = local + n + (r > 1);

    if (strcmp(strategy, "local") == 0) {
        *ret_first = 0;
        *ret_end = local;
    } else if (strcmp(strategy, "mid") == 0) {
        *ret_first = local;
        *ret_end = mid;
    } else if (strcmp(strategy, "global") == 0) {
        *ret_first = mid;
        *ret_end = layers;
    } else if (strcmp(strategy, "full") == 0) {
        *ret_first = 0;
        *ret_end = layers;
    } else if (strcmp(strategy, "base") == 0) {
        *ret_first = *ret_end = 0;
    } else {
        return false;
    }
    return true;
}

bool ha_blocks_builtin(const char *strategy)
{
    int64_t first, end;

    return ha_blocks_range(strategy, 0, &first, &end);
}

static int malformed(const char *text, struct ha_error *err)
{
    return ha_error_set(err, EINVAL,
                        "\"%.60s\" is not a list of layers; write \"18-27\", \"0-3,7\" or [18, 20]",
                        text);
}

/* Digits at *at, moved behind them.  At most HA_LAYERS_MAX. */
static bool take_number(const char **at, int64_t *ret_number)
{
    int64_t number = 0;

    if (**at < '0' || **at > '9')
        return false;
    for (; **at >= '0' && **at <= '9'; ++*at)
        if (number < HA_LAYERS_MAX)
            number = number * 10 + (**at - '0');
    *ret_number = number < HA_LAYERS_MAX ? number : HA_LAYERS_MAX;
    return true;
}

static void take_spaces(const char **at)
{
    while (**at == ' ')
        ++*at;
}

/* Mark the layers of the list in used[HA_LAYERS_MAX]. */
static int mark_layers(const char *text, int64_t total, bool *used, struct ha_error *err)
{
    const char *at = text;

    do {
        int64_t first, last;

        take_spaces(&at);
        if (!take_number(&at, &first))
            return malformed(text, err);
        last = first;
        take_spaces(&at);
        if (*at == '-') {
            at++;
            take_spaces(&at);
            if (!take_number(&at, &last))
                return malformed(text, err);
            take_spaces(&at);
        }
        if (last < first)
            return ha_error_set(err, EINVAL, "layers %lld-%lld run backwards", (long long)first,
                                (long long)last);
        if (last >= HA_LAYERS_MAX || (total > 0 && last >= total))
            return ha_error_set(err, EINVAL, "layer %lld does not exist; the last one is %lld",
                                (long long)last,
                                (long long)(total > 0 ? total : HA_LAYERS_MAX) - 1);
        for (int64_t layer = first; layer <= last; layer++) {
            if (used[layer])
                return ha_error_set(err, EINVAL, "layer %lld is listed twice", (long long)layer);
            used[layer] = true;
        }
    } while (*at++ == ',');
    return at[-1] == '\0' ? 0 : malformed(text, err);
}

int ha_layers_parse(const char *text, int64_t total, struct ha_layers *ret_layers,
                    struct ha_error *err)
{
    bool used[HA_LAYERS_MAX] = {false};
    struct ha_layers layers = {0};
    int r;

    if (*text == '\0')
        return ha_error_set(err, EINVAL, "no layers are listed");
    r = mark_layers(text, total, used, err);
    if (r < 0)
        return r;
    layers.items = ha_calloc(HA_LAYERS_MAX, sizeof(*layers.items));
    if (!layers.items)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t layer = 0; layer < HA_LAYERS_MAX; layer++)
        if (used[layer])
            layers.items[layers.count++] = layer;
    *ret_layers = layers;
    return 0;
}

bool ha_layers_are_auto(const char *spec)
{
    return spec && strncmp(spec, "auto", 4) == 0;
}

int ha_layers_parse_auto(const char *spec, int64_t total, int64_t *ret_count, struct ha_error *err)
{
    const char *at = spec + strlen("auto");
    int64_t count;

    if (*at++ != ':' || !take_number(&at, &count) || *at != '\0')
        return ha_error_set(err, EINVAL, "\"%.60s\" is no rule; write \"auto:8\" for 8 layers",
                            spec);
    if (count < 1)
        return ha_error_set(err, EINVAL, "\"%.60s\" trains nothing; at least one layer", spec);
    if (total > 0 && count > total)
        return ha_error_set(err, EINVAL, "\"%.60s\" asks for more than the model's %lld layers",
                            spec, (long long)total);
    *ret_count = count;
    return 0;
}

int ha_layers_choose(const double *values, int64_t total, int64_t count, int64_t *ret_first,
                     double *ret_share, struct ha_error *err)
{
    double sum = 0, most = -1;
    int64_t first = 0;

    if (count < 1 || count > total)
        return ha_error_set(err, EINVAL, "%lld of %lld layers cannot be chosen", (long long)count,
                            (long long)total);
    for (int64_t i = 0; i < total; i++) {
        if (!isfinite(values[i]) || values[i] < 0)
            return ha_error_set(err, EINVAL, "the norm of layer %lld is no norm: %g", (long long)i,
                                values[i]);
        sum += values[i];
    }
    /* Each window is added up anew, so that equal ones have equal sums. */
    for (int64_t i = 0; i + count <= total; i++) {
        double window = 0;

        for (int64_t k = 0; k < count; k++)
            window += values[i + k];
        if (window > most) {
            most = window;
            first = i;
        }
    }
    *ret_first = first;
    *ret_share = sum > 0 ? most / sum : 0;
    return 0;
}

int ha_layers_of(const char *strategy, const char *spec, int64_t total,
                 struct ha_layers *ret_layers, struct ha_error *err)
{
    struct ha_layers layers = {0};
    int64_t first, end;

    if (total < 1 || total > HA_LAYERS_MAX)
        return ha_error_set(err, EINVAL, "a model of %lld layers; 1 to %d are possible",
                            (long long)total, HA_LAYERS_MAX);
    if (ha_layers_are_auto(spec)) {
        int r = ha_layers_parse_auto(spec, total, &end, err);

        if (r == 0)
            *ret_layers = layers;
        return r;
    }
    if (spec)
        return ha_layers_parse(spec, total, ret_layers, err);
    if (!ha_blocks_range(strategy, total, &first, &end))
        return ha_error_set(err, EINVAL, "strategy \"%.60s\" has no layers of its own", strategy);
    layers.items = ha_calloc(end - first, sizeof(*layers.items));
    if (!layers.items)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t layer = first; layer < end; layer++)
        layers.items[layers.count++] = layer;
    *ret_layers = layers;
    return 0;
}

char *ha_layers_text(const struct ha_layers *layers)
{
    struct ha_buffer text;
    int64_t i = 0;
    int r = 0;

    if (layers->count == 0)
        return ha_strdup("none");
    ha_buffer_init(&text, 0);
    while (r == 0 && i < layers->count) {
        int64_t first = layers->items[i], last = first;

        for (i++; i < layers->count && layers->items[i] == last + 1; i++)
            last++;
        r = last > first
                ? ha_buffer_printf(&text, "%s%lld-%lld", text.size ? "," : "", (long long)first,
                                   (long long)last)
                : ha_buffer_printf(&text, "%s%lld", text.size ? "," : "", (long long)first);
    }
    if (r < 0) {
        ha_buffer_clear(&text);
        return NULL;
    }
    return ha_buffer_detach(&text);
}

void ha_layers_clear(struct ha_layers *layers)
{
    free(layers->items);
    *layers = (struct ha_layers){0};
}
