/* Chat templates: what the formats write (golden), which templates are known, dialogues as
 * messages, pairs and prompts as conversations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"
#include "tests/unit/data/fixture.h"
#include "worker/data/chat.h"
#include "worker/data/pairs.h"
#include "worker/data/prompts.h"

#define HUMAN "\\n\\nHuman: "
#define BOT "\\n\\nAssistant:"

static struct ha_json *golden(void)
{
    struct ha_json *all = NULL;

    assert_int_equal(ha_json_load(HA_SOURCE_ROOT "/tests/golden/chat.json", 1 << 20, &all, NULL),
                     0);
    assert_true(ha_json_size(ha_json_get(all, "conversations")) > 10);
    assert_int_equal(ha_json_size(ha_json_get(all, "formats")), 6);
    return all;
}

static struct ha_chat chat_of(const struct ha_json *format)
{
    struct ha_chat chat = {.bos = ha_json_string(ha_json_get(format, "bos"), NULL),
                           .eos = ha_json_string(ha_json_get(format, "eos"), NULL)};

    assert_int_equal(
        ha_chat_format_parse(ha_json_string(ha_json_get(format, "format"), ""), &chat.format), 0);
    return chat;
}

static void check_render(const struct ha_chat *chat, const struct ha_messages *messages,
                         enum ha_chat_end end, const struct ha_json *expected, int64_t index)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append_text(&text, "before "), 0);
    r = ha_chat_render(chat, messages, end, &text);
    if (ha_json_is(expected, HA_JSON_NULL)) {
        assert_int_equal(r, -EINVAL);
        assert_string_equal(ha_buffer_text(&text), "before ");
    } else if (r < 0 || text.size != ha_json_string_size(expected) + 7 ||
               memcmp(text.data + 7, ha_json_string(expected, ""), text.size - 7) != 0) {
        fail_msg("%s, conversation %lld, end %d: %d \"%s\", not \"%s\"",
                 ha_chat_format_name(chat->format), (long long)index, (int)end, r,
                 ha_buffer_text(&text), ha_json_string(expected, ""));
    }
    ha_buffer_clear(&text);
}

static void writes_as_the_templates(void **state)
{
    static const char *const ends[] = {"closed", "generate", "continue"};
    struct ha_json *all = golden();
    const struct ha_json *conversations = ha_json_get(all, "conversations");

    (void)state;
    for (int64_t f = 0; f < ha_json_size(ha_json_get(all, "formats")); f++) {
        const struct ha_json *format = ha_json_at(ha_json_get(all, "formats"), f);
        struct ha_chat chat = chat_of(format);

        for (int64_t i = 0; i < ha_json_size(conversations); i++) {
            const struct ha_json *wanted = ha_json_at(ha_json_get(format, "cases"), i);
            struct ha_messages messages = {0};

            assert_int_equal(ha_messages_from_json(ha_json_at(conversations, i), &messages, NULL),
                             0);
            for (int end = 0; end < 3; end++)
                check_render(&chat, &messages, (enum ha_chat_end)end,
                             ha_json_get(wanted, ends[end]), i);
            ha_messages_clear(&messages);
        }
    }
    ha_json_destroy(all);
}

static void known_templates(void **state)
{
    static const struct {
        const char *model;
        enum ha_chat_format format;
    } models[] = {{"llama-2-demo", HA_CHAT_LLAMA2},
                  {"llama-3.1-demo", HA_CHAT_LLAMA31},
                  {"qwen2.5-demo", HA_CHAT_QWEN25},
                  {"qwen3-demo", HA_CHAT_QWEN3}};
    struct ha_json *all = golden();
    enum ha_chat_format format;
    struct ha_chat chat;

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct ha_tokenizer *t = demo_tokenizer(models[i].model);

        assert_int_equal(ha_chat_open("chat", t, &chat, NULL), 0);
        assert_int_equal(chat.format, models[i].format);
        assert_true(ha_tokenizer_token_to_id(t, ha_chat_end_token(&chat)) >= 0);
        ha_tokenizer_destroy(t);
    }
    for (int64_t f = 0; f < ha_json_size(ha_json_get(all, "formats")); f++) {
        const struct ha_json *golden_format = ha_json_at(ha_json_get(all, "formats"), f);
        const struct ha_json *text = ha_json_get(golden_format, "template");

        if (!ha_json_is(text, HA_JSON_STRING))
            continue;
        assert_int_equal(
            ha_chat_recognise(ha_json_string(text, ""), ha_json_string_size(text), &format), 0);
        assert_string_equal(ha_chat_format_name(format),
                            ha_json_string(ha_json_get(golden_format, "format"), ""));
        assert_int_equal(
            ha_chat_recognise(ha_json_string(text, ""), ha_json_string_size(text) - 1, &format),
            -ENOENT);
    }
    assert_int_equal(ha_chat_recognise("", 0, &format), -ENOENT);
    ha_json_destroy(all);
}

static void refused(const struct ha_tokenizer *t, const char *setting, int code, const char *part)
{
    struct ha_error err = {0};
    struct ha_chat chat;

    assert_int_equal(ha_chat_open(setting, t, &chat, &err), code);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

/* A copy of a demo model's tokenizer with other text in its config. */
static struct ha_tokenizer *changed_tokenizer(const char *model, const char *config,
                                              const char *jinja)
{
    char *from = ha_format(HA_SOURCE_ROOT "/deploy/demo/models/%s/tokenizer.json", model);
    char *to = ha_path_join(test_dir, "tokenizer.json"), *text;
    struct ha_tokenizer *t = NULL;

    (void)remove(to);
    assert_int_equal(symlink(from, to), 0);
    free(put("tokenizer_config.json", config));
    text = ha_path_join(test_dir, "chat_template.jinja");
    (void)remove(text);
    if (jinja)
        free(put("chat_template.jinja", jinja));
    assert_int_equal(ha_tokenizer_load(test_dir, &t, NULL), 0);
    (void)remove(text);
    free(text);
    free(from);
    free(to);
    return t;
}

