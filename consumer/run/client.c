#include "consumer/run/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/proc.h"

#define MESSAGE_MAX 16384u
#define FIRST_BIND_FD 5u
#define END_MS 5000 // kiln-run's own end takes milliseconds

int kiln_run_send(int socket, enum kiln_run_message message, const void *payload, size_t len, const int *fds,
                  size_t fds_count, struct kiln_err *err) {
    uint8_t type = (uint8_t)message;
    struct iovec parts[] = {{&type, 1}, {(void *)payload, len}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KILN_RUN_READY_FDS * sizeof(int))];
    } control = {0};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    if (fds_count) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fds_count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fds_count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, fds_count * sizeof(int));
    }
    if (sendmsg(socket, &header, MSG_NOSIGNAL) < 0)
        return kiln_fail_errno(err, KILN_E_CLOSED, "telling the other side of the sandbox");
    return 0;
}

static int wait_readable(int socket, uint64_t deadline_ms, struct kiln_err *err) {
    struct pollfd watch = {.fd = socket, .events = POLLIN};
    for (;;) {
        int ready = poll(&watch, 1, kiln_clock_left_ms(deadline_ms));
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return kiln_fail_errno(err, KILN_E_IO, "waiting for kiln-run");
        if (ready == 0 && kiln_clock_left_ms(deadline_ms) == 0)
            return kiln_fail(err, KILN_E_TIMEOUT, "kiln-run said nothing in time");
    }
}

static size_t take_fds(struct msghdr *header, int *fds, size_t fds_count) {
    size_t taken = 0;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            if (taken < fds_count)
                fds[taken++] = fd;
            else
                close(fd);
        }
    }
    return taken;
}

int kiln_run_receive(int socket, uint64_t deadline_ms, enum kiln_run_message *message, struct kiln_buf *payload, int *fds,
                     size_t fds_count, struct kiln_err *err) {
    int rc = wait_readable(socket, deadline_ms, err);
    if (rc)
        return rc;
    unsigned char bytes[MESSAGE_MAX];
    struct iovec part = {bytes, sizeof bytes};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KILN_RUN_READY_FDS * sizeof(int))];
    } control;
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t len = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    if (len <= 0)
        return kiln_fail(err, KILN_E_CLOSED, "kiln-run ended without a word");
    int got[KILN_RUN_READY_FDS];
    size_t count = take_fds(&header, got, KILN_RUN_READY_FDS);
    bool wanted = bytes[0] == KILN_RUN_READY ? count == fds_count : count == 0;
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !wanted || kiln_buf_add(payload, bytes + 1, (size_t)len - 1)) {
        while (count)
            close(got[--count]);
        return kiln_fail(err, KILN_E_CORRUPT, "kiln-run said something else than expected");
    }
    *message = bytes[0];
    if (count)
        memcpy(fds, got, count * sizeof *got);
    return 0;
}

// The spec with the numbers that the binds have in the child, in a memfd.
static int write_spec(const struct kiln_run_spec *spec, int *fd, struct kiln_err *err) {
    kiln_autofree struct kiln_run_bind *binds = calloc(spec->binds_count + 1, sizeof *binds);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    if (!binds)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox spec");
    for (size_t i = 0; i < spec->binds_count; i++) {
        binds[i] = spec->binds[i];
        binds[i].fd = (uint32_t)(FIRST_BIND_FD + i);
    }
    struct kiln_run_spec renumbered = *spec;
    renumbered.binds = binds;
    if (spec->watch_fd)
        renumbered.watch_fd = (uint32_t)(FIRST_BIND_FD + spec->binds_count);
    int rc = kiln_run_spec_encode(&renumbered, &bytes, err);
    kiln_autofd int memfd = rc ? -1 : memfd_create("kiln-spec", MFD_CLOEXEC);
    if (rc == 0 && memfd < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "a memfd for the sandbox spec");
    if (rc == 0)
        rc = kiln_fs_write_all(memfd, bytes.data, bytes.len, err);
    if (rc == 0)
        *fd = kiln_steal_fd(&memfd);
    return rc;
}

