// Stands in for rustc in the executor's tests: takes rustc's command line and does what the variable DEED says.
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *out_dir = "";

static void write_file(const char *name, const char *text) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", out_dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(90);
    }
    close(fd);
}

static void link_in_out(const char *target, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", out_dir, name);
    unlink(path);
    if (symlink(target, path))
        exit(91);
}

static void read_source(const char *path) {
    char text[256];
    int fd = open(path, O_RDONLY);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (len < 0)
        exit(92);
    text[len] = 0;
    write_file("libfoo-abc.rlib", text);
}

static void tamper_with_log(bool by_link) {
    const char *observer = getenv("OBSERVER");
    char path[1024];
    snprintf(path, sizeof path, "%s/log", observer);
    if (by_link && (unlink(path) || symlink("/proc/self/maps", path)))
        exit(93);
    if (!by_link && truncate(path, 100))
        exit(93);
}

int main(int argc, char **argv) {
    const char *deed = getenv("DEED"), *source = "";
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--out-dir=", 10))
            out_dir = argv[i] + 10;
        size_t len = strlen(argv[i]);
        if (len > 3 && !strcmp(argv[i] + len - 3, ".rs"))
            source = argv[i];
    }
    if (!strcmp(deed, "fail")) {
        fputs("error: no\n", stderr);
        return 1;
    }
    if (!strcmp(deed, "abort"))
        abort();
    while (!strcmp(deed, "sleep"))
        pause();
    read_source(source);
    write_file("libfoo-abc.rmeta", "metadata");
    write_file("foo-abc.d", source);
    puts("said");
    fputs("warned\n", stderr);
    if (!strcmp(deed, "path-value"))
        write_file("libfoo-abc.rmeta", source);
    if (!strcmp(deed, "link-to-host"))
        link_in_out("/etc/hostname", "libfoo-abc.rlib");
    if (!strcmp(deed, "forget"))
        return chdir(out_dir) || unlink("libfoo-abc.rmeta");
    if (!strcmp(deed, "ask-host"))
        return open("/etc/hostname", O_RDONLY) < 0 ? 0 : 94;
    if (!strcmp(deed, "log-link"))
        tamper_with_log(true);
    if (!strcmp(deed, "log-short"))
        tamper_with_log(false);
    return 0;
}
