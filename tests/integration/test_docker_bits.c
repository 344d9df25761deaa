// The same job behind bubblewrap and in a container gives the same bytes: a library, a program, a proc macro, and a library whose
// macro puts into it what differs from run to run in a plain build.
#define RIG_DOCKER
#define RIG_DOCKER_USER_ONLY false
#include "tests/integration/sysroot_rig.h"

#include "lib/core/digest.h"

#define CRATES 4

static const struct crate {
    const char *name, *type, *output, *source;
} crates[CRATES] = {
    {"lib", "lib", "liblib.rlib", "pub fn answer() -> u32 { 42 }\n#[inline] pub fn twice<T: Clone>(t: &T) -> (T, T) { (t.clone(), t.clone()) }\n"},
    {"program", "bin", "program", "use std::collections::HashMap;\n"
                                  "fn main() { let mut m = HashMap::new(); m.insert(1, \"one\"); println!(\"{}\", m[&1]); }\n"},
    {"order", "proc-macro", "liborder.so",
     "use std::collections::HashMap;\n"
     "extern crate proc_macro;\n#[proc_macro] pub fn order(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n"
     "    let all: HashMap<u32, u32> = (0..200).map(|i| (i, i)).collect();\n"
     "    let host = std::fs::read_to_string(\"/proc/sys/kernel/hostname\").unwrap();\n"
     "    let bytes = std::fs::read(\"/dev/urandom\").unwrap();\n"
     "    let text = format!(\"{:?} {} {} {:?}\", all.keys().collect::<Vec<_>>(), std::process::id(), host.trim(), &bytes[..32]);\n"
     "    format!(\"pub const ORDER: &str = {:?};\", text).parse().unwrap()\n"
     "}\n"},
    {"user", "lib", "libuser.rlib", "extern crate order;\norder::order!();\n"},
};

static char home[64]; // sources, and the macro once it is compiled

static void start(struct rig *rig, bool bubblewrap, const struct crate *crate, const char *source) {
    rig_init(rig);
    rig->bubblewrap = bubblewrap;
    rig->spec.out_bytes = rig->spec.tmp_bytes = rig->spec.file_bytes = 1u << 30;
    rig->spec.memory_bytes = 4ull << 30;
    rig->spec.wall_ms = COMPILE_MS;
    char *place = rig_place(rig, 3, KILN_PLACE_SYSROOT), *object = rig_place(rig, 4, KILN_PLACE_OBSERVER);
    kiln_autofree char *observer = kiln_path_join(object, "observe.so"), *preload = NULL;
    assert_true(asprintf(&preload, "%s\n", observer) > 0);
    rig_bind(rig, sysroot, place);
    rig_bind(rig, home, rig->spec.cwd);
    rig_bind(rig, rig_program("consumer/libkiln-observe.so"), observer);
    rig->files[rig->spec.files_count++] =
        (struct kiln_run_file){(char *)"/etc/ld.so.preload", (unsigned char *)preload, strlen(preload)};
    rig->env[rig->spec.env_count++] = (char *)"PATH=/usr/bin";
    kiln_autofree char *rustc = kiln_path_join(place, "bin/rustc");
    rig_command(rig, rustc, "--crate-name", crate->name, "--edition", "2021", source, "--crate-type", crate->type,
                "--emit=dep-info,link", "--out-dir", rig->spec.out_dir, "-Cdebuginfo=2", "-Clinker=gcc", "-L.", NULL);
    rig_go(rig);
}

// The digest of the crate as one backend makes it; the macro's object is kept for its user.
static void compile(bool bubblewrap, const struct crate *crate, struct kiln_digest *digest) {
    rig_auto struct rig rig;
    char source[32];
    snprintf(source, sizeof source, "%s.rs", crate->name);
    start(&rig, bubblewrap, crate, source);
    rig_assert_end(&rig, KILN_END_EXIT, 0);
    kiln_autofd int fd = -1;
    assert_int_equal(kiln_fs_open_beneath(rig.session.out_dir, crate->output, O_RDONLY, &fd, NULL), 0);
    assert_int_equal(kiln_digest_of_fd(fd, 1u << 30, digest, NULL, NULL), 0);
    if (strcmp(crate->type, "proc-macro") != 0)
        return;
    kiln_autofree char *kept = kiln_path_join(home, crate->output);
    unlink(kept);
    kiln_autofd int copy = open(kept, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    assert_int_equal(kiln_fs_copy_fd(fd, copy, 1u << 30, NULL, NULL), 0);
}

static void both_backends_give_the_same_bytes(void **state) {
    (void)state;
    for (size_t i = 0; i < CRATES; i++) {
        struct kiln_digest behind_bwrap, contained;
        compile(true, &crates[i], &behind_bwrap);
        compile(false, &crates[i], &contained);
        if (!kiln_digest_equal(&behind_bwrap, &contained))
            fail_msg("%s differs", crates[i].output);
    }
}

static int tests(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(both_backends_give_the_same_bytes)};
    strcpy(home, "/tmp/kiln-bits-XXXXXX");
    if (!mkdtemp(home) || chmod(home, 0755))
        return 1;
    kiln_autofd int dir = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < CRATES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.rs", crates[i].name);
        if (kiln_fs_write_file(dir, name, crates[i].source, strlen(crates[i].source), 0644, NULL))
            return 1;
    }
    int failed = cmocka_run_group_tests_name("the same bits", all, NULL, NULL);
    kiln_fs_remove_tree(AT_FDCWD, home, NULL);
    return failed;
}

int main(void) { return rig_both_with_sysroot(tests); }
