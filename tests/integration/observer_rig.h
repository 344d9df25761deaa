// What the observer's tests share: an observer directory with object, log and seed, and the log read back as text.
#pragma once

#include "consumer/preload/observe.h"
#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "tests/unit/scratch.h"

#define OBSERVER_OBJECT KILN_BINARY_DIR "/consumer/libkiln-observe.so"

static inline void rig_write_log(const struct scratch *scratch, const char *name, size_t len) {
    const struct kiln_observe_header header = {.magic = KILN_OBSERVE_MAGIC,
                                               .version = KILN_OBSERVE_VERSION,
                                               .capacity = KILN_OBSERVE_LOG_BYTES - sizeof header};
    scratch_write(scratch, name, &header, sizeof header);
    assert_int_equal(truncate(scratch_path(scratch, name), (off_t)len), 0);
}

// Makes SCRATCH/DIR with the object, an empty log and a seed of one repeated byte.
static inline void rig_make_observer(const struct scratch *scratch, const char *dir, unsigned char seed) {
    char name[64], seed_bytes[32];
    struct kiln_err err = {0};
    kiln_autobuf struct kiln_buf object = KILN_BUF_INIT(16 << 20);
    mkdirat(scratch->fd, dir, 0755);
    assert_ok(kiln_fs_read_file(AT_FDCWD, OBSERVER_OBJECT, &object, &err));
    snprintf(name, sizeof name, "%s/libkiln-observe.so", dir);
    scratch_write(scratch, name, object.data, object.len);
    snprintf(name, sizeof name, "%s/log", dir);
    rig_write_log(scratch, name, KILN_OBSERVE_LOG_BYTES);
    snprintf(name, sizeof name, "%s/seed", dir);
    memset(seed_bytes, seed, sizeof seed_bytes);
    scratch_write(scratch, name, seed_bytes, sizeof seed_bytes);
}

static inline void rig_read_log(const struct scratch *scratch, const char *name, struct kiln_buf *log) {
    struct kiln_err err = {0};
    assert_ok(kiln_fs_read_file(scratch->fd, name, log, &err));
}

// One line per entry: "macro open 2 /x/y". Fails the test on an entry that a reader would refuse.
static inline void rig_print_log(const struct kiln_buf *log, struct kiln_buf *text) {
    static const char *const kinds[] = {"?",     "open",   "stat", "list",    "exec",    "getenv",  "clock",
                                        "write", "dlopen", "net",  "syscall", "environ", "identity"};
    struct kiln_observe_header header;
    memcpy(&header, log->data, sizeof header);
    for (size_t at = sizeof header; at < sizeof header + header.used && at < log->len;) {
        struct kiln_observe_entry entry;
        memcpy(&entry, log->data + at, sizeof entry);
        assert_true(entry.length >= sizeof entry && entry.kind < sizeof kinds / sizeof *kinds);
        kiln_buf_addf(text, "%s %s %d %.*s\n", entry.caller == KILN_CALLER_MACRO ? "macro" : "tool",
                      kinds[entry.kind], entry.result, (int)entry.text_length,
                      (const char *)log->data + at + sizeof entry);
        at += entry.length;
    }
}
