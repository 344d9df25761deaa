#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/ipc/endpoint.h"

#define LOCK_NAME "agent.start"
#define PAUSE_MS_MAX 60000
#define TRY_EVERY_MS 3
#define AGENT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char *const pause_names[] = {
    [KILN_TROUBLE_START] = "agent.failed",
    [KILN_TROUBLE_SILENT] = "agent.silent",
};

void kiln_endpoint_pause(const char *dir, enum kiln_endpoint_trouble trouble, unsigned pause_ms) {
    kiln_autofree char *path = kiln_path_join(dir, pause_names[trouble]);
    if (!path)
        return;
    if (pause_ms == 0) {
        unlink(path);
        return;
    }
    kiln_autofd int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return; // nothing remembers the failure then; each caller finds out for itself
    uint64_t until_ms = kiln_clock_wall_ms() + pause_ms;
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};
    futimens(fd, (struct timespec[]){until, until});
}

static bool is_paused(const char *dir, enum kiln_endpoint_trouble trouble) {
    kiln_autofree char *path = kiln_path_join(dir, pause_names[trouble]);
    struct stat st;
    if (!path || lstat(path, &st) < 0)
        return false;
    uint64_t now_ms = kiln_clock_wall_ms();
    uint64_t until_ms = (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    // Further away than any pause: the clock was set back since.
    return until_ms > now_ms && until_ms - now_ms <= PAUSE_MS_MAX;
}

int kiln_endpoint_program(const char *name, char **path, struct kiln_err *err) {
    static const char *const places[] = {"", "../libexec/kiln"};
    char self[KILN_PATH_MAX + 1];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "/proc/self/exe");
    self[len] = 0;
    kiln_autofree char *own_dir = kiln_path_dir(self);
    for (size_t i = 0; own_dir && i < sizeof places / sizeof *places; i++) {
        kiln_autofree char *dir = *places[i] ? kiln_path_join(own_dir, places[i]) : strdup(own_dir);
        kiln_autofree char *candidate = dir ? kiln_path_join(dir, name) : NULL;
        if (candidate && access(candidate, X_OK) == 0) {
            *path = KILN_STEAL(candidate);
            return 0;
        }
    }
    return kiln_fail(err, KILN_E_NOTFOUND, "%s is neither beside %s nor in ../libexec/kiln", name, self);
}

static int spawn_agent(const struct kiln_endpoint_start *start, pid_t *pid, struct kiln_err *err) {
    kiln_autofree char *found = NULL;
    int rc = start->agent ? 0 : kiln_endpoint_program("kiln-agent", &found, err);
    if (rc)
        return rc;
    const struct passwd *entry = getpwuid(geteuid());
    kiln_autofree char *home = NULL;
    if (asprintf(&home, "HOME=%s", entry && entry->pw_dir ? entry->pw_dir : "/") < 0)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for the agent's environment");
    const char *env[] = {home, "PATH=" AGENT_PATH, NULL};
    kiln_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return kiln_fail_errno(err, KILN_E_IO, "/dev/null");
    const struct kiln_proc_fd fds[] = {{null, 0}, {null, 1}, {null, 2}};
    const char *program = start->agent ? start->agent : found;
    const char *argv[] = {program, "--dir", start->dir, start->config ? "--config" : NULL, start->config, NULL};
    const struct kiln_proc_options options = {
        .program = program,
        .argv = (char *const *)argv,
        .envp = (char *const *)env,
        .cwd = "/",
        .fds = fds,
        .fds_count = sizeof fds / sizeof *fds,
        .new_session = true,
    };
    return kiln_proc_spawn(&options, pid, err);
}

// One attempt to be the process that starts the agent. *lock stays -1 while another process is.
static int try_lock(const char *dir, int *lock, struct kiln_err *err) {
    kiln_autofree char *path = kiln_path_join(dir, LOCK_NAME);
    if (!path)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    kiln_autofd int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        *lock = kiln_steal_fd(&fd);
    else if (errno != EWOULDBLOCK && errno != EINTR)
        return kiln_fail_errno(err, KILN_E_IO, "locking %s", path);
    return 0;
}

