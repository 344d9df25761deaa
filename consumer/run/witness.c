#include "consumer/run/witness.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "consumer/preload/observe.h"
#include "lib/base/cleanup.h"
#include "lib/base/path.h"

#define OBSERVATIONS_MAX 64u
#define SHOWN_MAX 512u // bytes of one event's text that a report repeats
#define TEXT_MAX 8192u

struct event {
    unsigned kind; // enum kiln_observe_kind
    bool macro;
    int result;
    const char *text; // as recorded; a normalized path where the kind has one
};

struct witness {
    const struct kiln_witness_world *world;
    struct kiln_witness_report report;
    bool present;     // an observer said that it runs
    int rc;
};

enum place {
    PLACE_OTHER,
    PLACE_PARTIAL,  // in a mount that holds less than the client's directory
    PLACE_MOUNT,    // declared
    PLACE_WITHHELD, // in a mount, but never given to a job
    PLACE_ROOT,     // the root of a mount that has withheld names
    PLACE_ABOVE,    // an ancestor of something that is there for everybody
    PLACE_TOOL,
    PLACE_OUT,
    PLACE_TMP,
    PLACE_OBSERVER,
};

// What a tool (never a macro) asks for in any job, with no bearing on its outputs. Found by running 1285 rustc calls of
// 418 packages under the observer: every crate type, check, clippy, tests, release with fat LTO, lld and ld.bfd.
// tests/integration/test_preload_rustc.c repeats the kinds.
struct pattern {
    enum { EXACT, BELOW, BASE, BASE_START, SUFFIX } how;
    bool only_absent; // it holds for what was not found
    const char *text;
};

static const struct pattern tool_patterns[] = {
    {EXACT, false, "/etc/malloc.conf"}, // jemalloc in rustc: its options, and how the kernel gives out memory
    {EXACT, false, "/proc/sys/vm/overcommit_memory"},
    {EXACT, false, "/sys/kernel/mm/transparent_hugepage/enabled"},
    {EXACT, false, "/proc/self/statm"}, // rustc's own size, for its statistics
    {EXACT, false, "/proc/self/exe"},   // the wrapper around rust-lld looks beside itself
    {EXACT, false, "/dev/null"},
    {EXACT, false, "/dev/urandom"},     // of seeded bytes here, for temporary names
    {EXACT, true, "/dev/tty"},
    {EXACT, true, "/etc/ld.so.conf"},   // ld.bfd: where libraries of libraries lie, which it only checks
    {BELOW, true, "/rustc"},            // std's sources by their shown names; rust-src is in no sandbox
    {BELOW, true, "/kiln"},             // other packages' sources by theirs, mounted nowhere
    {SUFFIX, true, ".rs"},              // members' sources, opened for spans of another crate's macro
    {BASE_START, true, "-l"},           // the linker's driver asks whether "-lc" is a file
    // The client compiles such a unit itself when it has one of these files.
    {BASE, true, "clippy.toml"},
    {BASE, true, ".clippy.toml"},
    {BASE, true, "libgcc_s.so.1"},      // in the current directory; a planted one would be linked
    // Clippy reads the workspace's manifest for its lints and notes it in its dep-info: with a table of lints in it the
    // client compiles the unit itself (producer/agent/unit.c), and it adds the note (producer/agent/replay.c).
    {BASE, true, "Cargo.toml"},
};

// Variables that decide how an error is told, read by the standard library inside a macro when one occurs.
static const char *const error_variables[] = {"RUST_BACKTRACE", "RUST_LIB_BACKTRACE"};

// Devices that hold nothing of the host.
static const char *const plain_devices[] = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool among(const char *text, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(text, list[i]))
            return true;
    return false;
}

static bool beneath_any(const char *path, const char *const *prefixes, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (kiln_path_beneath(path, prefixes[i]))
            return true;
    return false;
}

static bool is_above(const char *path, const char *lower) {
    return strcmp(path, "/") == 0 || kiln_path_beneath(lower, path);
}

