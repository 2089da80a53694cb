/* dimensions.h - the 16 dimensions an answer is scored on
 *
 * Names and order are those of the paper's Table 6; the categories are its
 * section 4.1 (the placing of SyntacticComplexity, TopicCoherence and Overall
 * is this project's).  Judges, the store and the report agree through this
 * table. */
#ifndef HA_COMMON_CONF_DIMENSIONS_H
#define HA_COMMON_CONF_DIMENSIONS_H

enum { HA_DIMENSIONS = 16 };

struct ha_dimension {
    const char *name;
    const char *category;
    const char *definition;
};

extern const struct ha_dimension ha_dimensions[HA_DIMENSIONS];

/* Position of a name (exact match) in the table, or -1. */
int ha_dimension_index(const char *name);

/* Position of "Overall". */
int ha_dimension_overall(void);

#endif