static void unknown_templates(void **state)
{
    static const char plain[] = "{% for message in messages %}{{'<|im_start|>' + message['role'] + "
                                "'\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
                                "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                                "{% endif %}";
    struct ha_tokenizer *none = changed_tokenizer("qwen3-demo", "{}", NULL);
    struct ha_tokenizer *other =
        changed_tokenizer("qwen3-demo", "{\"chat_template\": \"{{ messages }}\"}", NULL);
    struct ha_tokenizer *list = changed_tokenizer(
        "qwen3-demo",
        "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}, {\"name\": \"default\", "
        "\"template\": \"y\"}]}",
        NULL);
    struct ha_tokenizer *file =
        changed_tokenizer("qwen3-demo", "{\"chat_template\": \"{{ messages }}\"}", plain);
    struct ha_chat chat;

    (void)state;
    refused(none, "chat", -ENOTSUP, "the model has no chat template; use \"hh\", or name");
    refused(other, "chat", -ENOTSUP, "is none that is known; name the format that it writes: ");
    refused(none, "zephyr", -EINVAL, "template \"zephyr\" is none of hh, chat, llama-2,");
    refused(none, "llama-3.1", -EINVAL, "<|start_header_id|>, which is no token of the model");
    refused(none, "llama-2", -EINVAL, "bos_token");
    assert_int_equal(ha_chat_open("qwen2.5", none, &chat, NULL), 0);
    assert_int_equal(chat.format, HA_CHAT_QWEN25);
    assert_string_equal(ha_tokenizer_chat_template(list), "y");
    assert_int_equal(ha_chat_open("chat", file, &chat, NULL), 0);
    assert_int_equal(chat.format, HA_CHAT_CHATML);
    ha_tokenizer_destroy(none);
    ha_tokenizer_destroy(other);
    ha_tokenizer_destroy(list);
    ha_tokenizer_destroy(file);
}