// ": text" with everything that is not printable ASCII as an escape: it ends in logs and on screens.
static void add_shown(struct kiln_buf *out, const char *text) {
    size_t len = strnlen(text, SHOWN_MAX);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c < 0x7f && c != '\\')
            kiln_buf_add_u8(out, c);
        else
            kiln_buf_addf(out, "\\x%02x", c);
    }
    if (text[len])
        kiln_buf_add_str(out, "...");
}

static void report(struct witness *witness, const char *what, const char *text) {
    kiln_autobuf struct kiln_buf line = KILN_BUF_INIT(4 * SHOWN_MAX + 64);
    kiln_buf_add_str(&line, what);
    if (text) {
        kiln_buf_add_str(&line, ": ");
        add_shown(&line, text);
    }
    struct kiln_witness_report *to = &witness->report;
    if (among(kiln_buf_text(&line), (const char *const *)to->observations, to->count) ||
        to->count == OBSERVATIONS_MAX)
        return;
    char *copy = line.failed ? NULL : strdup(kiln_buf_text(&line));
    if (!copy) {
        witness->rc = KILN_E_NOMEM;
        return;
    }
    to->observations[to->count++] = copy;
}

static const struct kiln_witness_mount *find_mount(const struct kiln_witness_world *world, const char *path) {
    const struct kiln_witness_mount *best = NULL;
    for (size_t i = 0; i < world->mounts_count; i++) {
        const struct kiln_witness_mount *mount = &world->mounts[i];
        if (kiln_path_beneath(path, mount->path) && (!best || strlen(mount->path) > strlen(best->path)))
            best = mount;
    }
    return best;
}

static enum place place_in_mount(const struct kiln_witness_mount *mount, const char *path) {
    if (mount->partial)
        return PLACE_PARTIAL;
    if (!mount->root_names_withheld)
        return PLACE_MOUNT;
    const char *name = kiln_path_beneath(path, mount->path);
    if (!*name)
        return PLACE_ROOT;
    size_t len = strcspn(name, "/");
    bool target = len == strlen("target") && !strncmp(name, "target", len);
    return name[0] == '.' || target ? PLACE_WITHHELD : PLACE_MOUNT;
}

static enum place find_place(const struct kiln_witness_world *world, const char *path) {
    if (beneath_any(path, world->withheld, world->withheld_count))
        return PLACE_WITHHELD;
    const struct kiln_witness_mount *mount = find_mount(world, path);
    if (mount)
        return place_in_mount(mount, path);
    if (beneath_any(path, world->tool_prefixes, world->tool_prefixes_count))
        return PLACE_TOOL;
    if (kiln_path_beneath(path, world->out_dir))
        return PLACE_OUT;
    if (kiln_path_beneath(path, world->tmp_dir))
        return PLACE_TMP;
    if (kiln_path_beneath(path, world->observer_dir))
        return PLACE_OBSERVER;
    bool above = is_above(path, world->cwd) || is_above(path, world->out_dir);
    for (size_t i = 0; !above && i < world->mounts_count; i++)
        above = is_above(path, world->mounts[i].path);
    for (size_t i = 0; !above && i < world->tool_prefixes_count; i++)
        above = is_above(path, world->tool_prefixes[i]);
    return above ? PLACE_ABOVE : PLACE_OTHER;
}

static bool matches(const struct pattern *pattern, const struct event *event) {
    if (pattern->only_absent && event->result == 0)
        return false;
    size_t len = strlen(event->text), suffix = strlen(pattern->text);
    switch (pattern->how) {
    case EXACT:
        return !strcmp(event->text, pattern->text);
    case BELOW:
        return kiln_path_beneath(event->text, pattern->text) != NULL;
    case BASE:
        return !strcmp(kiln_path_base(event->text), pattern->text);
    case BASE_START:
        return !strncmp(kiln_path_base(event->text), pattern->text, suffix);
    case SUFFIX:
        return len > suffix && !strcmp(event->text + len - suffix, pattern->text);
    }
    return false;
}

