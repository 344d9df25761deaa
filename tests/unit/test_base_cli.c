// Commands and options from a table: parsed, refused with the nearest, and shown.
#include "scratch.h"

#include <sys/wait.h>

#include "lib/base/cli.h"

static int run_nothing(const struct kiln_cli_call *call) {
    (void)call;
    return KILN_EXIT_OK;
}

static const struct kiln_cli_option copy_options[] = {
    {"json", NULL, "Print JSON."},
    {"dir", "DIR", "Where to."},
    {"depth", "COUNT", "How deep."},
};
static const struct kiln_cli_command copy = {
    .name = "copy", .operands = "FILE", .operands_max = 1, .help = "Copy a file.", .details = "Slowly, and with care.",
    .options = copy_options, .options_count = 3, .run = run_nothing};
static const struct kiln_cli_command inner = {.name = "inner", .help = ".starts with a dot", .run = run_nothing};
static const struct kiln_cli_command *const group_commands[] = {&inner, NULL};
static const struct kiln_cli_command group = {.name = "group", .help = "A group.", .commands = group_commands};
static const struct kiln_cli_command *const commands[] = {&copy, &group, NULL};
static const struct kiln_cli_option program_options[] = {{"version", NULL, "Print the version."}};
static const struct kiln_cli_section sections[] = {{"Files", "back\\slash and a-hyphen."}, {NULL, NULL}};
static const struct kiln_cli_command program = {
    .name = "prog", .help = "Does things.", .options = program_options, .options_count = 1, .commands = commands,
    .sections = sections, .run = run_nothing};

// Splits at spaces; "''" is an empty argument.
static int parse(const char *line, struct kiln_cli_call *call, struct kiln_err *err) {
    static char text[512], *argv[32];
    snprintf(text, sizeof text, "%s", line);
    int argc = 0;
    char *rest = text;
    for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " "))
        argv[argc++] = strcmp(word, "''") ? word : TEXT("");
    argv[argc] = NULL;
    return kiln_cli_parse(&program, argc, argv, call, err);
}

static const struct good_case {
    const char *line, *command, *dir, *operand;
    bool json, help;
} good_cases[] = {
    {"prog", "prog", NULL, NULL, false, false},
    {"prog copy", "copy", NULL, NULL, false, false},
    {"prog copy --json", "copy", NULL, NULL, true, false},
    {"prog copy --dir /x f", "copy", "/x", "f", false, false},
    {"prog copy f --dir=/x --json", "copy", "/x", "f", true, false},
    {"prog copy --dir= f", "copy", "", "f", false, false},
    {"prog copy --dir /x --dir /y", "copy", "/y", NULL, false, false},
    {"prog copy --js", "copy", NULL, NULL, true, false},
    {"prog copy -- --json", "copy", NULL, "--json", false, false},
    {"prog copy --help --unknown", "copy", NULL, NULL, false, true},
    {"prog -h", "prog", NULL, NULL, false, true},
    {"prog group --help", "group", NULL, NULL, false, true},
    {"prog group inner", "inner", NULL, NULL, false, false},
};

static void test_good_lines(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof good_cases / sizeof *good_cases; i++) {
        const struct good_case *one = &good_cases[i];
        struct kiln_cli_call call;
        struct kiln_err err;
        if (parse(one->line, &call, &err))
            fail_msg("%s: %s", one->line, err.text);
        assert_string_equal(call.command->name, one->command);
        assert_int_equal(call.wants_help, one->help);
        if (call.command != &copy || one->help)
            continue;
        assert_int_equal(kiln_cli_flag(&call, "json"), one->json);
        const char *dir = kiln_cli_text(&call, "dir");
        assert_true(one->dir ? dir && !strcmp(dir, one->dir) : !dir);
        assert_int_equal(call.operands_count, one->operand != NULL);
        if (one->operand)
            assert_string_equal(call.operands[0], one->operand);
    }
}

static const struct {
    const char *line;
    const char *says[3]; // parts of the message
} bad_cases[] = {
    {"prog copt", {"\"copt\"", "did you mean \"copy\"?"}},
    {"prog cpoy", {"did you mean \"copy\"?"}},
    {"prog xyzzy", {"unknown command \"xyzzy\"", "prog --help"}},
    {"prog ''", {"unknown command \"\""}},
    {"prog copy --jsn", {"prog copy:", "\"--jsn\"", "did you mean \"--json\"?"}},
    {"prog copy --jsn=1", {"\"--jsn=1\"", "did you mean \"--json\"?"}},
    {"prog copy --completely-different", {"unknown option", "prog copy --help"}},
    {"prog copy --d x", {"unknown option \"--d\""}}, // dir or depth
    {"prog copy -x", {"unknown option \"-x\""}},
    {"prog copy --json=1", {"no value goes with the option"}},
    {"prog copy f --dir", {"a value is missing for the option \"--dir\""}},
    {"prog copy f g", {"unexpected argument \"g\""}},
    {"prog group", {"a command is missing"}},
    {"prog group inne", {"did you mean \"inner\"?"}},
    {"prog group inner x", {"unexpected argument \"x\""}},
    {"prog --json copy", {"unknown option \"--json\""}},
};

