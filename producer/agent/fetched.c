#include "producer/agent/fetched.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/core/list.h"

void kiln_fetched_release(struct kiln_fetched *fetched) {
    for (size_t i = 0; i < fetched->count; i++)
        close(fetched->all[i].fd);
    free(fetched->all);
    *fetched = (struct kiln_fetched){0};
}

static const struct kiln_fetched_one *find(const struct kiln_fetched *fetched, const struct kiln_digest *digest) {
    for (size_t i = 0; i < fetched->count; i++)
        if (kiln_digest_equal(&fetched->all[i].digest, digest))
            return &fetched->all[i];
    return NULL;
}

int kiln_fetched_add(struct kiln_fetched *fetched, const struct kiln_digest *digest, uint64_t size, int fd, struct kiln_err *err) {
    struct kiln_fetched_one *grown = find(fetched, digest) ? NULL : kiln_list_grow(fetched->all, fetched->count, sizeof *grown);
    if (!grown) {
        close(fd);
        return find(fetched, digest) ? 0 : kiln_fail(err, KILN_E_NOMEM, "fetched content");
    }
    fetched->all = grown;
    grown[fetched->count++] = (struct kiln_fetched_one){.digest = *digest, .size = size, .fd = fd};
    return 0;
}

bool kiln_fetched_has(const struct kiln_fetched *fetched, const struct kiln_digest *digest) {
    return find(fetched, digest) != NULL;
}

int kiln_fetched_open(const struct kiln_fetched *fetched, const struct kiln_digest *digest, uint64_t size, int *fd,
                      struct kiln_err *err) {
    const struct kiln_fetched_one *one = find(fetched, digest);
    if (!one || one->size != size)
        return kiln_fail(err, KILN_E_NOTFOUND, "not fetched");
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", one->fd);
    int opened = open(path, O_RDONLY | O_CLOEXEC);
    if (opened < 0)
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "open fetched content");
    *fd = opened;
    return 0;
}
