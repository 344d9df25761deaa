// Directories in an order that does not depend on the host: a macro gets the names sorted. File systems have orders of their own,
// by hashes with a random key among others, and what a macro makes of a listing would differ from executor to executor.
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "consumer/preload/observer.h"

#define WALKS_MAX 64u
#define BYTES_MAX (64u << 20) // of one directory; a larger one comes as it is

// A directory that is being read: its entries one behind the other, and their offsets by name.
struct walk {
    DIR *dir; // NULL: free
    char *bytes;
    size_t *order;
    size_t len, count, next;
};

static struct walk walks[WALKS_MAX];
static int lock;

static void take_lock(void) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void drop_lock(void) { __atomic_store_n(&lock, 0, __ATOMIC_RELEASE); }

// The walk of `dir`, or with NULL a free one, which becomes that of `owner`.
static struct walk *find_walk(DIR *dir, DIR *owner) {
    struct walk *found = NULL;
    take_lock();
    for (size_t i = 0; i < WALKS_MAX && !found; i++)
        if (walks[i].dir == dir)
            found = &walks[i];
    if (found && !dir)
        found->dir = owner;
    drop_lock();
    return found;
}

static void end_walk(struct walk *walk) {
    if (!walk)
        return;
    free(walk->bytes);
    free(walk->order);
    walk->bytes = NULL;
    walk->order = NULL;
    walk->len = walk->count = walk->next = 0;
    __atomic_store_n(&walk->dir, NULL, __ATOMIC_RELEASE);
}

static bool add_entry(struct walk *walk, const struct dirent64 *entry) {
    if ((walk->count & (walk->count - 1)) == 0) { // at each power of two
        size_t *order = realloc(walk->order, (walk->count ? 2 * walk->count : 1) * sizeof *order);
        if (!order)
            return false;
        walk->order = order;
    }
    char *bytes = walk->len + entry->d_reclen > BYTES_MAX ? NULL : realloc(walk->bytes, walk->len + entry->d_reclen);
    if (!bytes)
        return false;
    walk->bytes = bytes;
    memcpy(bytes + walk->len, entry, entry->d_reclen);
    walk->order[walk->count++] = walk->len;
    walk->len += entry->d_reclen;
    return true;
}

static struct dirent64 *entry_at(const struct walk *walk, size_t offset) {
    return (struct dirent64 *)(void *)(walk->bytes + offset);
}

static int compare_names(const void *a, const void *b, void *walk) {
    return strcmp(entry_at(walk, *(const size_t *)a)->d_name, entry_at(walk, *(const size_t *)b)->d_name);
}

// Reads all that is left. False: back to where it was, and the caller reads on by itself.
static bool read_all(struct walk *walk, DIR *dir) {
    long start = telldir(dir);
    const struct dirent64 *entry;
    errno = 0;
    while ((entry = REAL(readdir64)(dir)))
        if (!add_entry(walk, entry))
            break;
    if (entry || errno) {
        seekdir(dir, start);
        return false;
    }
    qsort_r(walk->order, walk->count, sizeof *walk->order, compare_names, walk);
    return true;
}

static struct dirent64 *read_next(DIR *dir, const void *caller) {
    struct walk *walk = dir ? find_walk(dir, NULL) : NULL;
    if (!walk && dir && kiln_callers_find(caller) == KILN_CALLER_MACRO) {
        int saved = errno;
        walk = find_walk(NULL, dir);
        if (walk && !read_all(walk, dir)) {
            end_walk(walk);
            walk = NULL;
        }
        errno = saved;
    }
    if (!walk)
        return REAL(readdir64)(dir);
    return walk->next < walk->count ? entry_at(walk, walk->order[walk->next++]) : NULL;
}

OBSERVED struct dirent64 *readdir64(DIR *dir) { return read_next(dir, CALLER); }

// The same layout where off_t has 64 bits.
OBSERVED struct dirent *readdir(DIR *dir) { return (struct dirent *)(void *)read_next(dir, CALLER); }

OBSERVED int closedir(DIR *dir) {
    end_walk(find_walk(dir, NULL));
    return REAL(closedir)(dir);
}

OBSERVED void rewinddir(DIR *dir) {
    end_walk(find_walk(dir, NULL));
    REAL(rewinddir)(dir);
}
