#include "consumer/run/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

static const struct hint {
    const char *setting;
    char forbids; // first character of the setting's file
    const char *text;
} hints[] = {
    {"/proc/sys/kernel/unprivileged_userns_clone", '0', " (set sysctl kernel.unprivileged_userns_clone=1)"},
    {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1',
     " (AppArmor forbids it: set sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give kiln-run and bwrap a "
     "profile with \"userns,\")"},
    {"/proc/sys/user/max_user_namespaces", '0', " (set sysctl user.max_user_namespaces=15000)"},
};

static bool forbids(const struct hint *hint) {
    kiln_autofd int fd = open(hint->setting, O_RDONLY | O_CLOEXEC);
    char first;
    return fd >= 0 && read(fd, &first, 1) == 1 && first == hint->forbids;
}

const char *kiln_userns_hint(void) {
    int saved = errno; // callers format it into the same message
    const char *text = "";
    for (size_t i = 0; i < sizeof hints / sizeof *hints && !*text; i++)
        if (forbids(&hints[i]))
            text = hints[i].text;
    errno = saved;
    return text;
}

static int write_proc(const char *path, const char *text, struct kiln_err *err) {
    kiln_autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        return kiln_fail_errno(err, KILN_E_DENIED, "writing %s%s", path, kiln_userns_hint());
    return 0;
}

bool kiln_userns_knows(uid_t uid) {
    FILE *map = fopen("/proc/self/uid_map", "re");
    unsigned first, outside, count;
    bool known = false;
    while (map && !known && fscanf(map, "%u %u %u", &first, &outside, &count) == 3)
        known = uid >= first && uid - first < count;
    if (map)
        fclose(map);
    return known;
}

int kiln_userns_enter(int more_namespaces, struct kiln_err *err) {
    char uid_map[48], gid_map[48];
    snprintf(uid_map, sizeof uid_map, "%u %u 1", geteuid(), geteuid());
    snprintf(gid_map, sizeof gid_map, "%u %u 1", getegid(), getegid());
    if (unshare(CLONE_NEWUSER | more_namespaces) < 0)
        return kiln_fail_errno(err, KILN_E_DENIED, "the host refuses a user namespace%s", kiln_userns_hint());
    int rc = write_proc("/proc/self/setgroups", "deny", err);
    if (rc == 0)
        rc = write_proc("/proc/self/uid_map", uid_map, err);
    if (rc == 0)
        rc = write_proc("/proc/self/gid_map", gid_map, err);
    return rc;
}
