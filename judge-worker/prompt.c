#include "judge-worker/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/dimensions.h"
#include "judge-worker/prompt_text.h"

struct insert {
    const char *mark;
    const char *text; /* NULL: the definitions */
};

static int find_template(const char *kind, const char **ret_text, struct ha_error *err)
{
    if (strcmp(kind, "paper") == 0)
        *ret_text = ha_judge_text_paper_user;
    else if (strcmp(kind, "guarded") == 0)
        *ret_text = ha_judge_text_guarded_user;
    else
        return ha_error_set(err, EINVAL,
                            "judge prompt \"%s\" is not known; use \"paper\" or \"guarded\"", kind);
    return 0;
}

/* The leftmost mark at or after text; NULL when there is none. */
static const char *next_mark(const char *text, const struct insert *inserts, int count,
                             const struct insert **ret_insert)
{
    const char *first = NULL;

    for (int i = 0; i < count; i++) {
        const char *at = strstr(text, inserts[i].mark);

        if (at && (!first || at < first)) {
            first = at;
            *ret_insert = &inserts[i];
        }
    }
    return first;
}

/* The definitions as JSON; no name or definition holds a character that JSON escapes. */
static int append_dimensions(struct ha_buffer *out)
{
    int r = ha_buffer_append_text(out, "[\n");

    for (int i = 0; i < HA_DIMENSIONS && r == 0; i++)
        r = ha_buffer_printf(out, "  {\"dimension\": \"%s\", \"definition\": \"%s\"}%s\n",
                             ha_dimensions[i].name, ha_dimensions[i].definition,
                             i + 1 < HA_DIMENSIONS ? "," : "");
    return r == 0 ? ha_buffer_append_text(out, "]") : r;
}

static int expand(const char *text, const struct insert *inserts, int count, struct ha_buffer *out)
{
    const struct insert *insert = NULL;
    const char *at;
    int r;

    while ((at = next_mark(text, inserts, count, &insert)) != NULL) {
        r = ha_buffer_append(out, text, (size_t)(at - text));
        if (r < 0)
            return r;
        r = insert->text ? ha_buffer_append_text(out, insert->text) : append_dimensions(out);
        if (r < 0)
            return r;
        text = at + strlen(insert->mark);
    }
    return ha_buffer_append_text(out, text);
}

int ha_judge_prompt_build(const struct ha_judge_prompt *prompt, struct ha_buffer *system,
                          struct ha_buffer *user, struct ha_error *err)
{
    const struct insert inserts[] = {
        {"(The dimensions defined in Table 6 are passed here in JSON format...)", NULL},
        {"[INSERT PROMPT]", prompt->prompt},
        {"[INSERT RESPONSE]", prompt->answer},
        {"[INSERT NONCE]", prompt->nonce ? prompt->nonce : ""},
    };
    const struct insert fault = {"[INSERT FAULT]", prompt->fault ? prompt->fault : ""};
    const char *text = NULL;
    int r;

    r = find_template(prompt->kind, &text, err);
    if (r < 0)
        return r;
    r = ha_buffer_append_text(system, ha_judge_text_system);
    if (r == 0)
        r = expand(text, inserts, 4, user);
    if (r == 0 && fault.text[0])
        r = expand(ha_judge_text_reask, &fault, 1, user);
    if (r < 0)
        return ha_error_set(err, -r, "the judge's prompt does not fit into memory");
    return 0;
}

int ha_judge_prompt_nonce(const char *prompt, const char *answer,
                          char ret_nonce[HA_JUDGE_NONCE_BYTES], struct ha_error *err)
{
    char nonce[HA_JUDGE_NONCE_BYTES];
    uint64_t bits;

    do {
        if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
            return ha_error_set(err, EIO, "no random numbers from the kernel");
        snprintf(nonce, sizeof nonce, "%016llx", (unsigned long long)bits);
    } while (strstr(prompt, nonce) || strstr(answer, nonce));
    memcpy(ret_nonce, nonce, sizeof nonce);
    return 0;
}

int ha_judge_prompt_digest(const char *kind, char ret_hex[HA_SHA256_HEX_BYTES],
                           struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_buffer bytes;
    const char *text = NULL;
    int r;

    r = find_template(kind, &text, err);
    if (r < 0)
        return r;
    ha_buffer_init(&bytes, 0);
    r = ha_buffer_append(&bytes, ha_judge_text_system, strlen(ha_judge_text_system) + 1);
    if (r == 0)
        r = ha_buffer_append(&bytes, text, strlen(text) + 1);
    if (r == 0)
        r = ha_buffer_append(&bytes, ha_judge_text_reask, strlen(ha_judge_text_reask) + 1);
    if (r == 0)
        r = append_dimensions(&bytes);
    if (r < 0) {
        ha_error_set(err, -r, "no memory to hash the judge's prompt");
    } else {
        ha_sha256(bytes.data, bytes.size, digest);
        ha_sha256_hex(digest, ret_hex);
    }
    ha_buffer_clear(&bytes);
    return r;
}
