// Stands in for rustc in the executor's tests: takes rustc's command line and does what the variable DEED says.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
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

static void name_output(const char *name, char path[1024]) { snprintf(path, 1024, "%s/%s", out_dir, name); }

// Puts something else where an output was. Where the sandbox does not let it, the exit code is the error.
static int replace_output(const char *deed, const char *source) {
    char rlib[1024], other[1024];
    name_output("libfoo-abc.rlib", rlib);
    name_output("other", other);
    if (!strcmp(deed, "hard-link"))
        return link(rlib, other) ? errno : 0;
    if (unlink(rlib))
        return 95;
    if (!strcmp(deed, "hard-link-to-input"))
        return link(source, rlib) ? errno : 0;
    if (!strcmp(deed, "fifo"))
        return mkfifo(rlib, 0644) ? errno : 0;
    if (!strcmp(deed, "device"))
        return mknod(rlib, S_IFCHR | 0644, makedev(1, 3)) ? errno : 0;
    if (!strcmp(deed, "directory"))
        return mkdir(rlib, 0755) ? errno : 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "libfoo-abc.rlib"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 || chdir(out_dir) || bind(fd, (struct sockaddr *)&address, sizeof address) ? errno : 0;
}

static int replace_out_dir(long unused) {
    (void)unused;
    char moved[1024];
    snprintf(moved, sizeof moved, "%s-moved", out_dir);
    return rename(out_dir, moved) ? errno : 0;
}

// Names beside the outputs that nobody expects, and a deep tree.
static int make_odd_names(long unused) {
    (void)unused;
    char longest[256] = "";
    memset(longest, 'a', 255);
    const char *const names[] = {"libfoo-abc.rlib\n", "..x", "...", " ", "libfoo-abc.rlib.", longest, "\xff\xfe", "-rf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        write_file(names[i], "odd");
    if (chdir(out_dir))
        return 96;
    for (int depth = 0; depth < 400; depth++)
        if (mkdir("deeper", 0755) || chdir("deeper"))
            return 97;
    return 0;
}

// A process that outlives this one as long as it may, and goes on with the output.
static int leave_child(bool swap) {
    char rlib[1024], swapped[1024];
    name_output("libfoo-abc.rlib", rlib);
    name_output("swapped", swapped);
    int ready[2];
    char byte;
    if (pipe(ready))
        return 98;
    if (fork())
        return read(ready[0], &byte, 1) == 1 ? 0 : 98; // it is at work
    setsid();
    if (fork())
        _exit(0);
    for (int fd = swap ? -1 : open(rlib, O_WRONLY | O_APPEND), told = 0;; told++) {
        if (!swap && write(fd, "late", 4) < 0)
            ftruncate(fd, 0);
        if (swap && (symlink("/proc/self/environ", swapped) || rename(swapped, rlib)))
            unlink(swapped);
        if (swap) {
            write_file("swapped", "other");
            rename(swapped, rlib);
        }
        if (told == 0 && write(ready[1], "x", 1) != 1)
            _exit(1);
    }
}

static int sparse(long unused) {
    (void)unused;
    char path[1024];
    name_output("libfoo-abc.rlib", path);
    return truncate(path, 1ll << 40) ? errno : 0;
}

// Bombs: 0 when nothing kept them from so many.
static int bomb_forks(long most) {
    for (long made = 0; made < most; made++)
        if (fork() <= 0)
            for (;;)
                pause(); // the children, and this one when there are no more to be had
    return 0;
}

static int bomb_memory(long most) {
    for (long made = 0; made < most; made++) { // MiB
        char *room = malloc(1 << 20);
        if (!room)
            abort();
        memset(room, 1, 1 << 20);
    }
    return 0;
}

static int bomb_inodes(long most) {
    for (long made = 0; made < most; made++) {
        char name[32];
        snprintf(name, sizeof name, "%ld", made);
        write_file(name, ""); // ends this program when there is no room any more
    }
    return 0;
}

static int flood(long most) {
    char chunk[65536];
    memset(chunk, 'x', sizeof chunk);
    for (long made = 0; made < most; made++)
        if (write(1, chunk, sizeof chunk) < 0)
            return 99;
    return 0;
}

static int spin(long unused) {
    (void)unused;
    while (getppid() >= 0)
        ;
    return 0;
}

static int stop(long unused) {
    (void)unused;
    while (raise(SIGSTOP) == 0)
        ;
    return 0;
}

static const struct {
    const char *name;
    int (*run)(long most);
} deeds_after[] = {{"out-dir", replace_out_dir}, {"names", make_odd_names}, {"sparse", sparse},           {"fork-bomb", bomb_forks},
                   {"memory-bomb", bomb_memory}, {"inodes", bomb_inodes},   {"flood", flood},             {"spin", spin},
                   {"stop", stop}};

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
    if (!strncmp(deed, "put ", 4))
        return replace_output(deed + 4, source);
    if (!strcmp(deed, "late") || !strcmp(deed, "race"))
        return leave_child(!strcmp(deed, "race"));
    for (size_t i = 0; i < sizeof deeds_after / sizeof *deeds_after; i++)
        if (!strncmp(deeds_after[i].name, deed, strcspn(deed, " ")) && !deeds_after[i].name[strcspn(deed, " ")])
            return deeds_after[i].run(strtol(deed + strcspn(deed, " "), NULL, 10));
    return 0;
}
