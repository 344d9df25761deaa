// kiln-run from outside: what a job sees, what it may write, how its end is reported, what start-up refuses.
#include "tests/integration/sandbox_rig.h"

#include <linux/capability.h>
#include <sched.h>

#include "consumer/preload/observe.h"
#include "consumer/run/root.h"
#include "consumer/run/sandbox.h"

static void runs_a_job(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "hello", NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, "hello\n");
    assert_string_equal(kiln_buf_text(&rig.errout), "oops\n");
    assert_string_equal(rig.report.text, "");
    assert_in_range(rig.report.wall_ms, 0, 5000);
}

static void reports_exit_codes_and_signals(void **state) {
    (void)state;
    static const struct {
        const char *job, *argument;
        enum kiln_run_end end;
        unsigned value;
    } cases[] = {{"exit", "0", KILN_END_EXIT, 0},     {"exit", "1", KILN_END_EXIT, 1},
                 {"exit", "101", KILN_END_EXIT, 101}, {"die", "11", KILN_END_SIGNAL, 11},
                 {"die", "9", KILN_END_SIGNAL, 9},    {"die", "6", KILN_END_SIGNAL, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_run(&rig, cases[i].job, cases[i].argument, NULL);
        rig_assert_end(&rig, cases[i].end, cases[i].value);
    }
}

static void gives_the_environment_and_no_more(void **state) {
    (void)state;
    setenv("KILN_TEST_SECRET", "of the starter", 1);
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.env[rig.spec.env_count++] = (char *)"NAME=a=b c";
    rig.env[rig.spec.env_count++] = (char *)"EMPTY=";
    rig_run(&rig, "env", NULL);
    // bwrap adds PWD (its --chdir); nothing else.
    kiln_autofree char *expected = NULL;
    assert_true(asprintf(&expected, "NAME=a=b c\nEMPTY=\nPWD=%s\n", rig.spec.cwd) > 0);
    rig_assert_out(&rig, expected);
    rig_expect("cat", "/proc/1/environ", RIG_LEAKS ? "" : "EACCES\n");
}

static void shows_one_identity(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_run(&rig, "identity", NULL);
    kiln_autofree char *expected = NULL;
    // Without a user namespace a container shows who the job is on the host.
    unsigned id = RIG_LEAKS ? 1000 : geteuid() == 0 ? KILN_SANDBOX_UID : geteuid();
    assert_true(asprintf(&expected, "%u %u kiln %s 1\n", id, id, rig.spec.cwd) > 0);
    rig_assert_out(&rig, expected);
    rig_expect("fds", NULL, "0\n1\n2\n");
    rig_expect("cat", "/proc/self/fd/0", "");
    rig_expect("devices", NULL, "ok\nok\n");
}

static void shows_only_its_root(void **state) {
    (void)state;
    kiln_autofree char *expected = NULL;
    assert_true(asprintf(&expected, "bin\ndev\n%sjob\n%s\nlib\nlib64\nproc\n%stmp\nusr\n", RIG_LEAKS ? "" : "etc\n",
                         kiln_sandbox_root() + 1, RIG_LEAKS ? "" : "sys\n") > 0);
    rig_expect("list", "/", expected);
    rig_expect("list", "/dev", "null\nrandom\nurandom\nzero\n");
    rig_expect("list", "/tmp", "");
    rig_expect("list", "/etc", RIG_LEAKS ? "ENOENT\n" : "hostname\nhosts\nresolv.conf\n");
    rig_expect("list", "/sys", RIG_LEAKS ? "ENOENT\n" : "");
    rig_expect("cat", "/etc/passwd", "ENOENT\n");
    rig_expect("cat", KILN_SOURCE_DIR "/CMakeLists.txt", "ENOENT\n");
}

// A directory of the test with a file "a.rs", a directory "inner" and a link "link" to it; removed by remove_source.
static int make_source(char template[]) {
    assert_non_null(mkdtemp(template));
    int dir = open(template, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_fs_write_file(dir, "a.rs", "fn a", 4, 0666, NULL), 0);
    assert_int_equal(mkdirat(dir, "inner", 0777), 0);
    assert_int_equal(symlinkat("inner", dir, "link"), 0);
    // Modes let everybody write: only the mount forbids it.
    assert_int_equal(fchmodat(dir, "inner", 0777, 0), 0);
    assert_int_equal(fchmod(dir, 0777), 0);
    return dir;
}

static void remove_source(const char *path) { assert_int_equal(kiln_fs_remove_tree(AT_FDCWD, path, NULL), 0); }

static void gives_binds_read_only(void **state) {
    (void)state;
    static const struct {
        const char *job, *path;
        bool by_mode; // the mode may forbid it first: as root the job is not the owner
    } writes[] = {{"create", "new", false},    {"change", "a.rs", false}, {"create", "inner/new", false},
                  {"create", "/usr/new", true}, {"create", "/new", true},  {"change", "/job", true},
                  {"create", "/dev/new", true}, {"change", "/dev/urandom", true}};
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    int dir = make_source(path);
    for (size_t i = 0; i < sizeof writes / sizeof *writes; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_bind_fd(&rig, dup(dir), rig.spec.cwd, false);
        rig_run(&rig, writes[i].job, writes[i].path, NULL);
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        if (!writes[i].by_mode || strcmp(kiln_buf_text(&rig.out), "EACCES\n") != 0)
            rig_assert_out(&rig, "EROFS\n");
    }
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_bind_fd(&rig, dir, rig.spec.cwd, false);
    rig_run(&rig, "cat", "a.rs", NULL);
    rig_assert_out(&rig, "fn a");
    remove_source(path);
}

static void binds_below_binds_where_they_fit(void **state) {
    (void)state;
    char path[] = "/tmp/kiln-sandbox-XXXXXX", other_path[] = "/tmp/kiln-test-XXXXXX";
    int dir = make_source(path);
    int other = make_source(other_path);
    static const struct {
        const char *below;
        const char *refusal; // NULL: fits
    } cases[] = {{"inner", NULL},
                 {"absent", "has no real directory there"},
                 {"link", "has no real directory there"},
                 {"a.rs", "has no real directory there"},
                 {"link/deep", "has no real directory there"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        kiln_autofree char *dest = kiln_path_join(rig.spec.cwd, cases[i].below);
        rig_bind_fd(&rig, dup(other), dest, false); // before its parent, on purpose
        rig_bind_fd(&rig, dup(dir), rig.spec.cwd, false);
        rig_command(&rig, "/job", "list", "inner", NULL);
        int rc = rig_start(&rig);
        if (!cases[i].refusal) {
            assert_int_equal(rc, 0);
            rig_finish(&rig);
            rig_assert_out(&rig, "a.rs\ninner\nlink\n");
        } else {
            assert_int_equal(rc, KILN_E_DENIED);
            assert_non_null(strstr(rig.err.text, cases[i].refusal));
            assert_non_null(strstr(rig.err.text, dest));
        }
    }
    assert_int_equal(faccessat(dir, "absent", F_OK, 0), -1);
    close(dir);
    close(other);
    remove_source(path);
    remove_source(other_path);
}

static void writes_go_to_its_own_directories(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    kiln_autofree char *file = kiln_path_join(rig.spec.out_dir, "lib.rlib");
    rig_run(&rig, "put", file, "bytes", NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    rig_assert_out(&rig, "ok\n");
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(100);
    assert_int_equal(kiln_fs_read_file(rig.session.out_dir, "lib.rlib", &bytes, NULL), 0);
    assert_string_equal(kiln_buf_text(&bytes), "bytes");
    struct stat st;
    assert_int_equal(fstat(rig.session.out_dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_not_equal(st.st_uid, 0);
    rig_expect("create", "/tmp/x", "ok\n");
}

static void gives_the_observer_its_files(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    kiln_autofree char *object = kiln_path_join(rig.spec.observer_dir, "object.so");
    kiln_autofree char *seed = kiln_path_join(rig.spec.observer_dir, "seed");
    rig_bind(&rig, RIG_JOB, object);
    rig.files[rig.spec.files_count++] =
        (struct kiln_run_file){(char *)"/etc/ld.so.preload", (unsigned char *)"/none.so\n", 9};
    rig_run(&rig, "run", object, "cat", seed, NULL);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    assert_int_equal(rig.out.len, sizeof rig.spec.seed);
    assert_memory_equal(rig.out.data, rig.spec.seed, sizeof rig.spec.seed);
    // ld.so tells that it read /etc/ld.so.preload.
    assert_non_null(strstr(kiln_buf_text(&rig.errout), "/none.so"));
    int log = openat(rig.session.observer_dir, "log", O_RDWR | O_CLOEXEC);
    struct stat st;
    struct kiln_observe_header header;
    assert_int_equal(fstat(log, &st), 0);
    assert_int_equal(st.st_size, KILN_OBSERVE_LOG_BYTES);
    assert_int_equal(pread(log, &header, sizeof header, 0), sizeof header);
    assert_int_equal(header.magic, KILN_OBSERVE_MAGIC);
    assert_int_equal(header.version, KILN_OBSERVE_VERSION);
    assert_int_equal(header.capacity, KILN_OBSERVE_LOG_BYTES - sizeof header);
    assert_int_equal(header.used, 0);
    close(log);
}

static void the_job_can_write_the_observers_log(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    kiln_autofree char *log = kiln_path_join(rig.spec.observer_dir, "log");
    rig_run(&rig, "change", log, NULL);
    rig_assert_out(&rig, "ok\n");
}

static void random_bytes_follow_the_seed(void **state) {
    (void)state;
    unsigned char expected[2][64u << 10];
    for (int i = 0; i < 2; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        memset(rig.spec.seed, i, sizeof rig.spec.seed);
        kiln_root_noise(rig.spec.seed, expected[i], sizeof expected[i]);
        rig_run(&rig, "cat", i ? "/dev/random" : "/dev/urandom", NULL);
        assert_int_equal(rig.out.len, sizeof expected[i]);
        assert_memory_equal(rig.out.data, expected[i], sizeof expected[i]);
    }
    assert_memory_not_equal(expected[0], expected[1], sizeof expected[0]);
}

static void finds_sources_under_the_place_of_the_root(void **state) {
    (void)state;
    // The root is mounted over /tmp inside; a bind whose source lies there is found all the same.
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    int dir = make_source(path);
    rig_auto struct rig rig;
    rig_init(&rig);
    rig_bind_fd(&rig, dir, "/src", false);
    rig_run(&rig, "list", "/src", NULL);
    rig_assert_out(&rig, "a.rs\ninner\nlink\n");
    remove_source(path);
}

static void refuses_a_source_that_moved(void **state) {
    (void)state;
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    int dir = make_source(path);
    int inner = openat(dir, "inner", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(renameat(dir, "inner", dir, "elsewhere"), 0);
    int moved = openat(dir, "elsewhere", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(unlinkat(dir, "elsewhere", AT_REMOVEDIR), 0);
    // What the kernel calls the removed directory; another one may bear that name.
    assert_int_equal(mkdirat(dir, "elsewhere (deleted)", 0755), 0);
    int sources[] = {inner, moved};
    for (size_t i = 0; i < 2; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_bind_fd(&rig, sources[i], "/src", false);
        rig_command(&rig, "/job", "hello", NULL);
        assert_int_equal(rig_start(&rig), KILN_E_DENIED);
        assert_non_null(strstr(rig.err.text, "bind /src"));
    }
    close(dir);
    remove_source(path);
}

static void refuses_bad_layouts(void **state) {
    (void)state;
    rig_auto struct rig rig;
    rig_init(&rig);
    const char *out_dir = rig.spec.out_dir;
    rig_command(&rig, "/job", "hello", NULL);
    struct kiln_run_file inside = {(char *)"/usr/inside", (unsigned char *)"x", 1};
    rig.files[0] = inside;
    rig.spec.files_count = 1;
    assert_int_equal(rig_start(&rig), KILN_E_DENIED);
    assert_non_null(strstr(rig.err.text, "lies in the mount at /usr"));
    rig.spec.files_count = 0;
    rig.spec.tmp_dir = (char *)out_dir;
    assert_int_equal(rig_start(&rig), KILN_E_DENIED);
    assert_non_null(strstr(rig.err.text, "two mounts at"));
    rig.spec.tmp_dir = (char *)"/tmp/../x";
    assert_int_equal(rig_start(&rig), KILN_E_DENIED);
    assert_non_null(strstr(rig.err.text, "tmp directory"));
    rig.spec.tmp_dir = (char *)"/usr/tmp-absent";
    assert_int_equal(rig_start(&rig), KILN_E_DENIED);
    assert_non_null(strstr(rig.err.text, "has no real directory there"));
}

static void says_when_bwrap_is_missing_or_not_trusted(void **state) {
    (void)state;
    if (!RIG_LEAKS)
        skip();
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    int dir = make_source(path);
    kiln_autofree char *script = kiln_path_join(path, "a.rs");
    assert_int_equal(fchmodat(dir, "a.rs", 0777, 0), 0);
    const struct {
        const char *bwrap, *text;
    } cases[] = {{"/absent/bwrap", "install bubblewrap"}, {script, "can be changed by others"}};
    for (size_t i = 0; i < 2; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig.bwrap = cases[i].bwrap;
        rig_command(&rig, "/job", "hello", NULL);
        assert_int_equal(rig_start(&rig), KILN_E_DENIED);
        assert_non_null(strstr(rig.err.text, cases[i].text));
    }
    close(dir);
    remove_source(path);
}

// A bwrap of the user's own: in a user namespace without root, nobody knows whose the host's is.
static void copy_bwrap(const char *to) {
    kiln_autofd int in = open("/usr/bin/bwrap", O_RDONLY | O_CLOEXEC);
    kiln_autofd int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    assert_int_equal(kiln_fs_copy_fd(in, out, 64u << 20, NULL, NULL), 0);
}

// Starts a job in a child that first loses something; the refusal's text comes back through a file.
static void refuse_without(bool (*lose)(void), const char *const *texts) {
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    int dir = make_source(path);
    kiln_autofree char *bwrap = kiln_path_join(path, "bwrap");
    copy_bwrap(bwrap);
    kiln_autofd int file = openat(dir, "text", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    pid_t child = fork();
    if (child == 0) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig.bwrap = bwrap;
        rig_command(&rig, "/job", "hello", NULL);
        if (!lose())
            _exit(77);
        int rc = rig_start(&rig);
        dprintf(file, "%s", rc ? rig.err.text : "started");
        _exit(rc == KILN_E_DENIED ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1000);
    rig_read_text(file, &text);
    close(dir);
    remove_source(path);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); // this host does not let the test take it away
    for (size_t i = 0; texts[i]; i++)
        if (!strstr(kiln_buf_text(&text), texts[i]))
            fail_msg("\"%s\" is not in: %s", texts[i], kiln_buf_text(&text));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static bool write_text(const char *path, const char *text) {
    kiln_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static bool lose_user_namespaces(void) {
    char uid_map[48], gid_map[48];
    snprintf(uid_map, sizeof uid_map, "%u %u 1", geteuid(), geteuid());
    snprintf(gid_map, sizeof gid_map, "%u %u 1", getegid(), getegid());
    return unshare(CLONE_NEWUSER) == 0 && write_text("/proc/self/setgroups", "deny") &&
           write_text("/proc/self/uid_map", uid_map) && write_text("/proc/self/gid_map", gid_map) &&
           write_text("/proc/sys/user/max_user_namespaces", "0");
}

static bool lose_administration(void) { return prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN) == 0; }

#ifdef RIG_DOCKER
// User namespaces and the rights to make others: dockerd has them, kiln-run-docker needs none.
static void starts_without_what_bwrap_needs(void) {
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 ? !lose_administration() : !lose_user_namespaces())
            _exit(77);
        rig_auto struct rig rig;
        rig_init(&rig);
        rig_run(&rig, "hello", NULL);
        rig_assert_end(&rig, KILN_END_EXIT, 0);
        _exit(strcmp(kiln_buf_text(&rig.out), "hello\n") != 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip(); // this host does not let the test take them away
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif


static void says_which_wall_is_missing(void **state) {
    (void)state;
#ifdef RIG_DOCKER
    starts_without_what_bwrap_needs();
    return;
#endif
    if (geteuid() == 0) {
        static const char *const texts[] = {"root without CAP_SYS_ADMIN", "ordinary user", NULL};
        refuse_without(lose_administration, texts);
        static const char *const mapped[] = {"without uid 65534", "ordinary user", NULL};
        refuse_without(lose_user_namespaces, mapped);
    } else {
        static const char *const texts[] = {"refuses a user namespace", "sysctl user.max_user_namespaces", NULL};
        refuse_without(lose_user_namespaces, texts);
    }
}

static void says_when_bwrap_fails(void **state) {
    (void)state;
    static const struct {
        const char *bwrap, *program, *text;
    } cases[] = {{"/usr/bin/false", "/job", "bwrap died"}, {NULL, "/absent", "/absent: No such file or directory"}};
    for (size_t i = RIG_LEAKS ? 0 : 1; i < 2; i++) {
        rig_auto struct rig rig;
        rig_init(&rig);
        rig.bwrap = cases[i].bwrap;
        rig_command(&rig, cases[i].program, NULL);
        rig_go(&rig);
        rig_assert_end(&rig, KILN_END_BROKEN, 0);
        assert_non_null(strstr(rig.report.text, cases[i].text));
    }
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.spec.cwd = (char *)"/usr/absent";
    rig_command(&rig, "/job", "hello", NULL);
    rig_go(&rig);
    rig_assert_end(&rig, KILN_END_BROKEN, 0);
    assert_non_null(strstr(rig.report.text, "chdir"));
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(runs_a_job),
        cmocka_unit_test(reports_exit_codes_and_signals),
        cmocka_unit_test(gives_the_environment_and_no_more),
        cmocka_unit_test(shows_one_identity),
        cmocka_unit_test(shows_only_its_root),
        cmocka_unit_test(gives_binds_read_only),
        cmocka_unit_test(binds_below_binds_where_they_fit),
        cmocka_unit_test(writes_go_to_its_own_directories),
        cmocka_unit_test(gives_the_observer_its_files),
        cmocka_unit_test(the_job_can_write_the_observers_log),
        cmocka_unit_test(random_bytes_follow_the_seed),
        cmocka_unit_test(finds_sources_under_the_place_of_the_root),
        cmocka_unit_test(refuses_a_source_that_moved),
        cmocka_unit_test(refuses_bad_layouts),
        cmocka_unit_test(says_when_bwrap_is_missing_or_not_trusted),
        cmocka_unit_test(says_which_wall_is_missing),
        cmocka_unit_test(says_when_bwrap_fails),
    };
    return cmocka_run_group_tests_name("sandbox", all, NULL, NULL);
}

int main(void) { return rig_both(tests); }
