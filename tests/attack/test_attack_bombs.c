// Proc macros that use up what they can, inside a real rustc: each is ended by its limit, and wins when just that limit is wide.
#include "tests/attack/macro_rig.h"

#define SHORT_MS 2500u

struct bomb {
    const char *macro;
    enum kiln_run_end end;
    const char *text;  // of the report
    const char *small; // what wins within the wide limit
};

static const struct bomb bombs[] = {
    {"bomb-forks 1000000", KILN_END_WALL, "ran longer", "bomb-forks 300"},
    {"bomb-memory 100000", KILN_END_MEMORY, "memory", "bomb-memory 700"},
    {"bomb-files 1000000", KILN_END_SPACE, "more files", "bomb-files 5000"},
    {"bomb-text 1000000", KILN_END_TEXT, "stderr grew", "bomb-text 2000"},
    {"bomb-size 1024", KILN_END_SPACE, "larger file", "bomb-size 1"},
    {"spin 1000000", KILN_END_WALL, "ran longer", "spin 5"},
    {"stop 1000000", KILN_END_WALL, "ran longer", NULL}, // nobody would wake it
};

static bool is_by_wall(const struct bomb *bomb) { return bomb->end == KILN_END_WALL; }

static void compile(struct rig *rig, const char *macro) {
    char source[100];
    snprintf(source, sizeof source, "attack_macro::attack!(\"%s\");\n", macro);
    macro_compile(rig, source);
}

// Without a control group, which an ordinary user has none of here, memory is refused and the macro has to give up by itself.
static bool ended_as_it_should(const struct bomb *bomb, const struct kiln_run_report *report) {
    if (bomb->end == KILN_END_MEMORY && geteuid() != 0)
        return report->end == KILN_END_SIGNAL || (report->end == KILN_END_EXIT && report->value);
    return report->end == (uint32_t)bomb->end && strstr(report->text, bomb->text);
}

static void are_ended(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        const struct bomb *bomb = &bombs[i];
        rig_auto struct rig rig;
        macro_rig_init(&rig);
        rig.spec.wall_ms = is_by_wall(bomb) ? SHORT_MS : COMPILE_MS;
        compile(&rig, bomb->macro);
        if (!ended_as_it_should(bomb, &rig.report))
            fail_msg("%s: ended by %u with %u, \"%s\"; %.300s", bomb->macro, rig.report.end, rig.report.value, rig.report.text,
                     kiln_buf_text(&rig.errout));
        assert_null(strstr(kiln_buf_text(&rig.out), "won"));
        assert_int_not_equal(faccessat(rig.session.out_dir, "libmade.rmeta", F_OK, 0), 0);
    }
}

static void win_within_wide_limits(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        if (!bombs[i].small)
            continue;
        rig_auto struct rig rig;
        macro_rig_init(&rig);
        rig.spec.wall_ms = COMPILE_MS;
        rig.spec.processes = 4000;
        rig.spec.memory_bytes = 4ull << 30;
        rig.spec.inodes = 100000;
        rig.spec.text_bytes = 64u << 20;
        rig.spec.file_bytes = 2ull << 40;
        compile(&rig, bombs[i].small);
        if (rig.report.end != KILN_END_EXIT || rig.report.value || !strstr(kiln_buf_text(&rig.out), "won"))
            fail_msg("%s: ended by %u with %u, \"%s\"; %.300s", bombs[i].small, rig.report.end, rig.report.value, rig.report.text,
                     kiln_buf_text(&rig.errout));
    }
}

static int tests(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(are_ended), cmocka_unit_test(win_within_wide_limits)};
    return cmocka_run_group_tests_name("bombs of macros", all, NULL, NULL);
}

int main(void) { return macro_rig_main(NULL, tests); }
