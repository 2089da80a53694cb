/* fold.h - long text in lines for a terminal
 *
 *   for (; *text; text = ha_fold_next(text, n)) {
 *       n = ha_fold(text, width);
 *       printf("%.*s\n", n, text);
 *   } */
#ifndef HA_COMMON_BASE_FOLD_H
#define HA_COMMON_BASE_FOLD_H

/* Columns of help and of printed settings. */
enum { HA_FOLD_COLUMNS = 100 };

/* How many bytes of text its first line takes: up to the last space that leaves it no wider than
 * width, a longer word whole, all of a text that fits.  Text is ASCII, without line breaks. */
int ha_fold(const char *text, int width);

/* Where the next line begins after one of n bytes: behind the spaces. */
const char *ha_fold_next(const char *text, int n);

#endif
