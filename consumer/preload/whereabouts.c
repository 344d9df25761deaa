#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#include "consumer/preload/observer.h"

static struct kiln_whereabouts places;
static int state; // 0 unknown, 1 being found, 2 found

// Cuts the last component off; false when nothing is left before it.
static bool cut_last(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return false;
    *slash = 0;
    return true;
}

static void find_places(void) {
    places.program = (const char *)getauxval(AT_EXECFN);
    struct dl_find_object self;
    if (_dl_find_object((void *)find_places, &self) < 0)
        return;
    const char *path = self.dlfo_link_map->l_name;
    char root[sizeof places.observer_dir];
    size_t len = strlen(path);
    if (path[0] != '/' || len + sizeof "/sysroot" > sizeof root)
        return;
    memcpy(root, path, len + 1);
    if (!cut_last(root))
        return;
    memcpy(places.observer_dir, root, strlen(root) + 1);
    if (!cut_last(root))
        return;
    len = strlen(root);
    memcpy(places.sysroot, root, len);
    memcpy(places.sysroot + len, "/sysroot", sizeof "/sysroot");
    places.sysroot_len = strlen(places.sysroot);
}

const struct kiln_whereabouts *kiln_whereabouts_get(void) {
    if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != 2) {
        int unknown = 0;
        if (!__atomic_compare_exchange_n(&state, &unknown, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
            while (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != 2)
                __builtin_ia32_pause();
        else
            find_places();
        __atomic_store_n(&state, 2, __ATOMIC_RELEASE);
    }
    return &places;
}

static bool starts_with(const char *path, const char *prefix, size_t len) {
    return strncmp(path, prefix, len) == 0 && (path[len] == '/' || path[len] == 0);
}

bool kiln_whereabouts_is_tool(const char *path) {
    if (path[0] != '/')
        return false;
    switch (path[1]) {
    case 'u':
        return starts_with(path, "/usr", 4);
    case 'l':
        return starts_with(path, "/lib", 4) || starts_with(path, "/lib64", 6) || starts_with(path, "/lib32", 6);
    case 'b':
        if (starts_with(path, "/bin", 4))
            return true;
        break;
    case 's':
        if (starts_with(path, "/sbin", 5))
            return true;
        break;
    default:
        break;
    }
    const struct kiln_whereabouts *at = kiln_whereabouts_get();
    return at->sysroot_len && starts_with(path, at->sysroot, at->sysroot_len);
}
