#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "consumer/preload/observer.h"

#define CAPACITY (KILN_OBSERVE_LOG_BYTES - (uint32_t)sizeof(struct kiln_observe_header))
#define TEXT_MAX 8192u // two paths of the kernel's longest
#define SEEN_SLOTS 4096u
#define SEEN_PROBES 8u

static struct kiln_observe_header *mapped;
static int state; // 0 not tried, 1 being mapped, 2 done
// Hashes of what this process has recorded: a repetition says nothing new.
static uint64_t seen[SEEN_SLOTS];

static void map_log(void) {
    const struct kiln_whereabouts *at = kiln_whereabouts_get();
    size_t len = strlen(at->observer_dir);
    char path[sizeof at->observer_dir + sizeof "/log"];
    if (!len)
        return;
    memcpy(path, at->observer_dir, len);
    memcpy(path + len, "/log", sizeof "/log");
    long fd = kiln_raw_call(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0, 0, 0);
    if (fd < 0)
        return;
    struct stat st;
    // Touching a page behind the end of a shorter file would kill the process.
    if (RAW3(SYS_fstat, fd, &st, 0) == 0 && st.st_size >= (long)KILN_OBSERVE_LOG_BYTES) {
        long where = kiln_raw_call(SYS_mmap, 0, KILN_OBSERVE_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        struct kiln_observe_header *header = (struct kiln_observe_header *)where;
        if (where > 0 && header->magic == KILN_OBSERVE_MAGIC && header->version == KILN_OBSERVE_VERSION)
            mapped = header;
    }
    RAW3(SYS_close, fd, 0, 0);
}

static struct kiln_observe_header *get_log(void) {
    if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) == 2)
        return mapped;
    int untried = 0;
    if (!__atomic_compare_exchange_n(&state, &untried, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
        while (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != 2)
            __builtin_ia32_pause();
    else
        map_log();
    __atomic_store_n(&state, 2, __ATOMIC_RELEASE);
    return mapped;
}

static uint64_t hash_event(const struct kiln_observe_entry *entry, const char *text) {
    uint64_t hash = 0xcbf29ce484222325u ^ ((uint64_t)entry->kind << 8) ^ entry->caller;
    hash = (hash ^ (uint32_t)entry->result) * 0x9e3779b97f4a7c15u;
    uint32_t at = 0;
    for (; at + 8 <= entry->text_length; at += 8) {
        uint64_t word;
        memcpy(&word, text + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (; at < entry->text_length; at++)
        hash = (hash ^ (unsigned char)text[at]) * 0x100000001b3u;
    hash ^= hash >> 32;
    return hash ? hash : 1;
}

// True when this process has recorded it before. A full neighbourhood forgets: the event is then recorded again.
static bool seen_before(uint64_t hash) {
    for (uint32_t i = 0; i < SEEN_PROBES; i++) {
        uint64_t *slot = &seen[(hash + i) % SEEN_SLOTS];
        uint64_t there = __atomic_load_n(slot, __ATOMIC_RELAXED);
        if (there == 0 && __atomic_compare_exchange_n(slot, &there, hash, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return false;
        if (there == hash)
            return true;
    }
    return false;
}

void kiln_log_add(enum kiln_observe_kind kind, enum kiln_observe_caller caller, int result, const char *text,
                  size_t len) {
    struct kiln_observe_header *header = get_log();
    if (!header)
        return;
    struct kiln_observe_entry entry = {.kind = (uint8_t)kind,
                                       .caller = (uint8_t)caller,
                                       .result = result,
                                       .text_length = len < TEXT_MAX ? (uint32_t)len : TEXT_MAX};
    if (seen_before(hash_event(&entry, text)))
        return;
    uint32_t length = ((uint32_t)sizeof entry + entry.text_length + 3) & ~3u;
    // `used` stops growing once it is past the end, or it could wrap round to the start.
    if (__atomic_load_n(&header->used, __ATOMIC_RELAXED) > CAPACITY)
        return;
    uint32_t at = __atomic_fetch_add(&header->used, length, __ATOMIC_RELAXED);
    if (at > CAPACITY || CAPACITY - at < length)
        return;
    char *to = (char *)(header + 1) + at;
    memcpy(to, &entry, sizeof entry);
    memcpy(to + sizeof entry, text, entry.text_length);
    // Last: an entry without a length is one whose writer did not come to its end.
    __atomic_store_n(&((struct kiln_observe_entry *)(void *)to)->length, (uint16_t)length, __ATOMIC_RELEASE);
}
