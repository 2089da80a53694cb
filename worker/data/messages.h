/* messages.h - conversations: lists of (role, text)
 *
 * They come from rows that hold message lists, or from hh-rlhf's dialogues, where "\n\nHuman:" and
 * "\n\nAssistant:" begin a turn wherever they stand. */
#ifndef HA_WORKER_DATA_MESSAGES_H
#define HA_WORKER_DATA_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_buffer;
struct ha_error;
struct ha_json;

enum ha_role { HA_ROLE_SYSTEM, HA_ROLE_USER, HA_ROLE_ASSISTANT };

struct ha_message {
    enum ha_role role;
    const char *text; /* UTF-8 [size], not terminated; may hold zero bytes */
    size_t size;
};

/* Start with {0}, end with ha_messages_clear. */
struct ha_messages {
    struct ha_message *items;
    int64_t count, capacity;
    char *storage; /* where the texts lie; NULL: they are borrowed */
};

void ha_messages_clear(struct ha_messages *messages);

/* "system", "user" or "assistant". */
const char *ha_role_name(enum ha_role role);

/* Append one whose text is borrowed.  Returns 0 or -ENOMEM. */
int ha_messages_add(struct ha_messages *messages, enum ha_role role, const char *text, size_t size);

/* Append those of another list, texts borrowed from it.  Returns 0 or -ENOMEM. */
int ha_messages_join(struct ha_messages *messages, const struct ha_messages *more);

bool ha_message_equals(const struct ha_message *a, const struct ha_message *b);

/* Messages that both lists begin with. */
int64_t ha_messages_common(const struct ha_messages *a, const struct ha_messages *b);

/* A list of {"role", "content"}; ret owns the texts.  Refused by name, because templates make
 * something of them: another role (tool ...), content that is not a text, and further members that
 * are not null.  -EINVAL, -ENOTSUP or -ENOMEM. */
int ha_messages_from_json(const struct ha_json *array, struct ha_messages *ret,
                          struct ha_error *err);

/* Append the turns of a dialogue as hh-rlhf writes it, texts borrowed.  The text of a turn is what
 * stands between its marker and the next, less one space behind the marker; nothing else is taken
 * off.  Two turns of a role in a row stay two, empty turns stay.  -EINVAL when the text does not
 * begin with a marker, -ENOMEM. */
int ha_messages_from_dialogue(const char *text, size_t size, struct ha_messages *messages);

/* The other way, for people and judges to read: "\n\nHuman: ..." and so on ("\n\nSystem: ..." for
 * the system's), appended.  Returns 0, -ENOMEM or -EMSGSIZE. */
int ha_messages_to_dialogue(const struct ha_messages *messages, struct ha_buffer *text);

#endif
