// A mount namespace for one test process: what it mounts, others do not see.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static inline bool namespace_write(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

// An ordinary user is root in a user namespace then. False: this host does not let us.
static inline bool namespace_enter(void) {
    unsigned uid = geteuid(), gid = getegid();
    char uid_map[32], gid_map[32];
    snprintf(uid_map, sizeof uid_map, "0 %u 1", uid);
    snprintf(gid_map, sizeof gid_map, "0 %u 1", gid);
    if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)))
        return false;
    if (uid && (!namespace_write("/proc/self/setgroups", "deny") || !namespace_write("/proc/self/uid_map", uid_map) ||
                !namespace_write("/proc/self/gid_map", gid_map)))
        return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}
