// A real rustc in the sandbox: a library and a linked program, the same bytes each time.
#include "tests/integration/sysroot_rig.h"

#include "lib/core/digest.h"

static const char lib_source[] = "pub fn answer() -> u32 { 42 }\n";
static const char bin_source[] = "use std::collections::HashMap;\n"
                                 "fn main() { let mut m = HashMap::new(); m.insert(1, \"one\"); println!(\"{}\", m[&1]); }\n";

static int make_sources(char template[]) {
    assert_non_null(mkdtemp(template));
    assert_int_equal(chmod(template, 0755), 0);
    int dir = open(template, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_fs_write_file(dir, "lib.rs", lib_source, strlen(lib_source), 0644, NULL), 0);
    assert_int_equal(kiln_fs_write_file(dir, "main.rs", bin_source, strlen(bin_source), 0644, NULL), 0);
    return dir;
}

// Compiles one of the sources; the digest of `output` in *digest.
static void compile(int sources, const char *source, const char *type, const char *output, const char *save,
                    struct kiln_digest *digest) {
    rig_auto struct rig rig;
    rig_init(&rig);
    rig.spec.out_bytes = rig.spec.tmp_bytes = rig.spec.file_bytes = 1u << 30;
    rig.spec.memory_bytes = 4ull << 30;
    rig.spec.wall_ms = COMPILE_MS;
    char *place = rig_place(&rig, 3, KILN_PLACE_SYSROOT);
    rig_bind(&rig, sysroot, place);
    rig_bind_fd(&rig, dup(sources), rig.spec.cwd, false);
    rig.env[rig.spec.env_count++] = (char *)"PATH=/usr/bin";
    kiln_autofree char *rustc = kiln_path_join(place, "bin/rustc");
    rig_command(&rig, rustc, "--crate-name", "made", "--edition", "2021", source, "--crate-type", type,
                "--emit=dep-info,link", "--out-dir", rig.spec.out_dir, "-Cdebuginfo=2",
                "-Clinker=gcc", NULL); // not cc: Debian makes that a link into /etc
    rig_go(&rig);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    assert_int_equal(faccessat(rig.session.out_dir, "made.d", F_OK, 0), 0);
    kiln_autofd int fd = -1;
    assert_int_equal(kiln_fs_open_beneath(rig.session.out_dir, output, O_RDONLY, &fd, NULL), 0);
    assert_int_equal(kiln_digest_of_fd(fd, 1u << 30, digest, NULL, NULL), 0);
    if (!save)
        return;
    kiln_autofd int copy = open(save, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(kiln_fs_copy_fd(fd, copy, 1u << 30, NULL, NULL), 0);
}

static void compiles_a_library(void **state) {
    (void)state;
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    kiln_autofd int sources = make_sources(path);
    struct kiln_digest first, second;
    compile(sources, "lib.rs", "lib", "libmade.rlib", NULL, &first);
    compile(sources, "lib.rs", "lib", "libmade.rlib", NULL, &second);
    assert_true(kiln_digest_equal(&first, &second));
    kiln_fs_remove_tree(AT_FDCWD, path, NULL);
}

static void compiles_and_links_a_program(void **state) {
    (void)state;
    char path[] = "/tmp/kiln-sandbox-XXXXXX";
    kiln_autofd int sources = make_sources(path);
    kiln_autofree char *program = kiln_path_join(path, "made");
    struct kiln_digest digest;
    compile(sources, "main.rs", "bin", "made", program, &digest);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1000), errout = KILN_BUF_INIT(1000);
    char *const argv[] = {program, NULL}, *const envp[] = {NULL};
    const struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp};
    int status;
    assert_int_equal(kiln_proc_run(&options, kiln_clock_ms() + 10000, &out, &errout, &status, NULL), 0);
    assert_int_equal(status, 0);
    assert_string_equal(kiln_buf_text(&out), "one\n");
    kiln_fs_remove_tree(AT_FDCWD, path, NULL);
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(compiles_a_library),
        cmocka_unit_test(compiles_and_links_a_program),
    };
    return cmocka_run_group_tests_name("sandboxed rustc", all, NULL, NULL);
}

int main(void) { return rig_both_with_sysroot(tests); }
