#include "lib/base/cli.h"

#include <assert.h>
#include <getopt.h>
#include <stdint.h>
#include <string.h>

#define NAME_BYTES_MAX 48
#define HELP_VALUE 0x1000
#define OPTION_VALUE 0x1001 // of the first option; above every character that getopt returns

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

// Edit distance that counts two exchanged letters as one error (Damerau 1964, restricted form); names longer than the
// bound are far from everything.
static size_t distance(const char *a, const char *b) {
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > NAME_BYTES_MAX || b_len > NAME_BYTES_MAX)
        return SIZE_MAX;
    size_t rows[3][NAME_BYTES_MAX + 1];
    for (size_t k = 0; k <= b_len; k++)
        rows[0][k] = k;
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3], *above = rows[(i - 1) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t k = 1; k <= b_len; k++) {
            row[k] = least(least(above[k], row[k - 1]) + 1, above[k - 1] + (a[i - 1] != b[k - 1]));
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                row[k] = least(row[k], two_above[k - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}

// Near enough to be meant: a third of the letters wrong, but at least one and at most three.
static bool is_near(size_t errors, const char *name) {
    size_t allowed = strlen(name) / 3;
    return errors <= (allowed < 1 ? 1 : least(allowed, 3));
}

const struct kiln_cli_command *kiln_cli_find(const struct kiln_cli_command *const *commands, const char *name) {
    for (; commands && *commands; commands++)
        if (!strcmp((*commands)->name, name))
            return *commands;
    return NULL;
}

const char *kiln_cli_nearest(const struct kiln_cli_command *const *commands, const char *name) {
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (; commands && *commands; commands++) {
        size_t errors = distance(name, (*commands)->name);
        if (errors < best_distance) {
            best_distance = errors;
            best = (*commands)->name;
        }
    }
    return best && is_near(best_distance, best) ? best : NULL;
}

static const char *nearest_option(const struct kiln_cli_command *command, const char *name) {
    const char *best = "help";
    size_t best_distance = distance(name, best);
    for (size_t i = 0; i < command->options_count; i++) {
        size_t errors = distance(name, command->options[i].name);
        if (errors < best_distance) {
            best_distance = errors;
            best = command->options[i].name;
        }
    }
    return is_near(best_distance, best) ? best : NULL;
}

static void add_path(const struct kiln_cli_call *call, const char *separator, struct kiln_buf *out) {
    for (size_t i = 0; i < call->depth; i++)
        kiln_buf_addf(out, "%s%s", i ? separator : "", call->path[i]->name);
}

static int refuse(const struct kiln_cli_call *call, const char *what, const char *name, const char *nearest,
                  struct kiln_err *err) {
    kiln_autobuf struct kiln_buf path = KILN_BUF_INIT(1024);
    add_path(call, " ", &path);
    const char *command = kiln_buf_text(&path);
    if (nearest)
        return kiln_fail(err, KILN_E_INVAL, "%s: %s \"%s\"; did you mean \"%s\"?", command, what, name, nearest);
    return kiln_fail(err, KILN_E_INVAL, "%s: %s \"%s\"; see %s --help", command, what, name, command);
}

static int refuse_option(const struct kiln_cli_call *call, const char *argument, struct kiln_err *err) {
    char name[NAME_BYTES_MAX + 2];
    size_t dashes = strspn(argument, "-");
    size_t len = least(strcspn(argument + dashes, "="), sizeof name - 1);
    memcpy(name, argument + dashes, len);
    name[len] = 0;
    for (size_t i = 0; dashes == 2 && i < call->command->options_count; i++)
        if (!strcmp(call->command->options[i].name, name))
            return refuse(call, "no value goes with the option", argument, NULL, err);
    const char *nearest = dashes == 2 ? nearest_option(call->command, name) : NULL;
    kiln_autobuf struct kiln_buf spelled = KILN_BUF_INIT(NAME_BYTES_MAX + 3);
    if (nearest)
        kiln_buf_addf(&spelled, "--%s", nearest);
    return refuse(call, "unknown option", argument, nearest ? kiln_buf_text(&spelled) : NULL, err);
}

// Parses the options of one command; *used counts its name and options. A command with subcommands stops at the first
// operand.
static int parse_options(struct kiln_cli_call *call, int argc, char **argv, int *used, struct kiln_err *err) {
    const struct kiln_cli_command *command = call->command;
    assert(command->options_count <= KILN_CLI_OPTIONS_MAX);
    struct option table[KILN_CLI_OPTIONS_MAX + 2] = {{"help", no_argument, NULL, HELP_VALUE}};
    for (size_t i = 0; i < command->options_count; i++)
        table[i + 1] = (struct option){command->options[i].name,
                                       command->options[i].value ? required_argument : no_argument, NULL,
                                       OPTION_VALUE + (int)i};
    memset(call->values, 0, sizeof call->values);
    optind = 0; // glibc: start anew
    opterr = 0;
    for (;;) {
        int found = getopt_long(argc, argv, command->commands ? "+:h" : ":h", table, NULL);
        if (found == -1)
            break;
        if (found == ':')
            return refuse(call, "a value is missing for the option", argv[optind - 1], NULL, err);
        if (found == '?')
            return refuse_option(call, argv[optind - 1], err);
        if (found == 'h' || found == HELP_VALUE) {
            call->wants_help = true;
            return 0;
        }
        call->values[found - OPTION_VALUE] = optarg ? optarg : "";
    }
    *used = optind;
    return 0;
}

static int check_operands(const struct kiln_cli_call *call, struct kiln_err *err) {
    if (call->operands_count > call->command->operands_max)
        return refuse(call, "unexpected argument", call->operands[call->command->operands_max], NULL, err);
    if (!call->command->run)
        return refuse(call, "a command is missing after", call->command->name, NULL, err);
    return 0;
}

int kiln_cli_parse(const struct kiln_cli_command *program, int argc, char **argv, struct kiln_cli_call *call,
                   struct kiln_err *err) {
    struct kiln_cli_call got = {.path = {program}, .depth = 1, .command = program};
    for (;;) {
        int used = argc;
        int rc = parse_options(&got, argc, argv, &used, err);
        if (rc)
            return rc;
        got.operands = argv + used;
        got.operands_count = (size_t)(argc - used);
        if (got.wants_help || !got.command->commands || got.operands_count == 0)
            break;
        const struct kiln_cli_command *next = kiln_cli_find(got.command->commands, got.operands[0]);
        if (!next)
            return refuse(&got, "unknown command", got.operands[0],
                          kiln_cli_nearest(got.command->commands, got.operands[0]), err);
        assert(got.depth < KILN_CLI_DEPTH_MAX);
        got.path[got.depth++] = got.command = next;
        argc -= used;
        argv += used;
    }
    int rc = got.wants_help ? 0 : check_operands(&got, err);
    if (rc == 0)
        *call = got;
    return rc;
}

static size_t index_of(const struct kiln_cli_call *call, const char *name) {
    size_t i = 0;
    while (i < call->command->options_count && strcmp(call->command->options[i].name, name) != 0)
        i++;
    assert(i < call->command->options_count);
    return i;
}

bool kiln_cli_flag(const struct kiln_cli_call *call, const char *name) {
    size_t i = index_of(call, name);
    assert(!call->command->options[i].value);
    return call->values[i] != NULL;
}

const char *kiln_cli_text(const struct kiln_cli_call *call, const char *name) {
    size_t i = index_of(call, name);
    assert(call->command->options[i].value);
    return call->values[i];
}
