// The floor of the bench: a rustc wrapper that replays recorded outputs by copying and does nothing else. It checks
// nothing and knows nothing of inputs: no real cache can be faster than this at copying.
// FLOOR_DIR says where recordings lie, FLOOR_MODE=record runs the compiler and records, anything else replays. A recording is
// found by a hash of the arguments that does not depend on where the build takes place: crate name, metadata, types, emits.
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t hash_text(uint64_t hash, const char *text) {
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return (hash ^ 255) * 1099511628211u;
}

struct call {
    const char *out_dir, *crate;
    uint64_t key;
};

static bool read_call(int argc, char **argv, struct call *call) {
    call->key = 1469598103934665603u;
    for (int i = 2; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--out-dir"))
            call->out_dir = next;
        if (!strcmp(argv[i], "--crate-name"))
            call->crate = next;
        if (!strcmp(argv[i], "--crate-name") || !strcmp(argv[i], "--crate-type") || !strncmp(next, "metadata=", 9) ||
            !strncmp(next, "extra-filename=", 15))
            call->key = hash_text(call->key, next);
        if (!strncmp(argv[i], "--emit=", 7) || !strcmp(argv[i], "--test"))
            call->key = hash_text(call->key, argv[i]);
    }
    return call->out_dir && call->crate;
}

static int copy_file(int from_dir, int to_dir, const char *name) {
    int in = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st))
        return -1;
    char temporary[300];
    snprintf(temporary, sizeof temporary, ".floor-%d", (int)getpid());
    int out = openat(to_dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st.st_mode & 0777);
    ssize_t got = 1;
    for (off_t left = st.st_size; out >= 0 && left > 0 && got > 0; left -= got)
        got = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
    close(in);
    if (out < 0 || close(out))
        return -1;
    return renameat(to_dir, temporary, to_dir, name);
}

static int copy_all(const char *from, const char *to) {
    int from_dir = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC), to_dir = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = from_dir < 0 ? NULL : fdopendir(dup(from_dir));
    if (!list || to_dir < 0)
        return -1;
    int rc = 0;
    for (struct dirent *entry; (entry = readdir(list));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "STDERR"))
            rc |= copy_file(from_dir, to_dir, entry->d_name);
    closedir(list);
    close(from_dir);
    close(to_dir);
    return rc;
}

static int replay(const struct call *call, const char *recording) {
    if (copy_all(recording, call->out_dir))
        return 1;
    char path[4096], text[65536];
    snprintf(path, sizeof path, "%s/STDERR", recording);
    int in = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got; in >= 0 && (got = read(in, text, sizeof text)) > 0;)
        if (write(2, text, (size_t)got) != got)
            return 1;
    return 0;
}

static int run_compiler(char **argv, int error_fd) {
    pid_t pid = fork();
    if (pid == 0) {
        if (error_fd >= 0)
            dup2(error_fd, 2);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int record(int argc, char **argv, const struct call *call, const char *recording) {
    char scratch[4096], error_path[4200];
    snprintf(scratch, sizeof scratch, "%s.new-%d", recording, (int)getpid());
    if (mkdir(scratch, 0755))
        return run_compiler(argv, -1);
    for (int i = 2; i + 1 < argc; i++)
        if (!strcmp(argv[i], "--out-dir"))
            argv[i + 1] = scratch;
    snprintf(error_path, sizeof error_path, "%s/STDERR", scratch);
    int error_fd = open(error_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    int rc = run_compiler(argv, error_fd);
    if (rc == 0 && rename(scratch, recording) == 0)
        return replay(call, recording);
    return rc;
}

int main(int argc, char **argv) {
    struct call call = {0};
    const char *dir = getenv("FLOOR_DIR"), *mode = getenv("FLOOR_MODE");
    if (argc < 2)
        return 2;
    if (!dir || !read_call(argc, argv, &call)) {
        execvp(argv[1], argv + 1);
        return 127;
    }
    char recording[4000];
    snprintf(recording, sizeof recording, "%s/%016llx", dir, (unsigned long long)call.key);
    if (access(recording, F_OK) == 0)
        return replay(&call, recording);
    if (mode && !strcmp(mode, "record"))
        return record(argc, argv, &call, recording);
    execvp(argv[1], argv + 1);
    return 127;
}
