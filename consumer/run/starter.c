#include "consumer/run/starter.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

int kiln_starter_watch(int *signals, struct kiln_err *err) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP);
    signal(SIGCHLD, SIG_DFL);
    if (sigprocmask(SIG_SETMASK, &watched, NULL) < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "signals");
    *signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    return *signals < 0 ? kiln_fail_errno(err, KILN_E_IO, "signalfd") : 0;
}

bool kiln_starter_lives(void) {
    struct pollfd peer = {.fd = KILN_RUN_SOCKET_FD};
    return poll(&peer, 1, 0) == 0;
}

int kiln_starter_read_spec(struct kiln_run_spec *spec, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    int rc = lseek(KILN_RUN_SPEC_FD, 0, SEEK_SET) < 0 ? kiln_fail_errno(err, KILN_E_INVAL, "descriptor 4") : 0;
    if (rc == 0)
        rc = kiln_fs_read_fd(KILN_RUN_SPEC_FD, &bytes, err);
    if (rc == 0)
        rc = kiln_run_spec_decode(bytes.data, bytes.len, spec, err);
    return rc ? kiln_wrap(err, rc, "reading the sandbox spec") : 0;
}

int kiln_starter_ready(const int fds[KILN_RUN_READY_FDS], struct kiln_err *err) {
    return kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_READY, NULL, 0, fds, KILN_RUN_READY_FDS, err);
}

int kiln_starter_done(const struct kiln_run_report *report, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(8192);
    int rc = kiln_run_report_encode(report, &bytes, err);
    return rc ? rc : kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_DONE, bytes.data, bytes.len, NULL, 0, err);
}

void kiln_starter_refuse(const struct kiln_err *refusal) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(4096);
    kiln_buf_add_field_str(&text, refusal->text);
    kiln_run_send(KILN_RUN_SOCKET_FD, KILN_RUN_REFUSED, text.data, text.len, NULL, 0, NULL);
}

bool kiln_starter_asks_to_end(int signals) {
    struct signalfd_siginfo info;
    bool asks = false;
    while (read(signals, &info, sizeof info) == sizeof info)
        asks |= info.ssi_signo != SIGCHLD;
    return asks;
}