static bool is_tool_pattern(const struct event *event) {
    for (size_t i = 0; i < COUNT(tool_patterns); i++)
        if (matches(&tool_patterns[i], event))
            return true;
    return false;
}

static bool holds_withheld(const struct kiln_witness_world *world, const char *dir) {
    for (size_t i = 0; i < world->withheld_count; i++) {
        const char *name = kiln_path_beneath(world->withheld[i], dir);
        if (name && *name && !strchr(name, '/'))
            return true;
    }
    return false;
}

static bool tool_may(const struct kiln_witness_world *world, const struct event *event) {
    enum place place = find_place(world, event->text);
    if (place == PLACE_OTHER || place == PLACE_WITHHELD || place == PLACE_OBSERVER)
        return is_tool_pattern(event);
    // Tools canonicalize what they are given, through all that lies above it.
    return event->kind != KILN_OBSERVE_LIST || (place != PLACE_ROOT && place != PLACE_ABOVE);
}

static bool macro_may(const struct kiln_witness_world *world, const struct event *event) {
    if (among(event->text, plain_devices, COUNT(plain_devices)))
        return true;
    switch (find_place(world, event->text)) {
    case PLACE_MOUNT:
        return event->kind != KILN_OBSERVE_LIST || !holds_withheld(world, event->text);
    case PLACE_ROOT:
        return event->kind != KILN_OBSERVE_LIST;
    // Here the sandbox has less than the client: what was found is keyed or made by the job, what was not may be there.
    case PLACE_PARTIAL:
    case PLACE_TOOL:
    case PLACE_ABOVE:
    case PLACE_OUT:
    case PLACE_TMP:
        return event->kind != KILN_OBSERVE_LIST && event->result == 0;
    default:
        return false;
    }
}

static void judge_path(struct witness *witness, struct event *event) {
    // A program or library by name: found by the tool in its own places, by a macro anywhere.
    bool name = event->text[0] != '/';
    kiln_autofree char *path = name ? NULL : kiln_path_normalize(event->text);
    if (path)
        event->text = path;
    bool may = name || !path ? name && !event->macro
               : event->macro ? macro_may(witness->world, event)
                              : tool_may(witness->world, event);
    if (!may)
        report(witness, event->kind == KILN_OBSERVE_LIST ? "undeclared_list" : "undeclared_path", event->text);
}

static void judge_write(struct witness *witness, const struct event *event) {
    kiln_autofree char *path = event->text[0] == '/' ? kiln_path_normalize(event->text) : NULL;
    if (!path || (!kiln_path_beneath(path, witness->world->tmp_dir) &&
                  !among(path, plain_devices, COUNT(plain_devices))))
        report(witness, "write", path ? path : event->text);
}

static void judge_variable(struct witness *witness, const char *name) {
    const struct kiln_witness_world *world = witness->world;
    if (among(name, world->env_path_values, world->env_path_count))
        report(witness, "path_value", name);
    else if (!among(name, world->env_names, world->env_count) &&
             !among(name, error_variables, COUNT(error_variables)) &&
             !(world->env_is_carried && world->env_is_carried(name)))
        report(witness, "undeclared_env", name);
}

static void judge_macro(struct witness *witness, struct event *event) {
    switch (event->kind) {
    case KILN_OBSERVE_EXEC:
        report(witness, "program", event->text);
        break;
    case KILN_OBSERVE_DLOPEN: // nobody has looked into its code, and the toolchain's would count as a tool's
        report(witness, "library", event->text);
        break;
    case KILN_OBSERVE_GETENV:
        judge_variable(witness, event->text);
        break;
    case KILN_OBSERVE_CLOCK:
        report(witness, "clock", event->text);
        break;
    case KILN_OBSERVE_WRITE:
        judge_write(witness, event);
        break;
    case KILN_OBSERVE_NET:
        report(witness, "network", event->text);
        break;
    case KILN_OBSERVE_SYSCALL:
        report(witness, "raw_syscall", event->text);
        break;
    case KILN_OBSERVE_ENVIRON:
        report(witness, "environ", NULL);
        break;
    case KILN_OBSERVE_IDENTITY:
        report(witness, "identity", event->text);
        break;
    default:
        judge_path(witness, event);
    }
}

