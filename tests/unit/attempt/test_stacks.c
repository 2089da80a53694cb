/* A process that hangs says where each of its threads stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/attempt/stacks.h"

static void *hang(void *context)
{
    (void)context;
    for (;;)
        pause();
    return NULL;
}

/* The child: a main thread and two others that hang; "r" when they are there. */
static void be_stuck(int out)
{
    pthread_t threads[2];

    dup2(out, STDERR_FILENO);
    ha_stacks_on_signal();
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, hang, NULL);
    (void)!write(out, "r", 1);
    hang(NULL);
}

static int count(const char *text, const char *word)
{
    int n = 0;

    for (const char *at = text; (at = strstr(at, word)) != NULL; at += strlen(word))
        n++;
    return n;
}

static void tells_of_every_thread(void **state)
{
    char text[65536] = "";
    size_t size = 0;
    int ends[2], status;
    struct pollfd ready = {.events = POLLIN};
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    ready.fd = ends[0];
    child = fork();
    if (child == 0)
        be_stuck(ends[1]);
    assert_int_equal(read(ends[0], text, 1), 1);
    kill(child, SIGURG);
    /* Until it is silent. */
    while (poll(&ready, 1, size == 0 ? 10000 : 500) == 1) {
        ssize_t n = read(ends[0], text + size, sizeof(text) - 1 - size);

        assert_true(n > 0);
        size += (size_t)n;
    }
    assert_non_null(strstr(text, "where its threads stand:\n"));
    assert_int_equal(count(text, "thread "), 3);
    assert_int_equal(count(text, "in the kernel: "), 3);
    assert_true(count(text, "[0x") >= 6);
    assert_null(strstr(text, "does not answer"));
    /* It goes on hanging. */
    assert_int_equal(waitpid(child, &status, WNOHANG), 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tells_of_every_thread)};

    alarm(20);
    return cmocka_run_group_tests_name("stacks", tests, NULL, NULL);
}