static void test_bad_lines(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_cases / sizeof *bad_cases; i++) {
        struct kiln_cli_call call = {.depth = 77};
        struct kiln_err err;
        if (parse(bad_cases[i].line, &call, &err) != KILN_E_INVAL)
            fail_msg("accepted: %s", bad_cases[i].line);
        assert_int_equal(call.depth, 77);
        for (size_t k = 0; k < 3 && bad_cases[i].says[k]; k++)
            if (!strstr(err.text, bad_cases[i].says[k]))
                fail_msg("%s: \"%s\" is not in: %s", bad_cases[i].line, bad_cases[i].says[k], err.text);
    }
}

static void test_hostile_words(void **state) {
    (void)state;
    char line[400];
    struct kiln_cli_call call;
    memset(line, 'a', sizeof line - 1);
    line[sizeof line - 1] = 0;
    memcpy(line, "prog ", 5);
    assert_int_equal(parse(line, &call, NULL), KILN_E_INVAL);
    memcpy(line, "prog copy --", 12);
    assert_int_equal(parse(line, &call, NULL), KILN_E_INVAL);
}

static void assert_holds(struct kiln_buf *text, const char *const *parts) {
    for (; *parts; parts++)
        if (!strstr(kiln_buf_text(text), *parts))
            fail_msg("\"%s\" is not in:\n%s", *parts, kiln_buf_text(text));
}

static void test_help(void **state) {
    (void)state;
    struct kiln_cli_call call;
    struct kiln_err err;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 16);
    assert_ok(parse("prog copy --help", &call, &err));
    assert_ok(kiln_cli_help(&call, &text));
    static const char *const copy_parts[] = {"Usage: prog copy [--json] [--dir DIR] [--depth COUNT] FILE\n",
                                             "Copy a file.\n", "Slowly, and with care.", "--dir DIR", "Where to.",
                                             "--help", "Exit status:", NULL};
    assert_holds(&text, copy_parts);
    kiln_buf_reset(&text);
    assert_ok(parse("prog --help", &call, &err));
    assert_ok(kiln_cli_help(&call, &text));
    static const char *const program_parts[] = {"copy FILE", "group", "--version", "Files:\n  back\\slash", NULL};
    assert_holds(&text, program_parts);
    for (const char *line = kiln_buf_text(&text); *line; line = strchrnul(line, '\n') + (*strchrnul(line, '\n') != 0))
        assert_true(strcspn(line, "\n") <= 100);
}

static void test_manual_page(void **state) {
    (void)state;
    struct kiln_err err;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 16);
    assert_ok(kiln_cli_man(&program, &text));
    static const char *const parts[] = {".TH PROG 1", ".SH NAME\nprog \\- Does things.", ".SS prog copy [\\-\\-json]",
                                        "\\fB\\-\\-dir\\fR \\fIDIR\\fR\nWhere to.", ".SS prog group inner",
                                        "\\&.starts with a dot", "back\\eslash and a\\-hyphen.", ".SH EXIT STATUS", NULL};
    assert_holds(&text, parts);
}

// Asks bash itself.
static void test_bash_completion(void **state) {
    const struct scratch *scratch = *state;
    struct kiln_err err;
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(1u << 16);
    assert_ok(kiln_cli_bash(&program, &text));
    kiln_buf_add_str(&text, "check() { want=$1; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($#-1)); _prog;\n"
                            "  [ \"${COMPREPLY[*]}\" = \"$want\" ] || { echo \"$*: ${COMPREPLY[*]}\"; exit 1; }; }\n"
                            "check 'copy' prog c\n"
                            "check 'copy group --version --help' prog ''\n"
                            "check '--json' prog copy --j\n"
                            "check '--json --dir --depth --help' prog copy file ''\n"
                            "check 'inner --help' prog group ''\n"
                            "check '--help' prog group inner ''\n"
                            "check '/usr' prog copy --dir /us\n");
    scratch_write(scratch, "check.sh", text.data, text.len);
    if (access("/bin/bash", X_OK))
        skip();
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/bash", "bash", scratch_path(scratch, "check.sh"), NULL);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_lines),   cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_hostile_words), cmocka_unit_test(test_help),
        cmocka_unit_test(test_manual_page),  scratch_test(test_bash_completion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