static bool is_path_kind(unsigned kind) {
    return kind == KILN_OBSERVE_OPEN || kind == KILN_OBSERVE_STAT || kind == KILN_OBSERVE_LIST ||
           kind == KILN_OBSERVE_EXEC || kind == KILN_OBSERVE_DLOPEN;
}

static void judge(struct witness *witness, struct event *event) {
    if (event->macro)
        judge_macro(witness, event);
    else if (!*event->text && event->kind == KILN_OBSERVE_OPEN)
        witness->present = true;
    else if (is_path_kind(event->kind))
        judge_path(witness, event);
}

// One entry at `at`; its length, or 0 when it is none that an observer writes.
static size_t read_entry(struct witness *witness, const unsigned char *at, size_t left) {
    struct kiln_observe_entry entry;
    if (left < sizeof entry)
        return 0;
    memcpy(&entry, at, sizeof entry);
    if (entry.length > left || entry.text_length > TEXT_MAX ||
        entry.length != ((sizeof entry + entry.text_length + 3) & ~(size_t)3))
        return 0;
    if (entry.kind < KILN_OBSERVE_OPEN || entry.kind > KILN_OBSERVE_IDENTITY || entry.caller > KILN_CALLER_MACRO)
        return 0;
    char text[TEXT_MAX + 1];
    memcpy(text, at + sizeof entry, entry.text_length);
    text[entry.text_length] = 0;
    if (strlen(text) != entry.text_length)
        return 0;
    struct event event = {entry.kind, entry.caller == KILN_CALLER_MACRO, entry.result, text};
    judge(witness, &event);
    witness->report.events++;
    return entry.length;
}

static void read_log(struct witness *witness, const unsigned char *log, size_t len) {
    struct kiln_observe_header header;
    if (len < sizeof header) {
        report(witness, "observer_corrupt", NULL);
        return;
    }
    memcpy(&header, log, sizeof header);
    size_t room = len - sizeof header;
    if (header.magic != KILN_OBSERVE_MAGIC || header.version != KILN_OBSERVE_VERSION || header.capacity > room) {
        report(witness, "observer_corrupt", NULL);
        return;
    }
    size_t used = header.used;
    if (used > header.capacity) {
        report(witness, "observer_overflow", NULL);
        used = header.capacity;
    }
    for (size_t at = 0; at < used;) {
        size_t step = read_entry(witness, log + sizeof header + at, used - at);
        if (step == 0) {
            // What did not fit has no entry, which is no news beside the overflow.
            if (header.used <= header.capacity)
                report(witness, "observer_corrupt", NULL);
            break;
        }
        at += step;
    }
    if (!witness->present)
        report(witness, "observer_missing", NULL);
}

static int compare_lines(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

int kiln_witness_read(const void *log, size_t len, const struct kiln_witness_world *world,
                      struct kiln_witness_report *out, struct kiln_err *err) {
    struct witness witness = {.world = world};
    witness.report.observations = calloc(OBSERVATIONS_MAX, sizeof *witness.report.observations);
    if (!witness.report.observations)
        return kiln_fail(err, KILN_E_NOMEM, "observer's report");
    read_log(&witness, log, len);
    if (witness.rc) {
        kiln_witness_report_release(&witness.report);
        return kiln_fail(err, witness.rc, "observer's report");
    }
    qsort(witness.report.observations, witness.report.count, sizeof *witness.report.observations, compare_lines);
    *out = witness.report;
    return 0;
}

void kiln_witness_report_release(struct kiln_witness_report *given) {
    for (size_t i = 0; i < given->count; i++)
        free(given->observations[i]);
    free(given->observations);
    *given = (struct kiln_witness_report){0};
}
