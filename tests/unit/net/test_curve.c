#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/net/socket.h"

static char *folder;

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-curve-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    return folder ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    ha_path_remove_tree(folder, NULL);
    free(folder);
    return 0;
}

/* Paths below the test's folder; each lives until the next four. */
static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int next;

    next = (next + 1) % 4;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", folder, name);
    return paths[next];
}

static void write_text(const char *name, const char *text, unsigned mode)
{
    assert_int_equal(ha_file_write(in_folder(name), text, strlen(text), mode, NULL), 0);
}

static void keeps_keys_in_private_files(void **state)
{
    struct ha_curve_key key, again, other;
    struct ha_error err = {0};
    struct stat st;

    (void)state;
    assert_int_equal(ha_curve_generate(&key, &err), 0);
    assert_int_equal(ha_curve_generate(&other, &err), 0);
    assert_string_not_equal(key.secret_key, other.secret_key);
    assert_int_equal(ha_curve_key_save(in_folder("k"), &key, &err), 0);
    assert_int_equal(stat(in_folder("k"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(ha_curve_key_load(in_folder("k"), &again, &err), 0);
    assert_string_equal(again.public_key, key.public_key);
    assert_string_equal(again.secret_key, key.secret_key);
    assert_int_equal(chmod(in_folder("k"), 0640), 0);
    assert_int_equal(ha_curve_key_load(in_folder("k"), &again, &err), -EACCES);
    assert_non_null(strstr(err.text, "chmod 600"));
}

static void expect_bad_key(const char *text, const char *says)
{
    struct ha_curve_key key;
    struct ha_error err = {0};

    write_text("bad", text, 0600);
    assert_int_equal(ha_curve_key_load(in_folder("bad"), &key, &err), -EINVAL);
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void refuses_damaged_key_files(void **state)
{
    struct ha_curve_key key, other;
    char text[256];

    (void)state;
    assert_int_equal(ha_curve_generate(&key, NULL), 0);
    assert_int_equal(ha_curve_generate(&other, NULL), 0);
    expect_bad_key("", "no public key");
    expect_bad_key("public abc\n", "bad:1: not a line");
    expect_bad_key("hello\n", "bad:1: not a line");
    snprintf(text, sizeof(text), "public %s\n", key.public_key);
    expect_bad_key(text, "no secret key");
    snprintf(text, sizeof(text), "public %s\nsecret %s\n", other.public_key, key.secret_key);
    expect_bad_key(text, "does not belong");
    snprintf(text, sizeof(text), "public %s\nsecret %s x\n", key.public_key, key.secret_key);
    expect_bad_key(text, "bad:2: not a line");
}

static void add_client(const char *name, const char *public_key, enum ha_net_role role)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/clients/%s.pub", folder, name);
    assert_int_equal(ha_curve_public_save(path, public_key, role, NULL), 0);
}

static void reads_the_allow_list(void **state)
{
    struct ha_curve_key keys[3];
    struct ha_allow_list *list;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(mkdir(in_folder("clients"), 0700), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ha_curve_generate(&keys[i], &err), 0);
    add_client("w1", keys[0].public_key, HA_NET_ROLE_WORKER);
    add_client("boss", keys[1].public_key, HA_NET_ROLE_ADMIN);
    write_text("clients/notes.txt", "not a key", 0644);
    assert_int_equal(ha_allow_list_load(in_folder("clients"), &list, &err), 0);
    assert_int_equal(list->n_entries, 2);
    assert_string_equal(ha_allow_list_find(list, keys[0].public_key)->name, "w1");
    assert_int_equal(ha_allow_list_find(list, keys[1].public_key)->role, HA_NET_ROLE_ADMIN);
    assert_null(ha_allow_list_find(list, keys[2].public_key));
    ha_allow_list_destroy(list);

    add_client("twin", keys[0].public_key, HA_NET_ROLE_READ);
    assert_int_equal(ha_allow_list_load(in_folder("clients"), &list, &err), -EINVAL);
    assert_non_null(strstr(err.text, "same key"));
    add_client("twin", keys[2].public_key, HA_NET_ROLE_NONE);
    assert_int_equal(ha_allow_list_load(in_folder("clients"), &list, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no role"));
    write_text("clients/twin.pub", "role king\n", 0644);
    assert_true(ha_allow_list_load(in_folder("clients"), &list, &err) < 0);
    assert_int_equal(ha_allow_list_load(in_folder("nowhere"), &list, &err), -ENOENT);
}

/* In a process that never saw a key a core file would be written. */
static void holds_keys_out_of_core_files(void **state)
{
    struct ha_curve_key key;
    int status;
    pid_t child;

    (void)state;
    assert_int_equal(ha_curve_generate(&key, NULL), 0);
    assert_int_equal(ha_curve_key_save(in_folder("own"), &key, NULL), 0);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        if (ha_curve_key_load(in_folder("own"), &key, NULL) < 0)
            _exit(2);
        _exit(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WEXITSTATUS(status) == 1)
        skip(); /* under a sanitizer, which has to read the process */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void knows_names_and_roles(void **state)
{
    enum ha_net_role role;

    (void)state;
    assert_true(ha_curve_name_valid("w-1.node_2"));
    assert_false(ha_curve_name_valid(""));
    assert_false(ha_curve_name_valid(".hidden"));
    assert_false(ha_curve_name_valid("a/b"));
    assert_false(ha_curve_name_valid("a b"));
    assert_int_equal(ha_net_role_parse("judge", &role, NULL), 0);
    assert_int_equal(role, HA_NET_ROLE_JUDGE);
    assert_string_equal(ha_net_role_name(role), "judge");
    assert_int_equal(ha_net_role_parse("none", &role, NULL), -EINVAL);
}

/* ---- over the wire ------------------------------------------------------------------------ */

static struct {
    int n;
    ha_peer peer;
    char name[65];
    enum ha_net_role role;
} served;
static int n_answers;

static void serve(void *context, const struct ha_server_message *message)
{
    (void)context;
    served.n++;
    served.peer = message->peer;
    served.role = message->role;
    (void)snprintf(served.name, sizeof(served.name), "%s", message->name);
}

static void answer(void *context, const void *data, size_t size)
{
    (void)context;
    (void)data;
    (void)size;
    n_answers++;
}

static void run(struct ha_loop *loop, const int *counter, int at_least, int64_t ms)
{
    int64_t deadline = ha_clock_boot_ms() + ms;

    while (*counter < at_least && ha_clock_boot_ms() < deadline)
        assert_int_equal(ha_loop_turn(loop, 20, NULL), 0);
}

static struct ha_net *client_net(const char *name)
{
    struct ha_curve_key key;
    struct ha_net *net;
    struct ha_error err = {0};

    assert_int_equal(ha_curve_generate(&key, &err), 0);
    assert_int_equal(ha_curve_key_save(in_folder(name), &key, &err), 0);
    if (strcmp(name, "stranger") != 0)
        add_client(name, key.public_key, HA_NET_ROLE_WORKER);
    assert_int_equal(ha_net_create(&net, &err), 0);
    if (ha_net_secure_client(net, in_folder(name), in_folder("server.pub"), &err) < 0)
        fail_msg("%s", err.text);
    return net;
}

static void lets_in_only_who_is_in_the_list(void **state)
{
    const struct ha_server_handlers handlers = {.message = serve};
    struct ha_net *server_net, *friend_net, *stranger_net;
    struct ha_client *friend, *stranger;
    struct ha_server *server;
    struct ha_loop *loop;
    struct ha_curve_key key;
    struct ha_error err = {0};
    char public_key[HA_CURVE_KEY_BYTES];

    (void)state;
    assert_int_equal(mkdir(in_folder("clients"), 0700), 0);
    assert_int_equal(ha_curve_generate(&key, &err), 0);
    assert_int_equal(ha_curve_key_save(in_folder("server"), &key, &err), 0);
    assert_int_equal(
        ha_curve_public_save(in_folder("server.pub"), key.public_key, HA_NET_ROLE_NONE, &err), 0);
    friend_net = client_net("friend");
    stranger_net = client_net("stranger");

    assert_int_equal(ha_loop_create(&loop, &err), 0);
    assert_int_equal(ha_net_create(&server_net, &err), 0);
    assert_int_equal(
        ha_server_create(server_net, loop, "tcp://127.0.0.1:*", NULL, &handlers, &server, &err),
        -EACCES);
    if (ha_net_secure_server(server_net, in_folder("server"), in_folder("clients"), &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(
        ha_server_create(server_net, loop, "tcp://127.0.0.1:*", NULL, &handlers, &server, &err), 0);
    assert_int_equal(ha_client_create(stranger_net, loop, ha_server_endpoint(server), NULL, answer,
                                      NULL, &stranger, &err),
                     0);
    assert_int_equal(ha_client_create(friend_net, loop, ha_server_endpoint(server), NULL, answer,
                                      NULL, &friend, &err),
                     0);
    ha_client_send(stranger, "let me in", 9);
    run(loop, &served.n, 1, 300);
    assert_int_equal(served.n, 0);
    ha_client_send(friend, "it is me", 8);
    run(loop, &served.n, 1, 5000);
    assert_int_equal(served.n, 1);
    assert_string_equal(served.name, "friend");
    assert_int_equal(served.role, HA_NET_ROLE_WORKER);
    assert_int_equal(ha_server_send(server, served.peer, "yes", 3), 0);
    run(loop, &n_answers, 1, 5000);
    assert_int_equal(n_answers, 1);

    /* Another role: from the next message on. */
    assert_int_equal(ha_curve_public_load(in_folder("clients/friend.pub"), public_key, NULL, &err),
                     0);
    add_client("friend", public_key, HA_NET_ROLE_READ);
    ha_client_send(friend, "it is me", 8);
    run(loop, &served.n, 2, 5000);
    assert_int_equal(served.role, HA_NET_ROLE_READ);
    assert_int_equal(ha_net_keys_trouble(server_net, &err), 0);

    /* Revoked, beside a file that nobody can read: the open connection is of no more use,
     * either way. */
    write_text("clients/broken.pub", "half a file", 0644);
    assert_int_equal(unlink(in_folder("clients/friend.pub")), 0);
    ha_client_send(friend, "still me", 8);
    run(loop, &served.n, 3, 300);
    assert_int_equal(served.n, 2);
    assert_int_equal(ha_net_keys_trouble(server_net, &err), -EINVAL);
    assert_non_null(strstr(err.text, "broken.pub"));
    assert_int_equal(ha_net_keys_trouble(server_net, &err), 0); /* told once */
    assert_int_equal(ha_server_refused(server), 1);
    assert_int_equal(ha_server_send(server, served.peer, "yes", 3), -EACCES);

    ha_client_destroy(friend);
    ha_client_destroy(stranger);
    ha_server_destroy(server);
    ha_loop_destroy(loop);
    ha_net_destroy(friend_net);
    ha_net_destroy(stranger_net);
    ha_net_destroy(server_net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(keeps_keys_in_private_files),  TEST(refuses_damaged_key_files),
        TEST(reads_the_allow_list),         TEST(knows_names_and_roles),
        TEST(holds_keys_out_of_core_files), TEST(lets_in_only_who_is_in_the_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
