/* curve.h - CURVE keys, roles, and the allow-list
 *
 * A key file (mode 0600, refused when group or others may read it):
 *
 *     public <40 characters of Z85>
 *     secret <40 characters of Z85>
 *
 * A public file, for the server's key and for each NAME.pub of the allow-list;
 * the role is there in the allow-list only:
 *
 *     public <40 characters of Z85>
 *     role   admin | submit | worker | judge | read
 *
 * Lines that begin with # are comments. */
#ifndef HA_COMMON_NET_CURVE_H
#define HA_COMMON_NET_CURVE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

enum { HA_CURVE_KEY_BYTES = 41 }; /* Z85 with its zero byte */

enum ha_net_role {
    HA_NET_ROLE_NONE, /* not (or no longer) in the allow-list */
    HA_NET_ROLE_READ,
    HA_NET_ROLE_SUBMIT,
    HA_NET_ROLE_WORKER,
    HA_NET_ROLE_JUDGE,
    HA_NET_ROLE_ADMIN
};

struct ha_curve_key {
    char public_key[HA_CURVE_KEY_BYTES];
    char secret_key[HA_CURVE_KEY_BYTES];
};

/* "admin", ... ("none" for HA_NET_ROLE_NONE). */
const char *ha_net_role_name(enum ha_net_role role);

/* Returns 0 or -EINVAL with the list of roles in the text. */
int ha_net_role_parse(const char *name, enum ha_net_role *ret_role, struct ha_error *err);

/* A new pair.  -ENOTSUP when libzmq was built without CURVE. */
int ha_curve_generate(struct ha_curve_key *ret_key, struct ha_error *err);

int ha_curve_key_save(const char *path, const struct ha_curve_key *key, struct ha_error *err);

/* Returns 0, -EACCES (readable by others; the text has the chmod that mends
 * it), -EINVAL or an error of reading. */
int ha_curve_key_load(const char *path, struct ha_curve_key *ret_key, struct ha_error *err);

/* Write a public file; role NONE: without a role line. */
int ha_curve_public_save(const char *path, const char *public_key, enum ha_net_role role,
                         struct ha_error *err);

/* ret_role may be NULL; it is NONE where the file has no role line. */
int ha_curve_public_load(const char *path, char ret_key[HA_CURVE_KEY_BYTES],
                         enum ha_net_role *ret_role, struct ha_error *err);

/* True for names that the allow-list takes: 1 to 64 of A-Z a-z 0-9 . _ - and
 * not beginning with a dot. */
bool ha_curve_name_valid(const char *name);

/* ---- the allow-list: a folder of NAME.pub ------------------------------------- */

struct ha_allow_entry {
    char *name;
    char public_key[HA_CURVE_KEY_BYTES];
    enum ha_net_role role;
};

struct ha_allow_list {
    struct ha_allow_entry *entries; /* sorted by public key */
    int64_t n_entries;
};

/* Read every *.pub of a folder.  A file that cannot be read, has no role, or
 * has the key of another file is an error that names it. */
int ha_allow_list_load(const char *folder, struct ha_allow_list **ret_list, struct ha_error *err);
void ha_allow_list_destroy(struct ha_allow_list *list);

/* NULL when the key is not in the list. */
const struct ha_allow_entry *ha_allow_list_find(const struct ha_allow_list *list,
                                                const char *public_key);

#endif
