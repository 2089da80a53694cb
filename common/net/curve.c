#include "common/net/curve.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/secret.h"
#include "common/io/file.h"

enum { MAX_FILE_BYTES = 4096, MAX_NAME_BYTES = 64, KEY_DIGITS = HA_CURVE_KEY_BYTES - 1 };

static const char *const role_names[] = {
    [HA_NET_ROLE_NONE] = "none",     [HA_NET_ROLE_READ] = "read",   [HA_NET_ROLE_SUBMIT] = "submit",
    [HA_NET_ROLE_WORKER] = "worker", [HA_NET_ROLE_JUDGE] = "judge", [HA_NET_ROLE_ADMIN] = "admin",
};

const char *ha_net_role_name(enum ha_net_role role)
{
    return role_names[role];
}

int ha_net_role_parse(const char *name, enum ha_net_role *ret_role, struct ha_error *err)
{
    for (int i = HA_NET_ROLE_READ; i <= HA_NET_ROLE_ADMIN; i++) {
        if (strcmp(role_names[i], name) == 0) {
            *ret_role = (enum ha_net_role)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "%s is not a role: admin, submit, worker, judge or read",
                        name);
}

bool ha_curve_name_valid(const char *name)
{
    size_t length =
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return length > 0 && length <= MAX_NAME_BYTES && name[length] == '\0' && name[0] != '.';
}

int ha_curve_generate(struct ha_curve_key *ret_key, struct ha_error *err)
{
    struct ha_curve_key key;

    ha_secret_guard();
    if (!zmq_has("curve") || zmq_curve_keypair(key.public_key, key.secret_key) < 0)
        return ha_error_set(err, ENOTSUP,
                            "this libzmq was built without CURVE: encrypted addresses cannot be "
                            "used; use ipc:// or a libzmq with CURVE");
    *ret_key = key;
    return 0;
}

/* ---- files -------------------------------------------------------------------------------- */

static bool key_text_valid(const char *text)
{
    uint8_t binary[32];

    return strlen(text) == KEY_DIGITS && zmq_z85_decode(binary, text) != NULL;
}

struct key_file {
    char public_key[HA_CURVE_KEY_BYTES];
    char secret_key[HA_CURVE_KEY_BYTES];
    char role[16];
};

/* Read one "word value" line into the struct. */
static int parse_line(const char *path, int number, char *line, struct key_file *ret_file,
                      struct ha_error *err)
{
    char *rest = line, *word, *value, *more;

    word = strtok_r(rest, " \t\r", &rest);
    value = strtok_r(NULL, " \t\r", &rest);
    more = strtok_r(NULL, " \t\r", &rest);
    if (!word || word[0] == '#')
        return 0;
    if (value && !more) {
        char *to = strcmp(word, "public") == 0   ? ret_file->public_key
                   : strcmp(word, "secret") == 0 ? ret_file->secret_key
                                                 : NULL;

        if (to && key_text_valid(value)) {
            memcpy(to, value, HA_CURVE_KEY_BYTES);
            return 0;
        }
        if (strcmp(word, "role") == 0 && strlen(value) < sizeof(ret_file->role)) {
            (void)snprintf(ret_file->role, sizeof(ret_file->role), "%s", value);
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "%s:%d: not a line of a key file (see `hactl keys`)", path,
                        number);
}

static int read_key_file(const char *path, struct key_file *ret_file, struct ha_error *err)
{
    char *text, *line, *rest;
    int number = 0;
    size_t size;
    int r = ha_file_read(path, MAX_FILE_BYTES, &text, &size, err);

    if (r < 0)
        return r;
    memset(ret_file, 0, sizeof(*ret_file));
    rest = text;
    while (r == 0 && (line = strsep(&rest, "\n")) != NULL)
        r = parse_line(path, ++number, line, ret_file, err);
    explicit_bzero(text, size);
    free(text);
    if (r == 0 && ret_file->public_key[0] == '\0')
        r = ha_error_set(err, EINVAL, "%s has no public key", path);
    return r;
}

int ha_curve_key_save(const char *path, const struct ha_curve_key *key, struct ha_error *err)
{
    char *text = ha_format("# secret: keep to yourself\npublic %s\nsecret %s\n", key->public_key,
                           key->secret_key);
    int r;

    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = ha_file_write(path, text, strlen(text), 0600, err);
    explicit_bzero(text, strlen(text));
    free(text);
    return r;
}

int ha_curve_key_load(const char *path, struct ha_curve_key *ret_key, struct ha_error *err)
{
    struct key_file file;
    struct stat st;
    char derived[HA_CURVE_KEY_BYTES];
    int r;

    ha_secret_guard();
    if (stat(path, &st) < 0)
        return ha_error_set(err, errno, "cannot read key file %s: %s", path, strerror(errno));
    if ((st.st_mode & 077) != 0)
        return ha_error_set(err, EACCES,
                            "key file %s can be read by others (mode %03o); run: chmod 600 %s",
                            path, (unsigned)(st.st_mode & 0777), path);
    r = read_key_file(path, &file, err);
    if (r == 0 && file.secret_key[0] == '\0')
        r = ha_error_set(err, EINVAL, "%s has no secret key", path);
    if (r == 0 &&
        (zmq_curve_public(derived, file.secret_key) < 0 || strcmp(derived, file.public_key) != 0))
        r = ha_error_set(err, EINVAL, "%s: the public key does not belong to the secret one", path);
    if (r == 0) {
        memcpy(ret_key->public_key, file.public_key, HA_CURVE_KEY_BYTES);
        memcpy(ret_key->secret_key, file.secret_key, HA_CURVE_KEY_BYTES);
    }
    explicit_bzero(&file, sizeof(file));
    return r;
}

int ha_curve_public_save(const char *path, const char *public_key, enum ha_net_role role,
                         struct ha_error *err)
{
    char *text = role == HA_NET_ROLE_NONE
                     ? ha_format("public %s\n", public_key)
                     : ha_format("public %s\nrole %s\n", public_key, ha_net_role_name(role));
    int r;

    if (!text)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = ha_file_write(path, text, strlen(text), 0644, err);
    free(text);
    return r;
}

int ha_curve_public_load(const char *path, char ret_key[HA_CURVE_KEY_BYTES],
                         enum ha_net_role *ret_role, struct ha_error *err)
{
    enum ha_net_role role = HA_NET_ROLE_NONE;
    struct key_file file;
    int r = read_key_file(path, &file, err);

    if (r == 0 && file.secret_key[0])
        r = ha_error_set(err, EINVAL, "%s holds a secret key; give the .pub file", path);
    if (r == 0 && file.role[0] && ha_net_role_parse(file.role, &role, err) < 0)
        r = ha_error_prefix(err, "%s", path);
    if (r == 0) {
        memcpy(ret_key, file.public_key, HA_CURVE_KEY_BYTES);
        if (ret_role)
            *ret_role = role;
    }
    explicit_bzero(&file, sizeof(file));
    return r;
}