/* The grid's settings and the formats are the same names. */
static void names_of_the_grid(void **state)
{
    const struct ha_setting *setting = ha_section_find(&ha_sweep_model_section, "template");
    char *choices = ha_strdup(setting->choices), *rest = choices, *name;
    enum ha_chat_format format;
    int64_t formats = 0;

    (void)state;
    assert_string_equal(strtok_r(choices, "|", &rest), "hh");
    assert_string_equal(strtok_r(NULL, "|", &rest), "chat");
    while ((name = strtok_r(NULL, "|", &rest)) != NULL) {
        assert_int_equal(ha_chat_format_parse(name, &format), 0);
        assert_int_equal(format, formats++);
    }
    assert_int_equal(formats, HA_CHAT_QWEN3 + 1);
    free(choices);
}

static void parsed(const char *text, const char *expected)
{
    struct ha_messages messages = {0};
    struct ha_buffer got;
    int r = ha_messages_from_dialogue(text, strlen(text), &messages);

    ha_buffer_init(&got, 0);
    assert_int_equal(r, expected ? 0 : -EINVAL);
    for (int64_t i = 0; i < messages.count; i++)
        assert_int_equal(ha_buffer_printf(&got, "%c<%.*s>", ha_role_name(messages.items[i].role)[0],
                                          (int)messages.items[i].size, messages.items[i].text),
                         0);
    assert_string_equal(ha_buffer_text(&got), expected ? expected : "");
    ha_buffer_clear(&got);
    ha_messages_clear(&messages);
}

static void dialogues_as_messages(void **state)
{
    (void)state;
    parsed("\n\nHuman: a\n\nAssistant: b", "u<a>a<b>");
    parsed("\n\nHuman:a \n\nAssistant:  b\n", "u<a >a< b\n>");
    parsed("\n\nHuman: a\n\n\nAssistant: b\n\nAssistant:\n\nAssistant:", "u<a\n>a<b>a<>a<>");
    parsed("\n\nHuman: Human: x\nAssistant: \n\nhuman: y", "u<Human: x\nAssistant: \n\nhuman: y>");
    parsed("\n\nAssistant: b\n\nHuman: a\n\nHuman: c", "a<b>u<a>u<c>");
    parsed("\n\nHuman:", "u<>");
    parsed("\n\nHuman", NULL);
    parsed("Human: a\n\nAssistant: b", NULL);
    parsed(" \n\nHuman: a", NULL);
    parsed("", NULL);
}

/* ---- pairs ---- */

static struct ha_rows *rows_of(const char *text)
{
    static int files;
    char *name = ha_format("rows%d.jsonl", files++), *path = put(name, text);
    struct ha_rows *rows = NULL;
    struct ha_error err = {0};

    if (ha_rows_open((const char *const *)&path, 1, &rows, &err) < 0)
        fail_msg("%s", err.text);
    free(name);
    free(path);
    return rows;
}

/* Text of ids, special tokens written out. */
static void assert_decoded(const struct ha_tokenizer *t, const int32_t *ids, int64_t n,
                           const char *expected)
{
    char *text = NULL;

    assert_int_equal(ha_tokenizer_decode(t, ids, n, false, &text, NULL, NULL), 0);
    assert_string_equal(text, expected);
    free(text);
}

static struct ha_pair pair_of_row(const struct ha_pair_set *set, int64_t row)
{
    for (int64_t i = 0; i < set->n_pairs; i++)
        if (set->row[i] == row)
            return ha_pair_at(set, i);
    fail_msg("row %lld is not in the set", (long long)row);
    return (struct ha_pair){0};
}

static struct ha_pair_set *pairs_of(const char *text, struct ha_tokenizer *t, enum ha_split split)
{
    struct ha_rows *rows = rows_of(text);
    struct ha_pair_set *set = NULL;
    struct ha_error err = {0};
    struct ha_chat chat;

