// The agent's socket: served, reached, refused.
#include "scratch.h"

#include <pwd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/ipc/endpoint.h"
#include "lib/ipc/frames.h"

#define OTHER_USER 4711

static uint64_t soon(void) { return kiln_clock_ms() + 10000; }

static int socket_mode(const char *dir) {
    struct stat st;
    char path[512];
    snprintf(path, sizeof path, "%s/agent.sock", dir);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    return (int)(st.st_mode & 07777);
}

static void test_listen_and_connect(void **state) {
    const struct scratch *scratch = *state;
    const char *dir = scratch_path(scratch, "a/b/state");
    struct kiln_err err;
    kiln_autofd int listener = -1, client = -1;
    assert_int_equal(kiln_endpoint_connect(dir, soon(), &client, &err), KILN_E_NOTFOUND);
    assert_ok(kiln_endpoint_listen(dir, KILN_AUDIENCE_USER, &listener, &err));
    assert_int_equal(socket_mode(dir), 0600);
    struct stat st;
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_ok(kiln_endpoint_connect(dir, soon(), &client, &err));
    assert_int_equal(fcntl(client, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    kiln_autofd int server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    assert_ok(kiln_frame_send(server, KILN_FRAME_ALIVE, NULL, 0, NULL, 0, soon(), &err));
    kiln_autoframe struct kiln_frame frame = {0};
    assert_ok(kiln_frame_receive(client, soon(), &frame, &err));
}

static void test_stale_socket_is_replaced(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    int listener = -1;
    kiln_autofd int client = -1, again = -1;
    assert_ok(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &listener, &err));
    close(listener);
    assert_int_equal(kiln_endpoint_connect(scratch->path, soon(), &client, &err), KILN_E_NOTFOUND);
    assert_ok(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &again, &err));
    assert_ok(kiln_endpoint_connect(scratch->path, soon(), &client, &err));
}

static void test_long_path(void **state) {
    const struct scratch *scratch = *state;
    char name[200];
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = 0;
    const char *dir = scratch_path(scratch, name);
    struct kiln_err err;
    kiln_autofd int listener = -1, client = -1;
    assert_ok(kiln_endpoint_listen(dir, KILN_AUDIENCE_USER, &listener, &err));
    assert_ok(kiln_endpoint_connect(dir, soon(), &client, &err));
}

static void test_system_audience(void **state) {
    const struct scratch *scratch = *state;
    const char *dir = scratch_path(scratch, "run");
    struct kiln_err err;
    kiln_autofd int listener = -1;
    mode_t before = umask(022);
    assert_ok(kiln_endpoint_listen(dir, KILN_AUDIENCE_SYSTEM, &listener, &err));
    umask(before);
    assert_int_equal(socket_mode(dir), 0666);
}

static void test_open_directory_is_refused(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    int listener = -1;
    assert_int_equal(fchmod(scratch->fd, 0755), 0);
    assert_int_equal(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &listener, &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "755"));
    assert_int_equal(fchmod(scratch->fd, 0775), 0);
    assert_int_equal(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_SYSTEM, &listener, &err), KILN_E_DENIED);
    assert_int_equal(listener, -1);
}

static void test_what_is_no_socket_is_refused(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    int fd = -1;
    scratch_write(scratch, "agent.sock", "", 0);
    assert_int_equal(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &fd, &err), KILN_E_EXISTS);
    assert_int_equal(kiln_endpoint_connect(scratch->path, soon(), &fd, &err), KILN_E_DENIED);
    assert_int_equal(unlinkat(scratch->fd, "agent.sock", 0), 0);
    // A link to a socket elsewhere is not a socket here.
    kiln_autofd int listener = -1;
    assert_ok(kiln_endpoint_listen(scratch_path(scratch, "other"), KILN_AUDIENCE_USER, &listener, &err));
    assert_int_equal(symlinkat("other/agent.sock", scratch->fd, "agent.sock"), 0);
    assert_int_equal(kiln_endpoint_connect(scratch->path, soon(), &fd, &err), KILN_E_DENIED);
    assert_int_equal(fd, -1);
}

// Needs to be another user for a moment; without that right it is left to the runs that have it.
static void test_sockets_of_others_are_refused(void **state) {
    const struct scratch *scratch = *state;
    if (geteuid() != 0)
        skip();
    const char *dir = scratch_path(scratch, "theirs");
    struct kiln_err err;
    kiln_autofd int listener = -1;
    int fd = -1;
    assert_int_equal(fchmod(scratch->fd, 0755), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chown(dir, OTHER_USER, OTHER_USER), 0);
    assert_int_equal(seteuid(OTHER_USER), 0);
    int rc = kiln_endpoint_listen(dir, KILN_AUDIENCE_USER, &listener, &err);
    assert_int_equal(seteuid(0), 0);
    assert_ok(rc);
    assert_int_equal(kiln_endpoint_connect(dir, soon(), &fd, &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "belongs to user 4711"));
    assert_int_equal(kiln_endpoint_listen(dir, KILN_AUDIENCE_USER, &fd, &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "belongs to user 4711"));
    // The file may lie about who listens: then the peer tells.
    char path[512];
    snprintf(path, sizeof path, "%s/agent.sock", dir);
    assert_int_equal(chown(path, 0, 0), 0);
    assert_int_equal(kiln_endpoint_connect(dir, soon(), &fd, &err), KILN_E_DENIED);
    assert_non_null(strstr(err.text, "runs as user 4711"));
    assert_int_equal(fd, -1);
}