static void rest(void) {
    const struct timespec a_little = {.tv_nsec = TRY_EVERY_MS * 1000000};
    nanosleep(&a_little, NULL);
}

// The agent's end, not the deadline, tells of most failures: it must not be waited for.
static bool has_ended(pid_t agent, int *status) {
    *status = 0;
    return waitpid(agent, status, WNOHANG) != 0; // also when SIGCHLD is ignored and the status is lost
}

static int describe_end(int status, struct kiln_err *err) {
    if (WIFSIGNALED(status))
        return kiln_fail(err, KILN_E_IO, "the agent was ended by signal %d as it started", WTERMSIG(status));
    return kiln_fail(err, KILN_E_IO, "the agent ended with status %d as it started; its log says why",
                     WEXITSTATUS(status));
}

// Called by the holder of the lock.
static int start_and_connect(const struct kiln_endpoint_start *start, uint64_t deadline_ms, int *socket,
                             struct kiln_err *err) {
    pid_t agent;
    int rc = spawn_agent(start, &agent, err);
    if (rc)
        return rc;
    for (;;) {
        int status;
        bool ended = has_ended(agent, &status);
        rc = kiln_endpoint_connect(start->dir, deadline_ms, socket, err);
        if (rc != KILN_E_NOTFOUND)
            return rc;
        if (ended)
            return describe_end(status, err);
        // It is left to come up, if late: its own lock keeps a second one away.
        if (kiln_clock_left_ms(deadline_ms) == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "the agent did not listen in time after its start");
        rest();
    }
}

int kiln_endpoint_start_agent(const struct kiln_endpoint_start *start, uint64_t deadline_ms, int *socket,
                              struct kiln_err *err) {
    int rc = kiln_fs_make_dirs(AT_FDCWD, start->dir, 0700, err);
    while (rc == 0) {
        kiln_autofd int lock = -1;
        rc = try_lock(start->dir, &lock, err);
        if (rc)
            break;
        // With the lock held or without: another process may have started one since the caller looked.
        rc = kiln_endpoint_connect(start->dir, deadline_ms, socket, err);
        if (rc != KILN_E_NOTFOUND)
            break;
        if (is_paused(start->dir, KILN_TROUBLE_START))
            return kiln_fail(err, KILN_E_TIMEOUT, "an agent could not be started in %s a moment ago", start->dir);
        if (lock >= 0) {
            rc = start_and_connect(start, deadline_ms, socket, err);
            // Before the lock goes, so that those who wait for it see it.
            kiln_endpoint_pause(start->dir, KILN_TROUBLE_START, rc ? KILN_PAUSE_START_MS : 0);
            break;
        }
        if (kiln_clock_left_ms(deadline_ms) == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "another process did not start the agent in time");
        rc = 0;
        rest();
    }
    return rc ? kiln_wrap(err, rc, "starting an agent") : 0;
}

static int reach_at(const struct kiln_endpoint *endpoint, uint64_t deadline_ms, int *socket, struct kiln_err *err) {
    if (is_paused(endpoint->dir, KILN_TROUBLE_SILENT))
        return kiln_fail(err, KILN_E_TIMEOUT, "the agent in %s did not answer a moment ago", endpoint->dir);
    int rc = kiln_endpoint_connect(endpoint->dir, deadline_ms, socket, err);
    if (rc == KILN_E_NOTFOUND && endpoint->kind == KILN_ENDPOINT_USER)
        rc = kiln_endpoint_start_agent(&(struct kiln_endpoint_start){.dir = endpoint->dir}, deadline_ms, socket, err);
    return rc;
}

int kiln_endpoint_reach(struct kiln_endpoint *endpoint, uint64_t deadline_ms, int *socket, struct kiln_err *err) {
    int rc = kiln_endpoint_find(endpoint, err);
    if (rc)
        return rc;
    rc = reach_at(endpoint, deadline_ms, socket, err);
    if (rc != KILN_E_NOTFOUND || endpoint->kind != KILN_ENDPOINT_SYSTEM)
        return rc;
    // The socket of a system agent that no longer runs.
    kiln_endpoint_release(endpoint);
    rc = kiln_endpoint_find_home(endpoint, err);
    return rc ? rc : reach_at(endpoint, deadline_ms, socket, err);
}
