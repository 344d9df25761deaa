// A bubblewrap with holes, for tests that take one wall away and expect the attack to win. It stands where kiln-run finds bwrap,
// and leaves out what the variable KILN_WITHOUT of the job's own environment names, separated by commas: options of bwrap, or
//   empty-environment  bwrap itself is given a variable
//   closed-descriptors the job inherits a descriptor of a file of the host as number 77
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARGS_FD 3
#define FILTER_FD 5
#define BYTES_MAX (1u << 20)
#define LEAKED_FD 77

static const struct {
    const char *name;
    int values;
} options[] = {{"--uid", 1},     {"--gid", 1},      {"--hostname", 1}, {"--cap-drop", 1}, {"--json-status-fd", 1},
               {"--seccomp", 1}, {"--dev-bind", 2}, {"--proc", 1},     {"--chdir", 1},    {"--setenv", 2}};

static char args[BYTES_MAX];

static int values_of(const char *option) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (!strcmp(options[i].name, option))
            return options[i].values;
    return 0;
}

static const char *next(const char *text) { return text + strlen(text) + 1; }

static bool listed(const char *list, const char *word) {
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += len)
        if ((at == list || at[-1] == ',') && (at[len] == 0 || at[len] == ','))
            return true;
    return false;
}

static const char *find_without(const char *end) {
    for (const char *at = args; at < end; at = next(at)) {
        if (!strcmp(at, "--setenv") && !strcmp(next(at), "KILN_WITHOUT"))
            return next(next(at));
        for (int values = values_of(at); values; values--)
            at = next(at);
    }
    return "";
}

// The options that stay, in a descriptor of the same number.
static void write_rest(const char *end, const char *without) {
    int memfd = memfd_create("leaky", 0);
    for (const char *at = args; at < end;) {
        const char *from = at;
        bool leave_out = listed(without, at) || (!strcmp(at, "--setenv") && !strcmp(next(at), "KILN_WITHOUT"));
        int values = values_of(at);
        for (at = next(at); values; values--)
            at = next(at);
        if (!leave_out && write(memfd, from, (size_t)(at - from)) != at - from)
            _exit(120);
    }
    if (lseek(memfd, 0, SEEK_SET) || dup2(memfd, ARGS_FD) != ARGS_FD)
        _exit(120);
    close(memfd);
}

int main(int argc, char **argv) {
    (void)argc;
    ssize_t len = pread(ARGS_FD, args, sizeof args - 1, 0);
    if (len < 0)
        return 120;
    const char *without = find_without(args + len);
    write_rest(args + len, without);
    if (listed(without, "--seccomp"))
        close(FILTER_FD);
    if (listed(without, "closed-descriptors") && dup2(open("/etc/passwd", O_RDONLY), LEAKED_FD) < 0)
        return 120;
    char *env[] = {listed(without, "empty-environment") ? (char *)"SECRET=canary" : NULL, NULL};
    execve("/usr/bin/bwrap", argv, env);
    return 120;
}