// A listener that accepts nobody: once its queue is full, connecting ends at the deadline.
static void test_full_backlog(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    kiln_autofd int listener = -1;
    assert_ok(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &listener, &err));
    assert_int_equal(listen(listener, 0), 0);
    int clients[8], rc = 0;
    size_t count = 0;
    uint64_t before_ms = kiln_clock_ms();
    while (rc == 0 && count < 8) {
        rc = kiln_endpoint_connect(scratch->path, kiln_clock_ms() + 100, &clients[count], &err);
        count += rc == 0;
    }
    assert_int_equal(rc, KILN_E_TIMEOUT);
    assert_true(kiln_clock_ms() - before_ms < 5000);
    while (count)
        close(clients[--count]);
}

static void test_find(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    kiln_auto(kiln_endpoint_release) struct kiln_endpoint chosen = {0}, home = {0};
    setenv("KILN_DIR", scratch->path, 1);
    assert_ok(kiln_endpoint_find(&chosen, &err));
    assert_int_equal(chosen.kind, KILN_ENDPOINT_CHOSEN);
    assert_string_equal(chosen.dir, scratch->path);
    setenv("KILN_DIR", "relative", 1);
    assert_int_equal(kiln_endpoint_find(&chosen, &err), KILN_E_INVAL);
    unsetenv("KILN_DIR");
    setenv("HOME", "/steered", 1);
    setenv("XDG_CACHE_HOME", "/steered", 1);
    setenv("XDG_RUNTIME_DIR", "/steered", 1);
    const struct passwd *entry = getpwuid(geteuid());
    if (!entry)
        skip();
    assert_ok(kiln_endpoint_find_home(&home, &err));
    assert_int_equal(home.kind, KILN_ENDPOINT_USER);
    assert_int_equal(strncmp(home.dir, entry->pw_dir, strlen(entry->pw_dir)), 0);
    assert_null(strstr(home.dir, "steered"));
}

static void test_account_without_entry(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    pid_t child = fork();
    if (child == 0) {
        struct kiln_endpoint endpoint = {0};
        int rc = setresuid(OTHER_USER, OTHER_USER, OTHER_USER) ? 1 : kiln_endpoint_find_home(&endpoint, NULL);
        _exit(rc != KILN_E_NOTFOUND || endpoint.dir);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_pause(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    kiln_autofd int listener = -1, client = -1;
    assert_ok(kiln_endpoint_listen(scratch->path, KILN_AUDIENCE_USER, &listener, &err));
    setenv("KILN_DIR", scratch->path, 1);
    kiln_endpoint_pause(scratch->path, KILN_TROUBLE_SILENT, 20000);
    struct kiln_endpoint endpoint = {0};
    assert_int_equal(kiln_endpoint_reach(&endpoint, soon(), &client, &err), KILN_E_TIMEOUT);
    kiln_endpoint_release(&endpoint);
    // A clock that was set back must not make the pause last.
    const struct timespec far[2] = {{.tv_sec = time(NULL) + 86400}, {.tv_sec = time(NULL) + 86400}};
    assert_int_equal(utimensat(scratch->fd, "agent.silent", far, 0), 0);
    assert_ok(kiln_endpoint_reach(&endpoint, soon(), &client, &err));
    kiln_endpoint_release(&endpoint);
    close(kiln_steal_fd(&client));
    kiln_endpoint_pause(scratch->path, KILN_TROUBLE_SILENT, 20000);
    kiln_endpoint_pause(scratch->path, KILN_TROUBLE_SILENT, 0);
    assert_ok(kiln_endpoint_reach(&endpoint, soon(), &client, &err));
    kiln_endpoint_release(&endpoint);
    unsetenv("KILN_DIR");
}

// In a directory that was chosen no agent is started.
static void test_chosen_directory_starts_nothing(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    int client = -1;
    kiln_auto(kiln_endpoint_release) struct kiln_endpoint endpoint = {0};
    setenv("KILN_DIR", scratch->path, 1);
    assert_int_equal(kiln_endpoint_reach(&endpoint, soon(), &client, &err), KILN_E_NOTFOUND);
    assert_int_equal(faccessat(scratch->fd, "agent.start", F_OK, 0), -1);
    unsetenv("KILN_DIR");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        scratch_test(test_listen_and_connect),        scratch_test(test_stale_socket_is_replaced),
        scratch_test(test_long_path),                 scratch_test(test_system_audience),
        scratch_test(test_open_directory_is_refused), scratch_test(test_what_is_no_socket_is_refused),
        scratch_test(test_sockets_of_others_are_refused), scratch_test(test_full_backlog),
        scratch_test(test_find),                      scratch_test(test_account_without_entry),
        scratch_test(test_pause),                     scratch_test(test_chosen_directory_starts_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
