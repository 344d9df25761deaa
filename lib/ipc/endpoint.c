#include "lib/ipc/endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/ipc/frames.h"
#include "lib/ipc/origin.h"

#define SOCKET_NAME "agent.sock"

void kiln_endpoint_release(struct kiln_endpoint *endpoint) {
    free(endpoint->dir);
    *endpoint = (struct kiln_endpoint){0};
}

static bool is_system_account(uid_t uid) {
    const struct passwd *entry = getpwnam(KILN_SYSTEM_ACCOUNT);
    return entry && entry->pw_uid == uid;
}

static bool is_trusted(uid_t uid) { return uid == geteuid() || uid == 0 || is_system_account(uid); }

static int set_endpoint(struct kiln_endpoint *endpoint, enum kiln_endpoint_kind kind, char *dir, struct kiln_err *err) {
    if (!dir)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a path");
    *endpoint = (struct kiln_endpoint){kind, dir};
    return 0;
}

int kiln_endpoint_find_home(struct kiln_endpoint *endpoint, struct kiln_err *err) {
    const struct passwd *entry = getpwuid(geteuid());
    if (!entry || !entry->pw_dir || entry->pw_dir[0] != '/')
        return kiln_fail(err, KILN_E_NOTFOUND, "account %u has no home in the password database", (unsigned)geteuid());
    return set_endpoint(endpoint, KILN_ENDPOINT_USER, kiln_path_join(entry->pw_dir, ".cache/kiln"), err);
}

static bool has_system_agent(void) {
    struct stat st;
    return lstat(KILN_SYSTEM_DIR "/" SOCKET_NAME, &st) == 0 && S_ISSOCK(st.st_mode) &&
           (st.st_uid == 0 || is_system_account(st.st_uid));
}

int kiln_endpoint_find(struct kiln_endpoint *endpoint, struct kiln_err *err) {
    const char *chosen = getenv("KILN_DIR");
    if (chosen && *chosen && kiln_origin_is_user(getpid(), "KILN_DIR", chosen)) {
        if (*chosen != '/')
            return kiln_fail(err, KILN_E_INVAL, "KILN_DIR=%s is not an absolute path", chosen);
        return set_endpoint(endpoint, KILN_ENDPOINT_CHOSEN, strdup(chosen), err);
    }
    if (has_system_agent())
        return set_endpoint(endpoint, KILN_ENDPOINT_SYSTEM, strdup(KILN_SYSTEM_DIR), err);
    return kiln_endpoint_find_home(endpoint, err);
}

// The address of DIR/NAME. A path that is too long for one goes through the directory's descriptor.
static int make_address(const char *dir, int dirfd, const char *name, struct sockaddr_un *address,
                        struct kiln_err *err) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int len = snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", dir, name);
    if (len >= (int)sizeof address->sun_path)
        len = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", dirfd, name);
    if (len < 0 || len >= (int)sizeof address->sun_path)
        return kiln_fail(err, KILN_E_LIMIT, "%s/%s is too long for a socket", dir, name);
    return 0;
}

