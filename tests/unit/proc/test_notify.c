#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/proc/notify.h"

/* Whoever listens at this name, whose first byte may be 0. */
static int listen_at(const char *name, size_t length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    memcpy(address.sun_path, name, length);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)),
                     0);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[64];
    ssize_t n = recv(fd, got, sizeof got, 0);

    assert_int_equal(n, (ssize_t)strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static void tells_who_listens(void **state)
{
    char folder[] = "/tmp/ha-test-notify-XXXXXX", path[64], name[64];
    int in_folder, abstract;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    snprintf(name, sizeof name, "@ha-test-notify-%d", (int)getpid());
    in_folder = listen_at(path, strlen(path) + 1);
    setenv("NOTIFY_SOCKET", path, 1);
    ha_notify("READY=1");
    expect(in_folder, "READY=1");
    setenv("NOTIFY_SOCKET", name, 1);
    name[0] = '\0';
    abstract = listen_at(name, 1 + strlen(name + 1));
    ha_notify("STOPPING=1");
    expect(abstract, "STOPPING=1");
    (void)close(in_folder);
    (void)close(abstract);
    (void)unlink(path);
    (void)rmdir(folder);
}

/* Nobody listens, or there is no such place: nothing happens. */
static void goes_on_alone(void **state)
{
    char long_name[200];

    (void)state;
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    unsetenv("NOTIFY_SOCKET");
    ha_notify("READY=1");
    setenv("NOTIFY_SOCKET", "", 1);
    ha_notify("READY=1");
    setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
    ha_notify("READY=1");
    setenv("NOTIFY_SOCKET", long_name, 1);
    ha_notify("READY=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_who_listens),
        cmocka_unit_test(goes_on_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
