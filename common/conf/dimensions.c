#include "common/conf/dimensions.h"

#include <string.h>

const struct ha_dimension ha_dimensions[HA_DIMENSIONS] = {
    {"GrammarFluency", "Language",
     "Grammatical accuracy, sentence completeness, and general fluency."},
    {"TokenRobustness", "Language", "Consistency in semantic integrity across input variations."},
    {"Conciseness", "Language", "Balance between brevity and information completeness."},
    {"SyntacticComplexity", "Language",
     "Diversity of syntactic structures and linguistic richness."},
    {"CoherenceLogic", "Logic", "Logical flow and causal relationships between sentences."},
    {"TopicCoherence", "Logic", "Relevance and focus on the central query themes."},
    {"Tone", "Task", "Contextual appropriateness of the response style."},
    {"Factuality", "Content", "Empirical accuracy of claims and information."},
    {"KnowledgeDepth", "Content",
     "Detail level, including material properties or design features."},
    {"CrossDomain", "Content", "Generalizability across diverse scenarios (e.g., sports, urban)."},
    {"Creativity", "Content", "Novelty and originality of the proposed suggestions."},
    {"Safety", "Safety & Ethics", "Absence of hazardous advice or high-risk content."},
    {"EthicsSensitivity", "Safety & Ethics",
     "Adherence to ethical norms and exclusionary-free language."},
    {"MetaReflection", "Meta", "Self-awareness and explicit statement of guidance limitations."},
    {"InstructionFollowing", "Task",
     "Degree to which the user\xe2\x80\x99s specific constraints are addressed."},
    {"Overall", "Meta", "Holistic quality assessment synthesized across all dimensions."},
};

int ha_dimension_index(const char *name)
{
    for (int i = 0; i < HA_DIMENSIONS; i++)
        if (strcmp(ha_dimensions[i].name, name) == 0)
            return i;
    return -1;
}

int ha_dimension_overall(void)
{
    return HA_DIMENSIONS - 1;
}
