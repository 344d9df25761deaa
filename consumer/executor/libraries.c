#include "consumer/executor/libraries.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#define SLACK_PART 16 // room made at once, so that a full directory is not listed for each file

struct kiln_libraries {
    pthread_mutex_t lock; // of next and bytes
    int dir;
    uint64_t kept_bytes, bytes; // 0: bounded by the table of what is proven
    struct kiln_store *store;
    struct kiln_proven *proven; // what lies in dir
    unsigned next;              // numbers temporary files
};

struct found {
    char name[KILN_DIGEST_HEX_LEN + 1];
    struct timespec used; // a link changes the ctime, and nothing else does
    uint64_t bytes;
};

struct found_list {
    struct found *files;
    size_t count;
    uint64_t bytes;
};

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const struct found *)a)->used, *y = &((const struct found *)b)->used;
    return x->tv_sec != y->tv_sec ? (x->tv_sec > y->tv_sec) - (x->tv_sec < y->tv_sec)
                                  : (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static void note(int dir, const char *name, struct found_list *list) {
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return;
    list->bytes += (uint64_t)st.st_size;
    struct found *grown = list->count % 256 ? list->files : realloc(list->files, (list->count + 256) * sizeof *grown);
    if (!grown)
        return;
    list->files = grown;
    // A job that has it has a link of its own: removing the name here would free nothing.
    if (st.st_nlink > 1 || strlen(name) != KILN_DIGEST_HEX_LEN)
        return;
    grown[list->count] = (struct found){.used = st.st_ctim, .bytes = (uint64_t)st.st_size};
    memcpy(grown[list->count++].name, name, KILN_DIGEST_HEX_LEN + 1);
}

// Counts what is there, and removes the longest unused when it is too much.
static void bound(struct kiln_libraries *libraries) {
    int copy = openat(libraries->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct found_list list = {0};
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        note(libraries->dir, entry->d_name, &list);
    if (dir)
        closedir(dir);
    if (list.count)
        qsort(list.files, list.count, sizeof *list.files, by_use);
    const uint64_t target = list.bytes > libraries->kept_bytes ? libraries->kept_bytes - libraries->kept_bytes / SLACK_PART
                                                               : UINT64_MAX;
    for (size_t i = 0; i < list.count && list.bytes > target; i++)
        if (unlinkat(libraries->dir, list.files[i].name, 0) == 0)
            list.bytes -= list.files[i].bytes;
    free(list.files);
    pthread_mutex_lock(&libraries->lock);
    libraries->bytes = list.bytes;
    pthread_mutex_unlock(&libraries->lock);
}

static void count_new(struct kiln_libraries *libraries, uint64_t bytes) {
    pthread_mutex_lock(&libraries->lock);
    libraries->bytes += bytes;
    bool over = libraries->kept_bytes && libraries->bytes > libraries->kept_bytes;
    pthread_mutex_unlock(&libraries->lock);
    if (over)
        bound(libraries);
}

int kiln_libraries_open(const char *dir, struct kiln_store *store, uint64_t kept_bytes, struct kiln_libraries **out,
                        struct kiln_err *err) {
    struct kiln_libraries *libraries = calloc(1, sizeof *libraries);
    if (!libraries)
        return kiln_fail(err, KILN_E_NOMEM, "libraries");
    pthread_mutex_init(&libraries->lock, NULL);
    libraries->store = store;
    libraries->kept_bytes = kept_bytes;
    libraries->dir = -1;
    kiln_autofree char *path = kiln_path_join(dir, "blobs");
    int rc = path ? 0 : kiln_fail(err, KILN_E_NOMEM, "libraries");
    if (rc == 0 && !kept_bytes)
        rc = kiln_fs_remove_tree(AT_FDCWD, path, err);
    if (rc == 0)
        rc = kiln_fs_open_dir(path, &libraries->dir, err);
    if (rc == 0)
        rc = kiln_proven_new(KEPT_MAX, &libraries->proven, err);
    if (rc) {
        kiln_libraries_close(libraries);
        return rc;
    }
    if (kept_bytes)
        bound(libraries);
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
    if (!kiln_proven_add(libraries->proven, digest, &pushed_out) || libraries->kept_bytes)
        return;
    kiln_digest_format(&pushed_out, hex);
    unlinkat(libraries->dir, hex, 0);
}

// Takes the bytes of `stored` in under their digest; KILN_E_CORRUPT when they have another.
static int take_in(struct kiln_libraries *libraries, int stored, const struct kiln_digest *digest, uint64_t size,
                   const char *hex, struct kiln_err *err) {
    struct kiln_digest found;
    char temporary[32];
    snprintf(temporary, sizeof temporary, ".new-%u", next_number(libraries));
    unlinkat(libraries->dir, temporary, 0); // a killed predecessor's
    int rc;
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
    if (rc)
        return rc;
    keep(libraries, digest);
    count_new(libraries, size);
    return 0;
}

static int fetch(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest, uint64_t size,
                 const char *hex, struct kiln_err *err) {
    kiln_autofd int stored = -1;
    int rc = kiln_content_open(libraries->store, KILN_CONTENT_BLOB, scope, digest, &stored, err);
    return rc ? rc : take_in(libraries, stored, digest, size, hex, err);
}

// A file that an earlier process left: right when its bytes are.
static bool prove_left(struct kiln_libraries *libraries, const struct kiln_digest *digest, uint64_t size, const char *hex) {
    struct kiln_digest found;
    kiln_autofd int fd = libraries->kept_bytes ? openat(libraries->dir, hex, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    if (kiln_digest_of_fd(fd, size, &found, NULL, NULL) == 0 && kiln_digest_equal(&found, digest)) {
        keep(libraries, digest);
        return true;
    }
    unlinkat(libraries->dir, hex, 0);
    return false;
}

bool kiln_libraries_has(struct kiln_libraries *libraries, const struct kiln_digest *digest, uint64_t size) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    if (kiln_proven_has(libraries->proven, digest) && faccessat(libraries->dir, hex, F_OK, 0) == 0)
        return true;
    return prove_left(libraries, digest, size, hex);
}

int kiln_libraries_add(struct kiln_libraries *libraries, int fd, const struct kiln_digest *digest, uint64_t size,
                       struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    return take_in(libraries, fd, digest, size, hex, err);
}

int kiln_libraries_link(struct kiln_libraries *libraries, const char *scope, const struct kiln_digest *digest,
                        uint64_t size, int to, const char *name, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_format(digest, hex);
    // Between being found and being linked, a library may lose its place to another slot's.
    for (int attempt = 0; attempt < LINK_ATTEMPTS; attempt++) {
        bool known = kiln_proven_has(libraries->proven, digest) || prove_left(libraries, digest, size, hex);
        int rc = known ? 0 : fetch(libraries, scope, digest, size, hex, err);
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
