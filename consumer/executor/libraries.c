#include "consumer/executor/libraries.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "consumer/executor/content.h"
#include "consumer/executor/proven.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"

#define KEPT_MAX 8192u
#define LINK_ATTEMPTS 4
#define READABLE 0444

struct kiln_libraries {
    pthread_mutex_t lock; // of next
    int dir;
    struct kiln_store *store;
    struct kiln_proven *proven; // what lies in dir
    unsigned next;              // numbers temporary files
};

int kiln_libraries_open(const char *dir, struct kiln_store *store, struct kiln_libraries **out, struct kiln_err *err) {
    struct kiln_libraries *libraries = calloc(1, sizeof *libraries);
    if (!libraries)
        return kiln_fail(err, KILN_E_NOMEM, "libraries");
    pthread_mutex_init(&libraries->lock, NULL);
    libraries->store = store;
    libraries->dir = -1;
    kiln_autofree char *path = kiln_path_join(dir, "blobs");
    int rc = path ? kiln_fs_remove_tree(AT_FDCWD, path, err) : kiln_fail(err, KILN_E_NOMEM, "libraries");
    if (rc == 0)
        rc = kiln_fs_open_dir(path, &libraries->dir, err);
    if (rc == 0)
        rc = kiln_proven_new(KEPT_MAX, &libraries->proven, err);
    if (rc) {
        kiln_libraries_close(libraries);
        return rc;
    }
    *out = libraries;
    return 0;
}

void kiln_libraries_close(struct kiln_libraries *libraries) {
    if (!libraries)
        return;
    if (libraries->dir >= 0)
        close(libraries->dir);
    kiln_proven_free(libraries->proven);
    pthread_mutex_destroy(&libraries->lock);
    free(libraries);
}

// The store's own file under a second name: nothing is copied. Not where the sandbox's user could not read it, or where
// the store is elsewhere.
static bool link_stored(int stored, int dir, const char *name) {
    struct stat st;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", stored);
    return fstat(stored, &st) == 0 && (st.st_mode & 07777) == READABLE &&
           linkat(AT_FDCWD, link, dir, name, AT_SYMLINK_FOLLOW) == 0;
}

static int copy_stored(int stored, int dir, const char *name, uint64_t size, struct kiln_digest *digest,
                       struct kiln_err *err) {
    kiln_autofd int out = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return kiln_fail_errno(err, KILN_E_IO, "stage a library");
    int rc = kiln_digest_copy_fd(stored, out, size, digest, NULL, err);
    if (rc == 0 && fchmod(out, READABLE))
        rc = kiln_fail_errno(err, KILN_E_IO, "stage a library");
    return rc;
}

static unsigned next_number(struct kiln_libraries *libraries) {
    pthread_mutex_lock(&libraries->lock);
    unsigned number = libraries->next++;
    pthread_mutex_unlock(&libraries->lock);
    return number;
}

// Remembers it; the library that loses its place in the table goes. Jobs that use it have links of their own.
static void keep(struct kiln_libraries *libraries, const struct kiln_digest *digest) {
    struct kiln_digest pushed_out;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    if (!kiln_proven_add(libraries->proven, digest, &pushed_out))
        return;
    kiln_digest_format(&pushed_out, hex);
    unlinkat(libraries->dir, hex, 0);
}

static int fetch(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest, uint64_t size,
                 const char *hex, struct kiln_err *err) {
    kiln_autofd int stored = -1;
    struct kiln_digest found;
    char temporary[32];
    snprintf(temporary, sizeof temporary, ".new-%u", next_number(libraries));
    int rc = kiln_content_open(libraries->store, KILN_CONTENT_BLOB, scope, digest, &stored, err);
    if (rc)
        return rc;
    if (link_stored(stored, libraries->dir, temporary))
        rc = kiln_digest_of_fd(stored, size, &found, NULL, err);
    else
        rc = copy_stored(stored, libraries->dir, temporary, size, &found, err);
    if (rc == KILN_E_LIMIT || (rc == 0 && !kiln_digest_equal(&found, digest)))
        rc = kiln_fail(err, KILN_E_CORRUPT, "stored library %s was changed", hex);
    if (rc == 0 && renameat(libraries->dir, temporary, libraries->dir, hex))
        rc = kiln_fail_errno(err, KILN_E_IO, "stage library %s", hex);
    // Of two names of one file, rename(2) leaves both.
    unlinkat(libraries->dir, temporary, 0);
    if (rc == 0)
        keep(libraries, digest);
    return rc;
}

int kiln_libraries_link(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest,
                        uint64_t size, int to, const char *name, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    // Between being found and being linked, a library may lose its place to another slot's.
    for (int attempt = 0; attempt < LINK_ATTEMPTS; attempt++) {
        int rc = kiln_proven_has(libraries->proven, digest) ? 0 : fetch(libraries, scope, digest, size, hex, err);
        if (rc)
            return rc;
        if (linkat(libraries->dir, hex, to, name, 0) == 0)
            return 0;
        if (errno != ENOENT)
            return kiln_fail_errno(err, KILN_E_IO, "stage %s", name);
        kiln_proven_forget(libraries->proven, digest);
    }
    return kiln_fail(err, KILN_E_IO, "stage %s: it does not stay", name);
}
