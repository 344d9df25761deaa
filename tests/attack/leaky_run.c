// A kiln-run with holes: kiln-run's own sources, linked with these in place of some calls. Like leaky_bwrap.c it leaves out what
// KILN_WITHOUT of the job's environment names:
//   pid-namespace  of kiln-run's own
//   read-only  mounts are writable          executable  scratch directories may hold programs
//   forget     keys, masks and the like of the starter stay
//   limits     no resource limits           cgroup      no control group
//
// bubblewrap is the leaky one beside it.
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "consumer/run/cgroup.h"
#include "consumer/run/limits.h"
#include "consumer/run/sandbox.h"
#include "consumer/run/spec.h"

static const char *without = "";

static bool leaves_out(const char *word) { return strstr(without, word) != NULL; }

int __real_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err);
int __wrap_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err);
int __wrap_kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err) {
    int rc = __real_kiln_run_spec_decode(data, len, spec, err);
    for (size_t i = 0; rc == 0 && i < spec->env_count; i++)
        if (!strncmp(spec->env[i], "KILN_WITHOUT=", 13))
            without = spec->env[i] + 13;
    return rc;
}

int __real_kiln_sandbox_find(const char *path, int *fd, struct kiln_err *err);
int __wrap_kiln_sandbox_find(const char *path, int *fd, struct kiln_err *err);
int __wrap_kiln_sandbox_find(const char *path, int *fd, struct kiln_err *err) {
    char self[PATH_MAX], leaky[PATH_MAX + 16];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = 0;
    (void)path;
    snprintf(leaky, sizeof leaky, "%.*s/leaky_bwrap", (int)(strrchr(self, '/') - self), self);
    return __real_kiln_sandbox_find(leaky, fd, err);
}

int __real_unshare(int flags);
int __wrap_unshare(int flags);
int __wrap_unshare(int flags) { return __real_unshare(leaves_out("pid-namespace") ? flags & ~CLONE_NEWPID : flags); }

int __real_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int __wrap_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int __wrap_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data) {
    if (leaves_out("pid-namespace") && type && !strcmp(type, "proc"))
        return 0; // without such a namespace there is none to mount
    return __real_mount(source, target, type, flags, data);
}

int __real_mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attr, size_t size);
int __wrap_mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attr, size_t size);
int __wrap_mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attr, size_t size) {
    struct mount_attr weaker = *attr;
    if (leaves_out("read-only"))
        weaker.attr_set &= ~(uint64_t)MOUNT_ATTR_RDONLY;
    return __real_mount_setattr(dir, path, flags, &weaker, size);
}

int __real_fsmount(int fs, unsigned flags, unsigned attributes);
int __wrap_fsmount(int fs, unsigned flags, unsigned attributes);
int __wrap_fsmount(int fs, unsigned flags, unsigned attributes) {
    return __real_fsmount(fs, flags, leaves_out("executable") ? attributes & ~(unsigned)MOUNT_ATTR_NOEXEC : attributes);
}

int __real_kiln_limits_forget(struct kiln_err *err);
int __wrap_kiln_limits_forget(struct kiln_err *err);
int __wrap_kiln_limits_forget(struct kiln_err *err) { return leaves_out("forget") ? 0 : __real_kiln_limits_forget(err); }

int __real_kiln_limits_apply(const struct kiln_run_spec *spec, bool bound_memory, struct kiln_err *err);
int __wrap_kiln_limits_apply(const struct kiln_run_spec *spec, bool bound_memory, struct kiln_err *err);
int __wrap_kiln_limits_apply(const struct kiln_run_spec *spec, bool bound_memory, struct kiln_err *err) {
    return leaves_out("limits") ? 0 : __real_kiln_limits_apply(spec, bound_memory, err);
}

int __real_kiln_cgroup_open(struct kiln_cgroup *cgroup, uint64_t memory_bytes, uint32_t processes, struct kiln_err *err);
int __wrap_kiln_cgroup_open(struct kiln_cgroup *cgroup, uint64_t memory_bytes, uint32_t processes, struct kiln_err *err);
int __wrap_kiln_cgroup_open(struct kiln_cgroup *cgroup, uint64_t memory_bytes, uint32_t processes, struct kiln_err *err) {
    if (!leaves_out("cgroup"))
        return __real_kiln_cgroup_open(cgroup, memory_bytes, processes, err);
    *cgroup = KILN_CGROUP_INIT;
    return 0;
}
