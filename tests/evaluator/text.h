/* text.h - a text cut into words and sentences, and what can be counted in it */
#ifndef HA_TESTS_EVALUATOR_TEXT_H
#define HA_TESTS_EVALUATOR_TEXT_H

#include <stdbool.h>
#include <stddef.h>

enum { HA_EVALUATOR_WORDS = 4096, HA_EVALUATOR_SENTENCES = 512 };

/* Words in lower case; letters, digits and inner apostrophes.  What is beyond
 * the limits is not looked at. */
struct ha_evaluator_text {
    const char *raw;
    char *lower;        /* the words, each ended by a zero byte */
    const char **words; /* [n_words] */
    int n_words;
    int sentence_words[HA_EVALUATOR_SENTENCES]; /* words of each sentence */
    bool
        sentence_good[HA_EVALUATOR_SENTENCES]; /* begins with a capital or digit, ends with . ! ? */
    int n_sentences;
    int odd_bytes, bytes; /* control characters, invalid UTF-8, runs of one character */
};

/* Returns 0 or -ENOMEM. */
int ha_evaluator_text_read(const char *raw, struct ha_evaluator_text *ret_text);
void ha_evaluator_text_clear(struct ha_evaluator_text *text);

/* Four letters or more and not a common word. */
bool ha_evaluator_is_content(const char *word);

/* How many of the words stand in a list of words, which NULL ends. */
int ha_evaluator_count(const struct ha_evaluator_text *text, const char *const *list);

/* How many of the lists have at least one of their words in the text. */
int ha_evaluator_families(const struct ha_evaluator_text *text, const char *const *const *lists);

bool ha_evaluator_has(const struct ha_evaluator_text *text, const char *word);

int ha_evaluator_distinct(const struct ha_evaluator_text *text);

/* Distinct content words of a, and how many of them stand in b too. */
void ha_evaluator_shared(const struct ha_evaluator_text *a, const struct ha_evaluator_text *b,
                         int *ret_distinct, int *ret_shared);

/* Share of the runs of three words that stood there before; 0 below 3 words. */
double ha_evaluator_repeated(const struct ha_evaluator_text *text);

/* Words that English text is made of: articles, pronouns, prepositions, ... */
extern const char *const ha_evaluator_common_words[];

#endif