    assert_int_equal(ha_chat_open("chat", t, &chat, NULL), 0);
    if (ha_pair_set_create(
            rows, t,
            &(struct ha_pair_options){.split = split, .chat = &chat, .require_prompt = true}, 0, 1,
            &set, &err) < 0)
        fail_msg("%s", err.text);
    ha_rows_close(rows);
    return set;
}

static void pairs_as_conversations(void **state)
{
    /* Parts in the last answer, in an earlier question, and in nothing. */
    static const char text[] =
        "{\"chosen\": \"" HUMAN "hi" BOT " one\", \"rejected\": \"" HUMAN "hi" BOT " only\"}\n"
        "{\"chosen\": \"" HUMAN "hi" BOT " a" HUMAN "b" BOT " c\", \"rejected\": \"" HUMAN "hi" BOT
        " a" HUMAN "d" BOT " e\"}\n"
        "{\"chosen\": \"" HUMAN "hi" BOT " same\", \"rejected\": \"" HUMAN "hi" BOT " same\"}\n"
        "{\"chosen\": \"no turn\", \"rejected\": \"" HUMAN "hi" BOT " a\"}\n"
        "{\"chosen\": \"" HUMAN "x" BOT " a\", \"rejected\": \"" HUMAN "y" BOT " a\"}\n";
    struct ha_tokenizer *t = demo_tokenizer("qwen2.5-demo");
    struct ha_pair_set *set = pairs_of(text, t, HA_SPLIT_TRL);
    struct ha_pair pair = pair_of_row(set, 0);

    (void)state;
#define SYSTEM                                                                                     \
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."     \
    "<|im_end|>\n"
    assert_int_equal(set->report.pairs, 3);
    assert_int_equal(set->report.dropped_no_dialogue, 2);
    assert_int_equal(set->report.equal_texts, 1);
    assert_int_equal(set->report.prompts_differ, 1);
    assert_decoded(t, pair.prompt, pair.n_prompt,
                   SYSTEM "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_decoded(t, pair.chosen, pair.n_chosen, "one<|im_end|>\n");
    assert_decoded(t, pair.rejected, pair.n_rejected, "only<|im_end|>\n");
    /* TRL's prompt ends with the answer that both have, and a generation prompt in vain. */
    pair = pair_of_row(set, 1);
    assert_decoded(t, pair.prompt, pair.n_prompt,
                   SYSTEM "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
                          "<|im_start|>assistant\n");
    assert_int_equal(set->report.mangled_boundary, 1);
    ha_pair_set_destroy(set);

    set = pairs_of(text, t, HA_SPLIT_TURN);
    pair = pair_of_row(set, 1);
    assert_decoded(t, pair.prompt, pair.n_prompt,
                   SYSTEM "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_decoded(t, pair.rejected, pair.n_rejected,
                   "a<|im_end|>\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\ne<|im_end|>"
                   "\n");
    assert_int_equal(set->report.mangled_boundary, 0);
    assert_int_equal(set->report.no_turn, 0);
    ha_pair_set_destroy(set);
    ha_tokenizer_destroy(t);
}

static void refused_by_the_template(void **state)
{
    static const char text[] =
        "{\"chosen\": \"" HUMAN "hi" BOT " one\", \"rejected\": \"" HUMAN "hi" BOT " two\"}\n"
        "{\"chosen\": \"" HUMAN "hi" HUMAN "ho" BOT " c\", \"rejected\": \"" HUMAN "hi" BOT
        " a\"}\n";
    struct ha_tokenizer *t = demo_tokenizer("llama-2-demo");
    struct ha_pair_set *set = pairs_of(text, t, HA_SPLIT_TRL);
    struct ha_pair pair = pair_of_row(set, 0);

    (void)state;
    assert_int_equal(set->n_pairs, 1);
    assert_int_equal(set->report.dropped_by_template, 1);
    /* One BOS, and it is the template's. */
    assert_int_equal(pair.prompt[0], ha_tokenizer_bos_id(t));
    assert_int_not_equal(pair.prompt[1], ha_tokenizer_bos_id(t));
    assert_int_equal(pair.chosen[pair.n_chosen - 1], ha_tokenizer_eos_id(t));
    ha_pair_set_destroy(set);
    ha_tokenizer_destroy(t);
}

static void prompts_of_texts(void **state)
{
    static const char text[] =
        "{\"prompt\": \"" HUMAN "hi" BOT "\", \"chosen\": \" a\", \"rejected\": \"b\"}\n"
        "{\"prompt\": \"just ask\", \"chosen\": \" a\", \"rejected\": \"b\"}\n";
    struct ha_tokenizer *t = demo_tokenizer("qwen3-demo");
    struct ha_pair_set *set = pairs_of(text, t, HA_SPLIT_TRL);
    struct ha_pair pair = pair_of_row(set, 0);

    (void)state;
    assert_decoded(
        t, pair.prompt, pair.n_prompt,
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    assert_decoded(t, pair.chosen, pair.n_chosen, "a<|im_end|>\n");
    pair = pair_of_row(set, 1);
    assert_decoded(t, pair.prompt, pair.n_prompt,
                   "<|im_start|>user\njust ask<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
                   "</think>\n\n");
    assert_decoded(t, pair.rejected, pair.n_rejected, "b<|im_end|>\n");
    ha_pair_set_destroy(set);
    ha_tokenizer_destroy(t);
}

/* ---- prompts ---- */

static void prompts_keep_their_text(void **state)
{
    struct ha_rows *texts =
        rows_of("{\"chosen\": \"" HUMAN "one" BOT " x\", \"rejected\": \"y\"}\n"
                "{\"chosen\": \"" HUMAN "two" BOT " a" BOT " b\", \"rejected\": \"y\"}\n");
    struct ha_rows *lists = rows_of(
        "{\"chosen\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", "
        "\"content\": \"x\"}], \"rejected\": [{\"role\": \"user\", \"content\": \"z\"}]}\n");
    struct ha_tokenizer *t = demo_tokenizer("llama-2-demo");
    struct ha_prompt_set *set = NULL;
    struct ha_error err = {0};
    struct ha_chat chat;

    (void)state;
    assert_int_equal(ha_chat_open("chat", t, &chat, NULL), 0);
    assert_int_equal(ha_prompt_set_create(texts, t, &chat, 0, 0, 1, &set, &err), 0);
    assert_int_equal(set->n_prompts, 1);
    assert_int_equal(set->report.dropped_by_template, 1);
    assert_string_equal(set->prompts[0].text.data, "\n\nHuman: one\n\nAssistant:");
    assert_decoded(t, set->prompts[0].ids, set->prompts[0].n_ids, "<s> [INST] one [/INST]");
    ha_prompt_set_destroy(set);
    /* The same prompt as a list is the same prompt to a reader, also where it is looked for. */
    assert_int_equal(ha_prompt_set_create(lists, t, &chat, 0, 0, 1, &set, &err), 0);
    assert_string_equal(set->prompts[0].text.data, "\n\nHuman: one\n\nAssistant:");
    assert_int_equal(ha_prompt_set_mark_seen(set, texts, 0, 1, &err), 0);
    assert_int_equal(set->report.seen_in_training, 1);
    ha_prompt_set_destroy(set);
    set = NULL;
    assert_int_equal(ha_prompt_set_create(lists, t, NULL, 0, 0, 1, &set, &err), -EINVAL);
    assert_non_null(strstr(err.text, "rows of messages need a chat template"));
    assert_null(set);
    ha_rows_close(texts);
    ha_rows_close(lists);
    ha_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_as_the_templates), cmocka_unit_test(known_templates),
        cmocka_unit_test(unknown_templates),       cmocka_unit_test(names_of_the_grid),
        cmocka_unit_test(dialogues_as_messages),   cmocka_unit_test(pairs_as_conversations),
        cmocka_unit_test(refused_by_the_template), cmocka_unit_test(prompts_of_texts),
        cmocka_unit_test(prompts_keep_their_text),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
