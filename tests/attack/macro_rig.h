// What the tests with hostile proc macros share: the macro (attack_macro.rs), built outside, and compiles that use it.
#pragma once

#include "tests/integration/sysroot_rig.h"

#define COMPILE_BYTES (512ull << 20)
#define MACRO "/macro/libattack_macro.so"

static char home[] = "/tmp/kiln-attacks-XXXXXX"; // the macro, the copied toolchain, what a test puts there

static inline bool build_macro(void) {
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(4096), out = KILN_BUF_INIT(65536);
    kiln_buf_addf(&line, "rustc --edition 2021 --crate-type proc-macro --out-dir '%s' -L native='%s/tests' -l static=kiln_attacks "
                         "'%s/tests/attack/attack_macro.rs' 2>&1", home, KILN_BINARY_DIR, KILN_SOURCE_DIR);
    bool built = shell(kiln_buf_text(&line), &out);
    if (!built)
        fprintf(stderr, "%s\n", kiln_buf_text(&out));
    return built;
}

static inline void macro_rig_init(struct rig *rig) {
    rig_init(rig);
    rig_bind(rig, rig_program("tests/attacker"), "/attacker");
    rig_bind(rig, home, "/macro");
}

// A library of that source, compiled as the executor does it, with the observer.
static inline void macro_compile(struct rig *rig, const char *source) {
    char sources[] = "/tmp/kiln-attack-XXXXXX", preload[300];
    assert_non_null(mkdtemp(sources));
    assert_int_equal(chmod(sources, 0755), 0);
    kiln_autofd int dir = open(sources, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(kiln_fs_write_file(dir, "lib.rs", source, strlen(source), 0644, NULL), 0);
    if (rig->spec.memory_bytes < COMPILE_BYTES)
        rig->spec.memory_bytes = COMPILE_BYTES;
    char *place = rig_place(rig, 3, KILN_PLACE_SYSROOT), *object = rig->places[4] = kiln_place(KILN_PLACE_OBSERVER, "observe.so");
    rig_bind(rig, sysroot, place);
    rig_bind(rig, sources, rig->spec.cwd);
    rig_bind(rig, rig_program("consumer/libkiln-observe.so"), object);
    snprintf(preload, sizeof preload, "%s\n", object);
    rig->files[rig->spec.files_count++] =
        (struct kiln_run_file){(char *)"/etc/ld.so.preload", (unsigned char *)preload, strlen(preload)};
    rig->env[rig->spec.env_count++] = (char *)"PATH=/usr/bin";
    kiln_autofree char *rustc = kiln_path_join(place, "bin/rustc");
    rig_command(rig, rustc, "--crate-name", "made", "--edition", "2021", "lib.rs", "--crate-type", "lib", "--emit=metadata",
                "--out-dir", rig->spec.out_dir, "--extern", "attack_macro=" MACRO, NULL);
    rig_go(rig);
    kiln_fs_remove_tree(AT_FDCWD, sources, NULL);
}

// For main: prepares (NULL: nothing to), then runs the tests as root and as an ordinary user.
static inline int macro_rig_main(bool (*prepare)(void), int (*tests)(void)) {
    if (!mkdtemp(home) || chmod(home, 0755))
        return 1;
    int failed = 77;
    if (!find_sysroot(home))
        fprintf(stderr, "skipped: rustc is not in PATH\n");
    else
        failed = build_macro() && (!prepare || prepare()) ? rig_both(tests) : 1;
    kiln_fs_remove_tree(AT_FDCWD, home, NULL);
    return failed;
}
