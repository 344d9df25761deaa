// A real S3 server for tests: MinIO with users, policies and locked buckets, by ops/stack. KILN_TEST_STACK=DIR: one that runs already.
#pragma once

#include "tests/unit/scratch.h"

#include <sys/wait.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/blob/s3_client.h"
#include "lib/blob/s3_versions.h"

#define DAY_MS 86400000ull

struct s3_rig {
    char dir[128], endpoint[512], data[512], run[32]; // run: a part of keys that no earlier test used
    bool borrowed;
};

static struct s3_rig rig;

static inline int s3_rig_call(const char *action, const char *option) {
    char *argv[] = {TEXT(KILN_SOURCE_DIR "/ops/stack"), TEXT(action), TEXT("--dir"), rig.dir, TEXT(option), NULL};
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execv(argv[0], argv);
        _exit(127);
    }
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void s3_rig_read_env(void) {
    char path[256], line[512];
    snprintf(path, sizeof path, "%s/env", rig.dir);
    FILE *env = fopen(path, "re");
    assert_non_null(env);
    while (fgets(line, sizeof line, env)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "KILN_STACK_S3=", 14) == 0)
            snprintf(rig.endpoint, sizeof rig.endpoint, "%s", line + 14);
        if (strncmp(line, "KILN_STACK_S3_DATA=", 19) == 0)
            snprintf(rig.data, sizeof rig.data, "%s", line + 19);
    }
    fclose(env);
    assert_true(rig.endpoint[0] && rig.data[0]);
}

static inline int s3_rig_up(void **state) {
    (void)state;
    const char *given = getenv("KILN_TEST_STACK");
    rig.borrowed = given != NULL;
    snprintf(rig.dir, sizeof rig.dir, "%s", given ? given : "/tmp/kiln-s3-XXXXXX");
    snprintf(rig.run, sizeof rig.run, "%llx", (unsigned long long)kiln_clock_wall_ms());
    if (!given && !mkdtemp(rig.dir))
        return -1;
    if (!given && s3_rig_call("up", "--no-admin")) {
        s3_rig_call("down", NULL);
        return -1;
    }
    s3_rig_read_env();
    return 0;
}

static inline int s3_rig_down(void **state) {
    (void)state;
    return rig.borrowed ? 0 : s3_rig_call("down", NULL);
}

// The options of a principal of the stack, or of the server's own "root". Their texts live until the next call but seven.
static inline struct kiln_s3_options s3_rig_options(const char *principal) {
    static char access[8][128], secret[8][128];
    static unsigned turn;
    unsigned at = turn++ % 8;
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s%s", rig.dir, strcmp(principal, "root") ? "roles/" : "", strcmp(principal, "root") ? principal : "s3-root",
             strcmp(principal, "root") ? "/s3.key" : "");
    FILE *in = fopen(path, "re");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%127s %127s", access[at], secret[at]), 2);
    fclose(in);
    return (struct kiln_s3_options){.endpoint = rig.endpoint, .region = "us-east-1", .bucket_prefix = "kiln", .access_key = access[at],
                                    .secret_key = secret[at], .scratch_dir = rig.dir};
}

static inline struct kiln_store *s3_rig_store(const char *principal, enum kiln_store_role role) {
    struct kiln_s3_options options = s3_rig_options(principal);
    struct kiln_store *store = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_store_open_s3(&options, role, &store, &err));
    return store;
}

static inline struct kiln_s3_client *s3_rig_client(const char *principal) {
    struct kiln_s3_options options = s3_rig_options(principal);
    struct kiln_s3_client *client = NULL;
    struct kiln_err err = {0};
    assert_ok(kiln_s3_client_new(&options, &client, &err));
    return client;
}

// "TOP/RUN/name": a key of this run's own.
static inline const char *s3_rig_key(const char *top, const char *name) {
    static char keys[8][256];
    static unsigned turn;
    char *key = keys[turn++ % 8];
    assert_true(snprintf(key, sizeof keys[0], "%s/%s/%s", top, rig.run, name) < (int)sizeof keys[0]);
    return key;
}

static inline struct kiln_digest digest_of(const char *text) {
    struct kiln_digest digest;
    kiln_digest_of(text, strlen(text), &digest);
    return digest;
}

static inline int file_of(const void *data, size_t len) {
    char path[] = "/tmp/kiln-test-file-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(kiln_fs_write_all(fd, data, len, NULL), 0);
    return fd;
}

static inline void assert_text(int fd, const char *expected) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1 << 20);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(kiln_fs_read_fd(fd, &text, NULL), 0);
    assert_string_equal(kiln_buf_text(&text), expected);
    close(fd);
}
