/* The keys of a clustered installation: a folder with the coordinator's own
 * pair (server.key, 0600), its public half (server.pub), and the allow-list
 * (clients/NAME.pub).  Only list --connect talks to a coordinator; one that runs
 * sees when files of its allow-list change. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/net/curve.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"
#include "coordinator/report/table.h"

/* Saves a new pair; both files are new. */
static int save_pair(const char *secret_path, const char *public_path, enum ha_net_role role,
                     struct ha_error *err)
{
    struct ha_curve_key key;
    int r;

    if (ha_path_exists(secret_path) || ha_path_exists(public_path))
        return ha_error_set(err, EEXIST, "%s is there already; keys are never overwritten",
                            ha_path_exists(secret_path) ? secret_path : public_path);
    r = ha_curve_generate(&key, err);
    if (r == 0)
        r = ha_curve_key_save(secret_path, &key, err);
    if (r == 0)
        r = ha_curve_public_save(public_path, key.public_key, role, err);
    explicit_bzero(&key, sizeof(key));
    return r;
}

static int init_keys(const char *dir, struct ha_error *err)
{
    char *clients = ha_path_join(dir, "clients"), *secret = ha_path_join(dir, "server.key");
    char *public = ha_path_join(dir, "server.pub");
    int r = clients && secret && public ? 0 : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        r = ha_path_make_durable(clients, 0700, err);
    if (r == 0)
        r = save_pair(secret, public, HA_NET_ROLE_NONE, err);
    if (r == 0)
        printf("%s: the coordinator's key (keep it there); %s: give it to everyone\n", secret,
               public);
    free(clients);
    free(secret);
    free(public);
    return r;
}

static int add_key(const char *dir, const char *name, const char *role_name, struct ha_error *err)
{
    char *secret = NULL, *public = NULL;
    enum ha_net_role role;
    int r;

    if (!ha_curve_name_valid(name))
        return ha_error_set(err, EINVAL, "'%s' is no name for a key: 1 to 64 of A-Z a-z 0-9 . _ -",
                            name);
    r = ha_net_role_parse(role_name, &role, err);
    if (r < 0)
        return r;
    secret = ha_format("%s/%s.key", dir, name);
    public = ha_format("%s/clients/%s.pub", dir, name);
    r = secret && public ? save_pair(secret, public, role, err)
                         : ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (r == 0)
        printf("%s: bring it to %s's machine (mode 0600), with %s/server.pub; role %s\n", secret,
               name, dir, role_name);
    free(secret);
    free(public);
    return r;
}

static int revoke_key(const char *dir, const char *name, struct ha_error *err)
{
    char *public;
    int r = 0;

    if (!ha_curve_name_valid(name))
        return ha_error_set(err, EINVAL, "'%s' is no name for a key", name);
    public = ha_format("%s/clients/%s.pub", dir, name);
    if (!public)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (unlink(public) < 0)
        r = ha_error_set(err, errno, "%s: %s", public, strerror(errno));
    else
        printf(
            "%s is no longer in the allow-list: a coordinator of this machine refuses it from now "
            "on; send SIGHUP to one that reads this folder over the network\n",
            name);
    free(public);
    return r;
}

/* The workers whose names belong to a key, apart by commas; the caller frees. */
static char *workers_of(const struct ha_wire_workers_reply *reply, const char *key)
{
    char *text = ha_strdup("");

    for (int64_t i = 0; text && i < reply->n_workers; i++) {
        char *longer;

        if (strcmp(reply->workers[i].key, key) != 0)
            continue;
        longer = ha_format("%s%s%s", text, text[0] ? ", " : "", reply->workers[i].name);
        free(text);
        text = longer;
    }
    return text;
}

/* reply: NULL where no coordinator was asked. */
static int print_keys(const struct ha_allow_list *allowed,
                      const struct ha_wire_workers_reply *reply, struct ha_error *err)
{
    struct ha_table *table = ha_table_create("");

    ha_table_column_text(table, "NAME");
    ha_table_column_text(table, "ROLE");
    ha_table_column_text(table, "PUBLIC KEY");
    if (reply)
        ha_table_column_text(table, "WORKERS");
    for (int64_t i = 0; i < allowed->n_entries; i++) {
        char *workers = reply ? workers_of(reply, allowed->entries[i].name) : NULL;

        ha_table_text(table, allowed->entries[i].name);
        ha_table_text(table, ha_net_role_name(allowed->entries[i].role));
        ha_table_text(table, allowed->entries[i].public_key);
        if (reply)
            ha_table_text(table, workers && workers[0] ? workers : "-");
        free(workers);
    }
    return ha_output_table(table, HA_OUTPUT_PLAIN, err);
}

/* With --connect, a coordinator says which workers each key has. */
static int list_keys(const struct ha_arguments *arguments, const char *dir, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_WORKERS_REQUEST}, *reply = NULL;
    char *clients = ha_path_join(dir, "clients");
    struct ha_session *session = NULL;
    struct ha_allow_list *allowed = NULL;
    int r = clients ? ha_allow_list_load(clients, &allowed, err)
                    : ha_error_set(err, ENOMEM, "hactl: out of memory");

    free(clients);
    if (r == 0 && ha_arguments_given(arguments, "connect")) {
        r = ha_session_open(arguments, &session, err);
        if (r == 0)
            r = ha_link_call(ha_session_link(session), &request, HA_WIRE_WORKERS_REPLY, 0, &reply,
                             err);
    }
    if (r == 0)
        r = print_keys(allowed, reply ? &reply->body.workers_reply : NULL, err);
    ha_wire_message_destroy(reply);
    if (session)
        ha_session_close(session);
    ha_allow_list_destroy(allowed);
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *what = ha_arguments_at(arguments, 0, ""), *name = ha_arguments_at(arguments, 1, "");
    const char *dir = ha_arguments_value(arguments, "keys", "keys");
    const char *role = ha_arguments_value(arguments, "role", "");

    if (strcmp(what, "init") == 0)
        return init_keys(dir, err);
    if (strcmp(what, "list") == 0)
        return list_keys(arguments, dir, err);
    if (strcmp(what, "revoke") == 0 && name[0])
        return revoke_key(dir, name, err);
    if (strcmp(what, "add") == 0 && name[0] && role[0])
        return add_key(dir, name, role, err);
    return ha_error_set(err, EINVAL,
                        "hactl keys: give init, list, add NAME --role ROLE, or revoke "
                        "NAME");
}

static const struct ha_option options[] = {
    {"keys", "DIR", "folder of the keys (default: keys)"},
    {"role", "ROLE", "admin, submit, worker, judge or read (for add)"},
};

const struct ha_verb ha_verb_keys = {
    .name = "keys",
    .command =
        {
            .name = "hactl keys",
            .synopsis = "init | add NAME | revoke NAME | list",
            .summary = "make keys and keep the allow-list of a clustered installation",
            .example = "hactl keys add node7 --role worker --keys /etc/hierarchical-align/keys",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
            .min_positional = 1,
            .max_positional = 2,
        },
    .run = run,
};
