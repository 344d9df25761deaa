#include "consumer/run/selftest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "consumer/run/client.h"
#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"

#define CANARY "KILN_DOCTOR_CANARY"
#define DEADLINE_MS 30000
#define PROBE_PATH "/probe/kiln-run"

static bool say(bool ok, const char *name, const char *good, const char *bad) {
    printf("%s %s %s\n", ok ? "ok" : "BAD", name, ok ? good : bad);
    return ok;
}

static bool cannot_connect(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    kiln_autofd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0;
}

static bool environment_is_empty(void) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1 << 20);
    if (getenv(CANARY))
        return false;
    if (kiln_fs_read_file(AT_FDCWD, "/proc/1/environ", &text, NULL))
        return true;
    return !memmem(text.data, text.len, CANARY, strlen(CANARY));
}

static size_t count_processes(void) {
    DIR *proc = opendir("/proc");
    size_t count = 0;
    struct dirent *entry;
    while (proc && (entry = readdir(proc)))
        count += entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (proc)
        closedir(proc);
    return count;
}

static bool cannot_write(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd < 0;
}

int kiln_selftest_probe(const char *port) {
    bool all = true;
    all &= say(cannot_connect(port), "network", "a listener of this host is out of reach from inside",
               "a job can connect to this host");
    all &= say(access("/etc/passwd", F_OK) != 0 && access("/home", F_OK) != 0 && access("/root", F_OK) != 0, "host_files",
               "the host's files are not there", "files of the host are visible to a job");
    all &= say(environment_is_empty(), "environment", "nothing of the caller's environment is inside",
               "the caller's environment is visible to a job");
    all &= say(count_processes() <= 3, "processes", "no process of the host is visible", "processes of the host are visible");
    all &= say(cannot_write(PROBE_PATH) && cannot_write("/usr/planted") && cannot_write("/planted"), "read_only",
               "toolchain, inputs and root cannot be written", "a job can write what it should only read");
    all &= say(geteuid() != 0 && setuid(0) != 0, "unprivileged", "the job is not root and cannot become it", "a job can be root");
    all &= say(unshare(CLONE_NEWUSER) != 0, "user_namespaces", "a job cannot make namespaces of its own",
               "a job can make user namespaces (this bubblewrap lacks --disable-userns)");
    // Whoever answers: the job's filter, or one of a container around it.
    all &= say(syscall(SYS_io_uring_setup, 0, NULL) < 0 && errno != EFAULT && errno != EINVAL && socket(AF_UNIX, SOCK_STREAM, 0) < 0,
               "system_calls", "only the system calls of a compiler are answered", "system calls are not filtered");
    all &= say(mount("none", "/tmp", "tmpfs", 0, NULL) != 0, "mounts", "a job cannot mount", "a job can mount file systems");
    return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int listen_on_loopback(char port[16], struct kiln_err *err) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1) ||
        getsockname(fd, (struct sockaddr *)&address, &len)) {
        if (fd >= 0)
            close(fd);
        return kiln_fail_errno(err, KILN_E_IO, "listen on 127.0.0.1");
    }
    snprintf(port, 16, "%u", ntohs(address.sin_port));
    return fd;
}

static int copy_out(int memfd, FILE *to) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1 << 20);
    if (lseek(memfd, 0, SEEK_SET) < 0 || kiln_fs_read_fd(memfd, &text, NULL))
        return -1;
    return fwrite(text.data, 1, text.len, to) == text.len ? 0 : -1;
}

// This program as a job with one option; its exit code. What it says goes to *out.
static int run_self(const struct kiln_run_options *how, const char *option, char *value, int watch, unsigned *exit_code,
                    struct kiln_err *err) {
    kiln_autofd int usr = open("/usr", O_PATH | O_CLOEXEC), own = open(how->program, O_PATH | O_CLOEXEC);
    struct kiln_run_bind binds[] = {{.fd = (uint32_t)usr, .dest = (char *)"/usr"},
                                    {.fd = (uint32_t)own, .dest = (char *)PROBE_PATH, .file = true}};
    struct kiln_run_link links[] = {{(char *)"/lib", (char *)"usr/lib"}, {(char *)"/lib64", (char *)"usr/lib64"}};
    char *argv[] = {(char *)PROBE_PATH, (char *)option, value};
    const struct kiln_run_spec spec = {
        .binds = binds, .binds_count = 2, .links = links, .links_count = 2, .argv = argv, .argc = value ? 3 : 2,
        .cwd = (char *)"/job/cwd", .out_dir = (char *)"/job/out", .observer_dir = (char *)"/job/obs", .tmp_dir = (char *)"/tmp",
        .out_bytes = 1 << 20, .tmp_bytes = 1 << 20, .observer_bytes = 8 << 20, .inodes = 1000, .wall_ms = DEADLINE_MS,
        .memory_bytes = 256u << 20, .file_bytes = 1 << 20, .text_bytes = 1 << 20, .processes = 64,
        .watch_fd = watch < 0 ? 0 : (uint32_t)watch,
    };
    struct kiln_run_options options = *how;
    options.deadline_ms = kiln_clock_ms() + DEADLINE_MS;
    struct kiln_run_session session = KILN_RUN_SESSION_INIT;
    struct kiln_run_report report = {0};
    int rc = usr < 0 || own < 0 ? kiln_fail_errno(err, KILN_E_IO, "open /usr") : kiln_run_start(&options, &spec, &session, err);
    if (rc == 0)
        rc = kiln_run_wait(&session, kiln_clock_ms() + 2 * DEADLINE_MS, &report, err);
    if (rc == 0 && (report.end != KILN_END_EXIT || report.value > 1))
        rc = kiln_fail(err, KILN_E_DENIED, "the job did not run: %s", report.text);
    if (rc == 0 && value && copy_out(session.stdout_text, stdout))
        rc = kiln_fail(err, KILN_E_IO, "the job's text could not be read");
    *exit_code = report.value;
    kiln_run_report_release(&report);
    kiln_run_release(&session);
    return rc;
}

// No wall, so a host without it is not worse, only slower for some.
static void try_watching(const struct kiln_run_options *how) {
    struct kiln_err err = {0};
    unsigned exit_code;
    kiln_autofd int watch = memfd_create("kiln-watch", MFD_CLOEXEC);
    if (watch < 0 || run_self(how, "--version", NULL, watch, &exit_code, &err))
        printf("weak watching units with macros that make system calls by themselves are compiled locally (%s)\n", err.text);
    else
        puts("ok watching system calls that macros make by themselves can be watched");
}

static int run_probe(const struct kiln_run_options *how, char *port, struct kiln_err *err) {
    unsigned exit_code;
    int rc = run_self(how, "--probe", port, -1, &exit_code, err);
    if (rc == 0)
        try_watching(how);
    if (rc == 0 && exit_code)
        rc = kiln_fail(err, KILN_E_DENIED, "a wall of the sandbox does not stand");
    return rc;
}

int kiln_selftest_run(const char *bwrap, const char *const *arguments) {
    struct kiln_err err = {0};
    char self[PATH_MAX], port[16];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = 0;
    kiln_autofd int listener = listen_on_loopback(port, &err);
    int rc = listener < 0 ? err.code : run_probe(&(struct kiln_run_options){.program = self, .bwrap = bwrap, .arguments = arguments}, port, &err);
    if (rc == 0)
        return EXIT_SUCCESS;
    if (err.text[0])
        fprintf(stderr, "%s\n", err.text);
    return EXIT_FAILURE;
}
