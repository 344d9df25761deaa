// The program that test_preload_calls.c runs under the observer: `observed_calls NAME`, one group of libc calls each,
// what they answered on stdout. Built without sanitizers, which stand before the observer otherwise.
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <grp.h>
#include <netdb.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
// Entry points without a declaration: what older programs and fortified ones import.
int __open_2(const char *path, int flags);
int __openat64_2(int dirfd, const char *path, int flags);
ssize_t __readlink_chk(const char *path, char *out, size_t len, size_t room);
char *__realpath_chk(const char *path, char *out, size_t room);
__asm__(".symver old_xstat, __xstat64@GLIBC_2.2.5");
int old_xstat(int version, const char *path, struct stat *out);
__asm__(".symver old_lxstat, __lxstat64@GLIBC_2.2.5");
int old_lxstat(int version, const char *path, struct stat *out);
__asm__(".symver old_fxstatat, __fxstatat64@GLIBC_2.4");
int old_fxstatat(int version, int dirfd, const char *path, struct stat *out, int flags);

static void say(long result) { printf("%d %s\n", result < 0 ? -1 : 0, result < 0 ? strerrorname_np(errno) : "ok"); }
static void say_pointer(const void *result) { say(result ? 0 : -1); }

static void opens(void) {
    say(open("file", O_RDONLY));
    say(open64("absent", O_RDONLY));
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    say(dir);
    say(openat(dir, "sub/inner", O_RDONLY));
    say(openat64(AT_FDCWD, "file", O_RDONLY | O_CLOEXEC));
    say(__open_2("file", O_RDONLY));
    say(__openat64_2(dir, "absent", O_RDONLY));
    say(open("/dev/null", O_RDWR));
    say(open((const char *)8, O_RDONLY)); // unreadable
    say(open("", O_RDONLY));
    errno = 77;
    int fd = open("file", O_RDONLY);
    printf("errno after success: %d\n", fd >= 0 ? errno : -1);
}

static void streams(void) {
    say_pointer(fopen("file", "r"));
    say_pointer(fopen64("absent", "re"));
    say_pointer(fopen("written", "w"));
    say_pointer(fopen("file", "r+"));
    say_pointer(freopen("file", "r", stdin));
}

static void stats(void) {
    struct stat st;
    struct statx stx;
    char text[4096];
    say(stat("file", &st));
    printf("size %ld\n", (long)st.st_size);
    say(lstat("link", &st));
    printf("link %d\n", S_ISLNK(st.st_mode));
    say(fstatat(AT_FDCWD, "absent", &st, 0));
    say(old_xstat(1, "sub", &st));
    printf("dir %d\n", S_ISDIR(st.st_mode));
    say(old_lxstat(1, "absent2", &st));
    say(old_fxstatat(1, AT_FDCWD, "sub/inner", &st, 0));
    say(statx(AT_FDCWD, "file", 0, STATX_SIZE, &stx));
    say(statx(1, "", AT_EMPTY_PATH, STATX_SIZE, &stx));
    say(statx(0, NULL, 0, STATX_SIZE, NULL)); // how a standard library asks whether the call exists
    say(access("sub", R_OK));
    say(faccessat(AT_FDCWD, "absent3", R_OK, AT_EACCESS));
    say(euidaccess("link", R_OK));
    ssize_t len = readlink("link", text, sizeof text);
    printf("%.*s\n", (int)len, text);
    say(__readlink_chk("file", text, 8, sizeof text));
    struct statvfs fs;
    say(statvfs("sub", &fs));
    say(getxattr("file", "user.x", text, 8));
}

static void canonical(void) {
    char *real = realpath("/proc/self/../self/cwd/sub/..", NULL);
    say_pointer(real);
    free(real);
    char room[4096];
    say_pointer(__realpath_chk("link", room, sizeof room));
    say_pointer(canonicalize_file_name("absent"));
}

static void where(void) {
    char room[4096];
    say_pointer(getcwd(room, sizeof room));
    say(chdir("sub"));
    say(open("inner", O_RDONLY));
    say(chdir("nowhere"));
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)path, (void)st, (void)type, (void)at;
    return 0;
}

