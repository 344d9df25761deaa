#include "tests/attack/canary.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/keyctl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SEGMENT_BYTES 4096u
#define DEPTH_MAX 16

static const char *word;
static unsigned left, found;

static void leave_in_file(const char *path, int flags) {
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0666);
    if (fd < 0)
        return;
    left += write(fd, word, strlen(word)) == (ssize_t)strlen(word);
    fsetxattr(fd, "user.kiln", word, strlen(word), 0);
    close(fd);
}

// The toolchain is left out: thousands of files, each read-only.
static bool is_toolchain(const char *path) { return strcmp(path, "/usr") == 0 || strncmp(path, "/usr/", 5) == 0; }

static int leave_at(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)walk;
    char inside[8192];
    if (is_toolchain(path))
        return FTW_SKIP_SUBTREE;
    if (strncmp(path, "/dev/", 5) == 0 && S_ISCHR(st->st_mode))
        return 0;
    if (type == FTW_F)
        leave_in_file(path, O_APPEND);
    if (type != FTW_D)
        return 0;
    snprintf(inside, sizeof inside, "%s/%s", path, word);
    leave_in_file(inside, O_CREAT | O_EXCL);
    snprintf(inside, sizeof inside, "%s/%s-link", path, word);
    if (symlink(word, inside) == 0)
        left++;
    return 0;
}

static void leave_in_memory(void) {
    setenv("KILN_CANARY", word, 1);
    prctl(PR_SET_NAME, word);
    syscall(SYS_add_key, "user", word, word, strlen(word), KEY_SPEC_USER_KEYRING);
    syscall(SYS_add_key, "user", word, word, strlen(word), KEY_SPEC_SESSION_KEYRING);
    int id = shmget((key_t)word[0], SEGMENT_BYTES, IPC_CREAT | 0666);
    char *segment = id < 0 ? NULL : shmat(id, NULL, 0);
    if (segment && segment != (char *)-1)
        snprintf(segment, SEGMENT_BYTES, "%s", word);
    int fd = shm_open(word, O_CREAT | O_RDWR, 0666);
    if (fd >= 0)
        left += write(fd, word, strlen(word)) > 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", word);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0)
        listen(listener, 1);
}

int kiln_canary_leave(const char *canary) {
    word = canary;
    nftw("/", leave_at, DEPTH_MAX, FTW_PHYS | FTW_ACTIONRETVAL);
    leave_in_memory();
    pid_t child = fork(); // goes on with it, away from its parent
    if (child == 0) {
        if (setsid() < 0 || fork() != 0)
            _exit(0);
        for (;;)
            pause();
    }
    printf("left %u\n", left);
    return 0;
}

static void say_found(const char *place) {
    printf("found %s\n", place);
    found++;
}

static void look_into(const char *path) {
    static char bytes[1 << 20];
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (fd >= 0)
        close(fd);
    if (len > 0 && memmem(bytes, (size_t)len, word, strlen(word)))
        say_found(path);
}

static int look_at(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)walk;
    char target[4096];
    if (is_toolchain(path))
        return FTW_SKIP_SUBTREE;
    if (strstr(path, word))
        say_found(path);
    ssize_t len = type == FTW_SL ? readlink(path, target, sizeof target) : -1;
    if (len > 0 && memmem(target, (size_t)len, word, strlen(word)))
        say_found(path);
    bool endless = strcmp(path, "/proc/kmsg") == 0 || strcmp(path, "/proc/kcore") == 0;
    if (type == FTW_F && S_ISREG(st->st_mode) && !endless)
        look_into(path);
    return 0;
}

int kiln_canary_find(const char *canary) {
    word = canary;
    nftw("/", look_at, DEPTH_MAX, FTW_PHYS | FTW_ACTIONRETVAL);
    if (getenv("KILN_CANARY"))
        say_found("a variable");
    if (syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", word, 0) > 0 ||
        syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", word, 0) > 0)
        say_found("a key");
    if (shmget((key_t)word[0], 0, 0) >= 0)
        say_found("a segment");
    if (!found)
        puts("clean");
    return 0;
}