static int spawn(const struct kiln_run_options *options, const struct kiln_run_spec *spec, int socket, int memfd,
                 pid_t *pid, struct kiln_err *err) {
    kiln_autofree struct kiln_proc_fd *fds = calloc(spec->binds_count + 6, sizeof *fds);
    kiln_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (!fds || null < 0)
        return kiln_fail_errno(err, KILN_E_IO, "starting %s", options->program);
    size_t count = 0;
    fds[count++] = (struct kiln_proc_fd){null, 0};
    fds[count++] = (struct kiln_proc_fd){null, 1};
    fds[count++] = (struct kiln_proc_fd){null, 2};
    fds[count++] = (struct kiln_proc_fd){socket, KILN_RUN_SOCKET_FD};
    fds[count++] = (struct kiln_proc_fd){memfd, KILN_RUN_SPEC_FD};
    for (size_t i = 0; i < spec->binds_count; i++)
        fds[count++] = (struct kiln_proc_fd){(int)spec->binds[i].fd, (int)(FIRST_BIND_FD + i)};
    if (spec->watch_fd)
        fds[count++] = (struct kiln_proc_fd){(int)spec->watch_fd, (int)(FIRST_BIND_FD + spec->binds_count)};
    char *argv[KILN_RUN_ARGUMENTS_MAX + 4];
    size_t argc = 0;
    argv[argc++] = (char *)"kiln-run";
    if (options->bwrap) {
        argv[argc++] = (char *)"--bwrap";
        argv[argc++] = (char *)options->bwrap;
    }
    for (size_t i = 0; options->arguments && options->arguments[i] && i < KILN_RUN_ARGUMENTS_MAX; i++)
        argv[argc++] = (char *)options->arguments[i];
    argv[argc] = NULL;
    char *const envp[] = {NULL};
    const struct kiln_proc_options child = {
        .program = options->program, .argv = argv, .envp = envp, .cwd = "/", .fds = fds, .fds_count = count};
    return kiln_proc_spawn(&child, pid, err);
}

static int refused(const struct kiln_buf *payload, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(payload->data, payload->len);
    kiln_autofree char *text = kiln_read_field_text(&reader, MESSAGE_MAX);
    return kiln_fail(err, KILN_E_DENIED, "%s", text ? text : "kiln-run refused");
}

static int hear_ready(struct kiln_run_session *session, uint64_t deadline_ms, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_MAX);
    enum kiln_run_message message;
    int fds[KILN_RUN_READY_FDS];
    int rc = kiln_run_receive(session->socket, deadline_ms, &message, &payload, fds, KILN_RUN_READY_FDS, err);
    if (rc)
        return rc;
    if (message == KILN_RUN_REFUSED)
        return refused(&payload, err);
    if (message != KILN_RUN_READY)
        return kiln_fail(err, KILN_E_CORRUPT, "kiln-run said something else than expected");
    session->out_dir = fds[0];
    session->observer_dir = fds[1];
    session->stdout_text = fds[2];
    session->stderr_text = fds[3];
    return 0;
}

int kiln_run_start(const struct kiln_run_options *options, const struct kiln_run_spec *spec,
                   struct kiln_run_session *session, struct kiln_err *err) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "a socket pair");
    kiln_autofd int theirs = pair[1];
    struct kiln_run_session started = KILN_RUN_SESSION_INIT;
    started.socket = pair[0];
    kiln_autofd int memfd = -1;
    int rc = write_spec(spec, &memfd, err);
    if (rc == 0)
        rc = spawn(options, spec, theirs, memfd, &started.pid, err);
    close(kiln_steal_fd(&theirs));
    if (rc == 0)
        rc = hear_ready(&started, options->deadline_ms, err);
    if (rc) {
        kiln_run_release(&started);
        return rc;
    }
    *session = started;
    return 0;
}

int kiln_run_wait(struct kiln_run_session *session, uint64_t deadline_ms, struct kiln_run_report *report,
                  struct kiln_err *err) {
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(MESSAGE_MAX);
    enum kiln_run_message message;
    int rc = kiln_run_receive(session->socket, deadline_ms, &message, &payload, NULL, 0, err);
    if (rc)
        return rc;
    if (message != KILN_RUN_DONE)
        return kiln_fail(err, KILN_E_CORRUPT, "kiln-run said something else than expected");
    return kiln_run_report_decode(payload.data, payload.len, report, err);
}

// It takes its job with it when it is asked to end; when it does not end, the kernel does that for it.
static void end_process(pid_t pid) {
    kill(pid, SIGTERM);
    if (kiln_proc_wait(pid, kiln_clock_ms() + END_MS, NULL, NULL) == 0)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

void kiln_run_release(struct kiln_run_session *session) {
    if (session->pid > 0)
        end_process(session->pid);
    session->pid = -1;
    int *const fds[] = {&session->socket,      &session->out_dir,     &session->observer_dir,
                        &session->stdout_text, &session->stderr_text};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(kiln_steal_fd(fds[i]));
}
