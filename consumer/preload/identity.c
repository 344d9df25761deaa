// Who and where the caller is: user, host, machine, time zone. The sandbox answers the same for everybody.
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "consumer/preload/observer.h"

#define JOB_PROCESS 2

OBSERVED int __gethostname_chk(char *out, size_t len, size_t room);
OBSERVED int __getlogin_r_chk(char *out, size_t len, size_t room);

#define OBSERVE_IDENTITY(type, name, arguments, ...)                                                                   \
    OBSERVED type name(__VA_ARGS__) {                                                                                  \
        kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, #name);                                                          \
        return REAL(name) arguments;                                                                                   \
    }

OBSERVE_IDENTITY(uid_t, getuid, (), void)
OBSERVE_IDENTITY(uid_t, geteuid, (), void)
OBSERVE_IDENTITY(gid_t, getgid, (), void)
OBSERVE_IDENTITY(gid_t, getegid, (), void)
OBSERVE_IDENTITY(int, getgroups, (size, list), int size, gid_t list[])
OBSERVE_IDENTITY(struct passwd *, getpwuid, (uid), uid_t uid)
OBSERVE_IDENTITY(struct passwd *, getpwnam, (user), const char *user)
OBSERVE_IDENTITY(struct passwd *, getpwent, (), void)
OBSERVE_IDENTITY(int, getpwuid_r, (uid, out, room, len, result), uid_t uid, struct passwd *restrict out,
                 char *restrict room, size_t len, struct passwd **restrict result)
OBSERVE_IDENTITY(int, getpwnam_r, (user, out, room, len, result), const char *restrict user,
                 struct passwd *restrict out, char *restrict room, size_t len, struct passwd **restrict result)
OBSERVE_IDENTITY(struct group *, getgrgid, (gid), gid_t gid)
OBSERVE_IDENTITY(struct group *, getgrnam, (group), const char *group)
OBSERVE_IDENTITY(struct group *, getgrent, (), void)
OBSERVE_IDENTITY(int, getgrgid_r, (gid, out, room, len, result), gid_t gid, struct group *restrict out,
                 char *restrict room, size_t len, struct group **restrict result)
OBSERVE_IDENTITY(int, getgrnam_r, (group, out, room, len, result), const char *restrict group,
                 struct group *restrict out, char *restrict room, size_t len, struct group **restrict result)
OBSERVE_IDENTITY(char *, getlogin, (), void)
OBSERVE_IDENTITY(int, getlogin_r, (out, len), char *out, size_t len)
OBSERVE_IDENTITY(int, __getlogin_r_chk, (out, len, room), char *out, size_t len, size_t room)
OBSERVE_IDENTITY(int, gethostname, (out, len), char *out, size_t len)
OBSERVE_IDENTITY(int, __gethostname_chk, (out, len, room), char *out, size_t len, size_t room)
OBSERVE_IDENTITY(int, getdomainname, (out, len), char *out, size_t len)
OBSERVE_IDENTITY(long, gethostid, (), void)
OBSERVE_IDENTITY(int, uname, (out), struct utsname *out)
OBSERVE_IDENTITY(int, sysinfo, (out), struct sysinfo *out)
OBSERVE_IDENTITY(int, getloadavg, (out, count), double out[], int count)
OBSERVE_IDENTITY(int, get_nprocs, (), void)
OBSERVE_IDENTITY(int, get_nprocs_conf, (), void)
OBSERVE_IDENTITY(int, sched_getaffinity, (pid, size, set), pid_t pid, size_t size, cpu_set_t *set)
OBSERVE_IDENTITY(struct tm *, localtime, (when), const time_t *when)
OBSERVE_IDENTITY(struct tm *, localtime_r, (when, out), const time_t *restrict when, struct tm *restrict out)
OBSERVE_IDENTITY(time_t, mktime, (when), struct tm *when)
OBSERVE_IDENTITY(void, tzset, (), void)

// Bubblewrap's init starts the job as process 2. In a container the number depends on what the container's runtime was doing, so
// there a macro is told the same one; children have whatever number they get, which is then undeclared.
OBSERVED pid_t getpid(void) {
    pid_t own = REAL(getpid)();
    if (kiln_callers_find(CALLER) != KILN_CALLER_MACRO)
        return own;
    if (getppid() == 1)
        return JOB_PROCESS;
    kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, "getpid");
    return own;
}

OBSERVED long sysconf(int name) {
    if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF || name == _SC_PHYS_PAGES ||
        name == _SC_AVPHYS_PAGES)
        kiln_note_text(KILN_OBSERVE_IDENTITY, CALLER, "sysconf");
    return REAL(sysconf)(name);
}
