// Locals that own: freed or closed when their scope ends. Hand ownership on with KILN_STEAL / kiln_steal_fd.
#pragma once

#include <stdlib.h>
#include <unistd.h>

static inline void kiln_cleanup_free(void *slot) { free(*(void **)slot); }
static inline void kiln_cleanup_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
}

#define kiln_autofree __attribute__((cleanup(kiln_cleanup_free)))
#define kiln_autofd __attribute__((cleanup(kiln_cleanup_fd)))
// For `struct NAME local` with `void kiln_NAME_release(struct kiln_NAME *)`.
#define kiln_auto(release_function) __attribute__((cleanup(release_function)))

#define KILN_STEAL(pointer)                                                                                            \
    ({                                                                                                                 \
        __auto_type kiln_stolen_ = (pointer);                                                                          \
        (pointer) = NULL;                                                                                              \
        kiln_stolen_;                                                                                                  \
    })

static inline int kiln_steal_fd(int *fd) {
    int stolen = *fd;
    *fd = -1;
    return stolen;
}