static int check_socket_file(const char *dir, int dirfd, struct kiln_err *err) {
    struct stat st;
    if (fstatat(dirfd, SOCKET_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return kiln_fail_errno(err, errno == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO, "%s/" SOCKET_NAME, dir);
    if (!S_ISSOCK(st.st_mode))
        return kiln_fail(err, KILN_E_DENIED, "%s/" SOCKET_NAME " is not a socket", dir);
    if (!is_trusted(st.st_uid))
        return kiln_fail(err, KILN_E_DENIED, "%s/" SOCKET_NAME " belongs to user %u", dir, (unsigned)st.st_uid);
    return 0;
}

static int connect_failure(const char *dir, struct kiln_err *err) {
    int code = KILN_E_IO;
    if (errno == ENOENT || errno == ECONNREFUSED)
        code = KILN_E_NOTFOUND;
    else if (errno == EACCES || errno == EPERM)
        code = KILN_E_DENIED;
    else if (errno == EAGAIN)
        code = KILN_E_TIMEOUT;
    return kiln_fail_errno(err, code, "no agent answers at %s/" SOCKET_NAME, dir);
}

// A full backlog makes connect wait; SO_SNDTIMEO is what bounds that for Unix sockets.
static int bound_connect(int socket, uint64_t deadline_ms, struct kiln_err *err) {
    int left_ms = kiln_clock_left_ms(deadline_ms);
    struct timeval left = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
    if (left_ms == 0)
        left.tv_usec = 1; // zero would mean forever
    if (setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &left, sizeof left) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "setting the time for a connection");
    return 0;
}

int kiln_endpoint_connect(const char *dir, uint64_t deadline_ms, int *connection, struct kiln_err *err) {
    kiln_autofd int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return kiln_fail_errno(err, errno == ENOENT ? KILN_E_NOTFOUND : KILN_E_IO, "%s", dir);
    int rc = check_socket_file(dir, dirfd, err);
    if (rc)
        return rc;
    struct sockaddr_un address;
    rc = make_address(dir, dirfd, SOCKET_NAME, &address, err);
    if (rc)
        return rc;
    kiln_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "making a socket");
    rc = bound_connect(fd, deadline_ms, err);
    if (rc)
        return rc;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return connect_failure(dir, err);
    pid_t pid;
    uid_t uid;
    rc = kiln_frame_peer(fd, &pid, &uid, err);
    if (rc)
        return rc;
    if (!is_trusted(uid))
        return kiln_fail(err, KILN_E_DENIED, "the agent at %s runs as user %u", dir, (unsigned)uid);
    *connection = kiln_steal_fd(&fd);
    return 0;
}

static int check_listen_dir(const char *dir, int dirfd, enum kiln_endpoint_audience audience, struct kiln_err *err) {
    struct stat st;
    if (fstat(dirfd, &st) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s", dir);
    if (st.st_uid != geteuid())
        return kiln_fail(err, KILN_E_DENIED, "%s belongs to user %u", dir, (unsigned)st.st_uid);
    mode_t forbidden = audience == KILN_AUDIENCE_USER ? 077 : 022;
    if (st.st_mode & forbidden)
        return kiln_fail(err, KILN_E_DENIED, "%s has mode %03o, which lets others in", dir, st.st_mode & 0777u);
    if (fstatat(dirfd, SOCKET_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : kiln_fail_errno(err, KILN_E_IO, "%s/" SOCKET_NAME, dir);
    if (!S_ISSOCK(st.st_mode))
        return kiln_fail(err, KILN_E_EXISTS, "%s/" SOCKET_NAME " is there and is not a socket", dir);
    if (st.st_uid != geteuid())
        return kiln_fail(err, KILN_E_DENIED, "%s/" SOCKET_NAME " belongs to user %u", dir, (unsigned)st.st_uid);
    return 0;
}

static int open_listen_dir(const char *dir, enum kiln_endpoint_audience audience, int *dirfd, struct kiln_err *err) {
    int rc = kiln_fs_make_dirs(AT_FDCWD, dir, audience == KILN_AUDIENCE_USER ? 0700 : 0755, err);
    if (rc)
        return rc;
    kiln_autofd int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s", dir);
    rc = check_listen_dir(dir, fd, audience, err);
    if (rc)
        return rc;
    *dirfd = kiln_steal_fd(&fd);
    return 0;
}

int kiln_endpoint_listen(const char *dir, enum kiln_endpoint_audience audience, int *listener, struct kiln_err *err) {
    kiln_autofd int dirfd = -1;
    int rc = open_listen_dir(dir, audience, &dirfd, err);
    if (rc)
        return rc;
    char name[64];
    snprintf(name, sizeof name, "." SOCKET_NAME ".%d", (int)getpid());
    struct sockaddr_un address;
    rc = make_address(dir, dirfd, name, &address, err);
    if (rc)
        return rc;
    kiln_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "making a socket");
    unlinkat(dirfd, name, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s/%s", dir, name);
    mode_t mode = audience == KILN_AUDIENCE_USER ? 0600 : 0666;
    if (fchmodat(dirfd, name, mode, 0) < 0 || listen(fd, SOMAXCONN) < 0 ||
        renameat(dirfd, name, dirfd, SOCKET_NAME) < 0) {
        rc = kiln_fail_errno(err, KILN_E_IO, "%s/" SOCKET_NAME, dir);
        unlinkat(dirfd, name, 0);
        return rc;
    }
    *listener = kiln_steal_fd(&fd);
    return 0;
}
