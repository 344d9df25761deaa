#include <string.h>

#include "lib/base/cli.h"

#define LINE_COLUMNS 100
#define HELP_COLUMN 24

static const char exit_status[] = "0: done. 1: what was asked for could not be done; standard error says why. "
                                  "2: the command line is wrong. A wrapped compiler's own status and signals are passed on.";

// Words of `text` filled into lines that start at `column`; the first line stands there already.
static void add_filled(struct kiln_buf *out, const char *text, size_t column) {
    size_t at = column;
    for (const char *word = text; *word;) {
        size_t len = strcspn(word, " ");
        if (at > column && at + 1 + len > LINE_COLUMNS) {
            kiln_buf_addf(out, "\n%*s", (int)column, "");
            at = column;
        } else if (at > column) {
            kiln_buf_add_str(out, " ");
            at++;
        }
        kiln_buf_add(out, word, len);
        at += len;
        word += len + (word[len] == ' ');
    }
    kiln_buf_add_str(out, "\n");
}

static void add_entry(struct kiln_buf *out, const char *name, const char *value, const char *help) {
    size_t before = out->len;
    kiln_buf_addf(out, "  %s%s%s", name, value ? " " : "", value ? value : "");
    size_t used = out->len - before;
    if (used + 2 > HELP_COLUMN) {
        kiln_buf_add_str(out, "\n");
        used = 0;
    }
    kiln_buf_addf(out, "%*s", (int)(HELP_COLUMN - used), "");
    add_filled(out, help, HELP_COLUMN);
}

static void add_option(struct kiln_buf *out, const struct kiln_cli_option *option) {
    kiln_autobuf struct kiln_buf name = KILN_BUF_INIT(256);
    kiln_buf_addf(&name, "--%s", option->name);
    add_entry(out, kiln_buf_text(&name), option->value, option->help);
}

static void add_synopsis(struct kiln_buf *out, const char *name, const struct kiln_cli_command *command) {
    kiln_buf_add_str(out, name);
    for (size_t i = 0; i < command->options_count; i++) {
        const struct kiln_cli_option *option = &command->options[i];
        kiln_buf_addf(out, " [--%s%s%s]", option->name, option->value ? " " : "", option->value ? option->value : "");
    }
    if (command->commands)
        kiln_buf_addf(out, command->run ? " [COMMAND ...]" : " COMMAND ...");
    if (command->operands)
        kiln_buf_addf(out, " %s", command->operands);
}

static void add_name(struct kiln_buf *out, const struct kiln_cli_call *call) {
    for (size_t i = 0; i < call->depth; i++)
        kiln_buf_addf(out, "%s%s", i ? " " : "", call->path[i]->name);
}

int kiln_cli_help(const struct kiln_cli_call *call, struct kiln_buf *out) {
    const struct kiln_cli_command *command = call->command;
    kiln_autobuf struct kiln_buf name = KILN_BUF_INIT(1024);
    add_name(&name, call);
    kiln_buf_add_str(out, "Usage: ");
    add_synopsis(out, kiln_buf_text(&name), command);
    kiln_buf_add_str(out, "\n\n");
    add_filled(out, command->help, 0);
    if (command->details) {
        kiln_buf_add_str(out, "\n");
        add_filled(out, command->details, 0);
    }
    if (command->commands)
        kiln_buf_add_str(out, "\nCommands:\n");
    for (const struct kiln_cli_command *const *sub = command->commands; sub && *sub; sub++)
        add_entry(out, (*sub)->name, (*sub)->operands, (*sub)->help);
    kiln_buf_add_str(out, "\nOptions:\n");
    for (size_t i = 0; i < command->options_count; i++)
        add_option(out, &command->options[i]);
    add_entry(out, "--help", NULL, "Print this text.");
    for (const struct kiln_cli_section *section = command->sections; section && section->title; section++) {
        kiln_buf_addf(out, "\n%s:\n  ", section->title);
        add_filled(out, section->text, 2);
    }
    kiln_buf_add_str(out, "\nExit status:\n  ");
    add_filled(out, exit_status, 2);
    return kiln_buf_check(out, "the help text", NULL);
}

// Text for man(7): backslashes and hyphens are themselves, and no line begins with a control character.
static void add_roff(struct kiln_buf *out, const char *text) {
    if (*text == '.' || *text == '\'')
        kiln_buf_add_str(out, "\\&");
    for (; *text; text++) {
        if (*text == '\\')
            kiln_buf_add_str(out, "\\e");
        else if (*text == '-')
            kiln_buf_add_str(out, "\\-");
        else
            kiln_buf_add(out, text, 1);
    }
}

static void add_roff_option(struct kiln_buf *out, const struct kiln_cli_option *option) {
    kiln_buf_add_str(out, ".TP\n\\fB\\-\\-");
    add_roff(out, option->name);
    kiln_buf_add_str(out, "\\fR");
    if (option->value)
        kiln_buf_addf(out, " \\fI%s\\fR", option->value);
    kiln_buf_add_str(out, "\n");
    add_roff(out, option->help);
    kiln_buf_add_str(out, "\n");
}

