#include "tests/evaluator/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/utf8.h"

const char *const ha_evaluator_common_words[] = {
    "a",     "about", "after", "all",    "also",   "am",    "an",     "and",   "any",   "are",
    "as",    "at",    "be",    "been",   "but",    "by",    "can",    "can't", "could", "did",
    "do",    "does",  "don't", "down",   "for",    "from",  "get",    "go",    "good",  "had",
    "has",   "have",  "he",    "help",   "her",    "here",  "him",    "his",   "how",   "i",
    "i'm",   "i'll",  "if",    "in",     "into",   "is",    "it",     "it's",  "its",   "just",
    "know",  "like",  "make",  "many",   "may",    "me",    "might",  "more",  "most",  "much",
    "my",    "need",  "no",    "not",    "of",     "on",    "one",    "only",  "or",    "other",
    "our",   "out",   "over",  "people", "really", "she",   "should", "so",    "some",  "something",
    "sure",  "take",  "than",  "that",   "that's", "the",   "their",  "them",  "then",  "there",
    "these", "they",  "thing", "things", "think",  "this",  "those",  "time",  "to",    "too",
    "try",   "up",    "us",    "use",    "very",   "want",  "was",    "way",   "we",    "well",
    "were",  "what",  "when",  "where",  "which",  "while", "who",    "why",   "will",  "with",
    "would", "yes",   "you",   "you'd",  "you're", "your",  NULL};

static bool word_byte(const char *at)
{
    unsigned char c = (unsigned char)*at;

    return isalnum(c) || c >= 0x80 || (c == '\'' && isalpha((unsigned char)at[1]));
}

static void count_bytes(struct ha_evaluator_text *text)
{
    size_t size = strlen(text->raw), length;
    int run = 0;

    for (size_t at = 0; at < size; at += length) {
        unsigned char c = (unsigned char)text->raw[at];

        length = ha_utf8_decode(text->raw + at, size - at, NULL);
        run = at > 0 && text->raw[at - 1] == text->raw[at] ? run + 1 : 0;
        text->bytes++;
        if (length == 0 || (c < 0x20 && c != '\n' && c != '\t') ||
            (run >= 3 && !isspace(c) && c != '.'))
            text->odd_bytes++;
        if (length == 0)
            length = 1;
    }
}

/* One sentence from *at on: its words go to the text. */
static const char *read_sentence(struct ha_evaluator_text *text, const char *at, char **lower)
{
    int first = text->n_words;
    bool capital = false, ended = false;

    while (*at && !ended && text->n_words < HA_EVALUATOR_WORDS) {
        if (word_byte(at)) {
            if (text->n_words == first)
                capital = isupper((unsigned char)*at) || isdigit((unsigned char)*at);
            text->words[text->n_words++] = *lower;
            for (; *at && word_byte(at); at++)
                *(*lower)++ = (char)tolower((unsigned char)*at);
            *(*lower)++ = '\0';
        } else {
            ended = strchr(".!?", *at) &&
                    (at[1] == '\0' || isspace((unsigned char)at[1]) || strchr("\"')", at[1]));
            at++;
        }
    }
    if (text->n_words > first && text->n_sentences < HA_EVALUATOR_SENTENCES) {
        text->sentence_words[text->n_sentences] = text->n_words - first;
        text->sentence_good[text->n_sentences++] = capital && ended;
    }
    return at;
}

int ha_evaluator_text_read(const char *raw, struct ha_evaluator_text *ret_text)
{
    struct ha_evaluator_text *text = ret_text;
    const char *at = raw;
    char *lower;

    memset(text, 0, sizeof *text);
    text->raw = raw;
    text->lower = malloc(strlen(raw) * 2 + 2);
    text->words = calloc(HA_EVALUATOR_WORDS, sizeof *text->words);
    if (!text->lower || !text->words) {
        ha_evaluator_text_clear(text);
        return -ENOMEM;
    }
    lower = text->lower;
    while (*at && text->n_words < HA_EVALUATOR_WORDS)
        at = read_sentence(text, at, &lower);
    count_bytes(text);
    return 0;
}

void ha_evaluator_text_clear(struct ha_evaluator_text *text)
{
    free(text->lower);
    free(text->words);
    memset(text, 0, sizeof *text);
}

static bool in_list(const char *word, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(word, *list) == 0)
            return true;
    }
    return false;
}

bool ha_evaluator_is_content(const char *word)
{
    return strlen(word) >= 4 && !in_list(word, ha_evaluator_common_words);
}

int ha_evaluator_count(const struct ha_evaluator_text *text, const char *const *list)
{
    int n = 0;

    for (int i = 0; i < text->n_words; i++)
        n += in_list(text->words[i], list);
    return n;
}

bool ha_evaluator_has(const struct ha_evaluator_text *text, const char *word)
{
    for (int i = 0; i < text->n_words; i++) {
        if (strcmp(text->words[i], word) == 0)
            return true;
    }
    return false;
}

int ha_evaluator_families(const struct ha_evaluator_text *text, const char *const *const *lists)
{
    int n = 0;

    for (; *lists; lists++)
        n += ha_evaluator_count(text, *lists) > 0;
    return n;
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int ha_evaluator_distinct(const struct ha_evaluator_text *text)
{
    const char **sorted = calloc((size_t)text->n_words + 1, sizeof *sorted);
    int n = 0;

    if (!sorted)
        return 0;
    memcpy(sorted, text->words, (size_t)text->n_words * sizeof *sorted);
    qsort(sorted, (size_t)text->n_words, sizeof *sorted, compare_words);
    for (int i = 0; i < text->n_words; i++)
        n += i == 0 || strcmp(sorted[i], sorted[i - 1]) != 0;
    free(sorted);
    return n;
}

void ha_evaluator_shared(const struct ha_evaluator_text *a, const struct ha_evaluator_text *b,
                         int *ret_distinct, int *ret_shared)
{
    *ret_distinct = 0;
    *ret_shared = 0;
    for (int i = 0; i < a->n_words; i++) {
        bool seen = !ha_evaluator_is_content(a->words[i]);

        for (int j = 0; j < i && !seen; j++)
            seen = strcmp(a->words[i], a->words[j]) == 0;
        if (seen)
            continue;
        ++*ret_distinct;
        *ret_shared += ha_evaluator_has(b, a->words[i]);
    }
}

double ha_evaluator_repeated(const struct ha_evaluator_text *text)
{
    int n = text->n_words - 2, repeated = 0;

    for (int i = 1; i < n; i++) {
        for (int j = 0; j < i; j++) {
            if (strcmp(text->words[i], text->words[j]) == 0 &&
                strcmp(text->words[i + 1], text->words[j + 1]) == 0 &&
                strcmp(text->words[i + 2], text->words[j + 2]) == 0) {
                repeated++;
                break;
            }
        }
    }
    return n > 0 ? (double)repeated / n : 0;
}
