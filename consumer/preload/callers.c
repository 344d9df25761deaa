#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/syscall.h>

#include "consumer/preload/observer.h"

// The main program has no name in the loader's list; what the kernel was given may be relative.
static enum kiln_observe_caller main_program(void) {
    static int known; // 0: not yet; else the caller + 1
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (answer)
        return (enum kiln_observe_caller)(answer - 1);
    const char *path = kiln_whereabouts_get()->program;
    char link[4096];
    if (!path || path[0] != '/') {
        long len = RAW3(SYS_readlink, "/proc/self/exe", link, sizeof link - 1);
        link[len > 0 ? len : 0] = 0;
        path = link;
    }
    enum kiln_observe_caller caller = kiln_whereabouts_is_tool(path) ? KILN_CALLER_TOOL : KILN_CALLER_MACRO;
    __atomic_store_n(&known, (int)caller + 1, __ATOMIC_RELAXED);
    return caller;
}

// _dl_find_object takes no lock and allocates nothing: it is made for unwinders. It follows dlopen and dlclose by
// itself.
enum kiln_observe_caller kiln_callers_find(const void *address) {
    struct dl_find_object object;
    if (_dl_find_object((void *)(uintptr_t)address, &object) < 0)
        return KILN_CALLER_MACRO;
    const char *name = object.dlfo_link_map->l_name;
    if (!name || !*name)
        return main_program();
    return kiln_whereabouts_is_tool(name) ? KILN_CALLER_TOOL : KILN_CALLER_MACRO;
}