static void add_roff_command(struct kiln_buf *out, const char *prefix, const struct kiln_cli_command *command) {
    kiln_autobuf struct kiln_buf name = KILN_BUF_INIT(1024);
    kiln_buf_addf(&name, "%s %s", prefix, command->name);
    if (command->run) {
        kiln_buf_add_str(out, ".SS ");
        kiln_autobuf struct kiln_buf synopsis = KILN_BUF_INIT(4096);
        add_synopsis(&synopsis, kiln_buf_text(&name), command);
        add_roff(out, kiln_buf_text(&synopsis));
        kiln_buf_add_str(out, "\n");
        add_roff(out, command->help);
        kiln_buf_add_str(out, "\n");
        if (command->details) {
            kiln_buf_add_str(out, ".PP\n");
            add_roff(out, command->details);
            kiln_buf_add_str(out, "\n");
        }
        for (size_t i = 0; i < command->options_count; i++)
            add_roff_option(out, &command->options[i]);
    }
    for (const struct kiln_cli_command *const *sub = command->commands; sub && *sub; sub++)
        add_roff_command(out, kiln_buf_text(&name), *sub);
}

static void add_upper(struct kiln_buf *out, const char *text) {
    for (; *text; text++) {
        char c = *text >= 'a' && *text <= 'z' ? (char)(*text - 'a' + 'A') : *text;
        kiln_buf_add(out, &c, 1);
    }
}

static void add_roff_section(struct kiln_buf *out, const char *title, const char *text) {
    kiln_buf_add_str(out, ".SH ");
    add_upper(out, title);
    kiln_buf_add_str(out, "\n");
    add_roff(out, text);
    kiln_buf_add_str(out, "\n");
}

int kiln_cli_man(const struct kiln_cli_command *program, struct kiln_buf *out) {
    kiln_buf_add_str(out, ".TH ");
    add_upper(out, program->name);
    kiln_buf_addf(out, " 1 \"\" \"kiln %s\"\n.SH NAME\n%s \\- ", KILN_VERSION, program->name);
    add_roff(out, program->help);
    kiln_buf_add_str(out, "\n.SH SYNOPSIS\n");
    kiln_autobuf struct kiln_buf synopsis = KILN_BUF_INIT(4096);
    add_synopsis(&synopsis, program->name, program);
    add_roff(out, kiln_buf_text(&synopsis));
    kiln_buf_add_str(out, "\n");
    if (program->details)
        add_roff_section(out, "description", program->details);
    kiln_buf_add_str(out, ".SH OPTIONS\n");
    for (size_t i = 0; i < program->options_count; i++)
        add_roff_option(out, &program->options[i]);
    add_roff_option(out, &(struct kiln_cli_option){"help", NULL, "Print help; every command has this option."});
    if (program->commands)
        kiln_buf_add_str(out, ".SH COMMANDS\n");
    for (const struct kiln_cli_command *const *sub = program->commands; sub && *sub; sub++)
        add_roff_command(out, program->name, *sub);
    for (const struct kiln_cli_section *section = program->sections; section && section->title; section++)
        add_roff_section(out, section->title, section->text);
    add_roff_section(out, "exit status", exit_status);
    return kiln_buf_check(out, "the manual page", NULL);
}

static void add_bash_words(struct kiln_buf *out, const struct kiln_cli_command *command) {
    for (const struct kiln_cli_command *const *sub = command->commands; sub && *sub; sub++)
        kiln_buf_addf(out, "%s ", (*sub)->name);
    for (size_t i = 0; i < command->options_count; i++)
        kiln_buf_addf(out, "--%s ", command->options[i].name);
    kiln_buf_add_str(out, "--help");
}

// A pattern per command; deeper ones first, because the words after a command may be anything.
static void add_bash_cases(struct kiln_buf *out, const char *prefix, const struct kiln_cli_command *command) {
    for (const struct kiln_cli_command *const *sub = command->commands; sub && *sub; sub++) {
        kiln_autobuf struct kiln_buf path = KILN_BUF_INIT(1024);
        kiln_buf_addf(&path, "%s %s", prefix, (*sub)->name);
        add_bash_cases(out, kiln_buf_text(&path), *sub);
    }
    kiln_buf_addf(out, "    \"%s\"*) words=\"", prefix);
    add_bash_words(out, command);
    kiln_buf_add_str(out, "\" ;;\n");
}

static void add_bash_values(struct kiln_buf *out, const struct kiln_cli_command *command) {
    for (size_t i = 0; i < command->options_count; i++) {
        const struct kiln_cli_option *option = &command->options[i];
        if (option->value)
            kiln_buf_addf(out, "    --%s) COMPREPLY=($(compgen -%c -- \"$cur\")); return ;;\n", option->name,
                          strcmp(option->value, "DIR") ? 'f' : 'd');
    }
    for (const struct kiln_cli_command *const *sub = command->commands; sub && *sub; sub++)
        add_bash_values(out, *sub);
}

int kiln_cli_bash(const struct kiln_cli_command *program, struct kiln_buf *out) {
    kiln_buf_addf(out,
                  "_%s() {\n"
                  "    local cur=${COMP_WORDS[COMP_CWORD]} path= word words\n"
                  "    case ${COMP_WORDS[COMP_CWORD-1]} in\n",
                  program->name);
    add_bash_values(out, program);
    kiln_buf_add_str(out, "    esac\n"
                          "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
                          "        case $word in -*) ;; *) path=\"$path $word\" ;; esac\n"
                          "    done\n"
                          "    case $path in\n");
    add_bash_cases(out, "", program);
    kiln_buf_addf(out,
                  "    esac\n"
                  "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                  "}\n"
                  "complete -o default -F _%s %s\n",
                  program->name, program->name);
    return kiln_buf_check(out, "the completion", NULL);
}