static void lists(void) {
    DIR *dir = opendir("sub");
    printf("%d\n", dir && readdir(dir));
    say_pointer(opendir("absent"));
    int fd = open("sub", O_RDONLY);
    say_pointer(fdopendir(fd));
    struct dirent **names;
    printf("%d\n", scandir(".", &names, NULL, alphasort));
    say(nftw("sub", visit, 4, 0));
    char *roots[] = {(char *)"sub", NULL};
    say_pointer(fts_open(roots, FTS_PHYSICAL, NULL));
    glob_t found;
    printf("%d %zu\n", glob("sub/i*", 0, NULL, &found), found.gl_pathc);
}

static void writes(void) {
    say(open("new", O_WRONLY | O_CREAT | O_EXCL, 0600));
    struct stat st;
    stat("new", &st);
    printf("mode %o\n", st.st_mode & 0777);
    say(creat("sub/made", 0644));
    say(mkdir("dir", 0755));
    say(rename("new", "dir/moved"));
    say(symlink("x", "dir/link"));
    say(link("file", "dir/hard"));
    say(unlink("dir/hard"));
    say(unlinkat(AT_FDCWD, "dir/link", 0));
    say(truncate("dir/moved", 3));
    say(chmod("dir/moved", 0600));
    say(remove("dir/moved"));
    say(rmdir("dir"));
}

static void variables(void) {
    printf("%s\n", getenv("KNOWN"));
    printf("%d\n", getenv("UNKNOWN") != NULL);
    printf("%s\n", secure_getenv("KNOWN"));
    setenv("KNOWN", "other", 1);
    printf("%s\n", getenv("KNOWN"));
    unsetenv("KNOWN");
    printf("%d\n", getenv("KNOWN") != NULL);
}

static void clocks(void) {
    struct timespec now;
    struct timeval tv;
    say(clock_gettime(CLOCK_MONOTONIC, &now));
    say(clock_gettime(CLOCK_REALTIME, &now));
    say(gettimeofday(&tv, NULL));
    say(time(NULL) > 1000000000 ? 0 : -1);
    say(timespec_get(&now, TIME_UTC) == TIME_UTC ? 0 : -1);
}

static void network(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    say(fd);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    say(connect(fd, (struct sockaddr *)&to, sizeof to));
    struct addrinfo *found;
    printf("%d\n", getaddrinfo("127.0.0.1", NULL, NULL, &found));
    struct ifaddrs *interfaces;
    say(getifaddrs(&interfaces));
    printf("%d\n", if_nametoindex("lo") > 0);
}

static void identity(void) {
    struct utsname name;
    char text[256];
    cpu_set_t cpus;
    printf("%d\n", (int)getuid());
    say(uname(&name));
    say(gethostname(text, sizeof text));
    say(sched_getaffinity(0, sizeof cpus, &cpus));
    printf("%d\n", sysconf(_SC_NPROCESSORS_ONLN) > 0);
    printf("%ld\n", sysconf(_SC_PAGESIZE));
    time_t zero = 0;
    say_pointer(localtime(&zero));
    getpwuid(0);
}

static void numbers(void) {
    struct stat st;
    say(syscall(SYS_openat, AT_FDCWD, "file", O_RDONLY, 0));
    say(syscall(SYS_newfstatat, AT_FDCWD, "absent", &st, 0));
    say(syscall(SYS_gettid) > 0 ? 0 : -1);
    struct timespec now;
    say(syscall(SYS_clock_gettime, CLOCK_REALTIME, &now));
    say(syscall(SYS_personality, 0xffffffff)); // 135
    say(syscall(SYS_close, 9999));
    int word = 0;
    say(syscall(SYS_futex, &word, 1, 1, 0, 0, 0));
}

static void programs(void) {
    char *argv[] = {(char *)"true", NULL};
    pid_t pid;
    int status;
    printf("%d\n", posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ));
    waitpid(pid, &status, 0);
    printf("%d\n", posix_spawnp(&pid, "true", NULL, NULL, argv, environ));
    waitpid(pid, &status, 0);
    printf("%d\n", posix_spawn(&pid, "./absent", NULL, NULL, argv, environ));
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "echo from a child", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    pid = vfork();
    if (pid == 0) {
        execlp("true", "true", "x", (char *)NULL);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    printf("%d\n", WEXITSTATUS(status));
    printf("%d\n", WEXITSTATUS(system("exit 3")));
    FILE *pipe = popen("echo piped", "r");
    char line[16] = "";
    printf("%s", fgets(line, sizeof line, pipe));
}

// Found only by this program's own RUNPATH, so the loader must take the call for this program's.
static void libraries(void) {
    say_pointer(dlopen("libobserved-none.so", RTLD_NOW));
    say_pointer(dlopen("./sub/inner", RTLD_NOW));
    say_pointer(dlopen(NULL, RTLD_NOW));
    say_pointer(dlopen("libkiln-observe-probe.so", RTLD_NOW));
}

static void print_bytes(const void *bytes, size_t len) {
    for (size_t i = 0; i < len; i++)
        printf("%02x", ((const unsigned char *)bytes)[i]);
    puts("");
}

static void random_bytes(void) {
    unsigned char bytes[100];
    getrandom(bytes, sizeof bytes, 0);
    print_bytes(bytes, sizeof bytes);
    getentropy(bytes, 8);
    print_bytes(bytes, 8);
    syscall(SYS_getrandom, bytes, 8, GRND_NONBLOCK);
    print_bytes(bytes, 8);
    arc4random_buf(bytes, 8);
    print_bytes(bytes, 8);
    printf("%d\n", getrandom(bytes, 8, 0x100) < 0 && errno == EINVAL);
}

#define THREADS 8
#define PER_THREAD 500

static void *probe_many(void *arg) {
    char path[64];
    struct stat st;
    for (int i = 0; i < PER_THREAD; i++) {
        snprintf(path, sizeof path, "/absent/%d/%d", *(int *)arg, i);
        stat(path, &st);
        stat(path, &st);
    }
    return NULL;
}

static void threads(void) {
    pthread_t all[THREADS];
    int names[THREADS];
    for (int i = 0; i < THREADS; i++) {
        names[i] = i;
        pthread_create(&all[i], NULL, probe_many, &names[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(all[i], NULL);
}

static void flood(void) {
    char path[4096];
    struct stat st;
    for (int i = 0; i < 2000; i++) {
        snprintf(path, sizeof path, "/absent/%04d/%03800d", i, 0);
        stat(path, &st);
    }
}

// Prints a directory twice, then reads more at once than the observer keeps.
static void order(void) {
    DIR *dir = opendir("many"), *others[100];
    const struct dirent *entry;
    while ((entry = readdir(dir)))
        puts(entry->d_name);
    rewinddir(dir);
    while ((entry = readdir(dir)))
        puts(entry->d_name);
    for (size_t i = 0; i < 100; i++) {
        others[i] = opendir("sub");
        if (!others[i] || !readdir64(others[i]))
            puts("nothing there");
    }
    for (size_t i = 0; i < 100; i++)
        closedir(others[i]);
    closedir(dir);
    printf("%d\n", getauxval(AT_SYSINFO_EHDR) != 0);
    printf("%d\n", getauxval(AT_PAGESZ) == 4096);
}

static const struct {
    const char *name;
    void (*run)(void);
} groups[] = {
    {"opens", opens},       {"streams", streams},     {"stats", stats},       {"canonical", canonical},
    {"where", where},       {"lists", lists},         {"writes", writes},     {"variables", variables},
    {"clocks", clocks},     {"network", network},     {"identity", identity}, {"numbers", numbers},
    {"programs", programs}, {"libraries", libraries}, {"random", random_bytes}, {"threads", threads},
    {"flood", flood},       {"order", order},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 2 && i < sizeof groups / sizeof *groups; i++)
        if (!strcmp(argv[1], groups[i].name)) {
            groups[i].run();
            return 0;
        }
    return 2;
}
