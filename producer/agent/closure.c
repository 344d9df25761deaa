#include "producer/agent/closure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/core/result.h"
#include "lib/macro/macro_object.h"

#define LS_TIMEOUT_MS 30000
#define LIBRARIES_MAX 8192u

void kiln_closure_release(struct kiln_closure *closure) {
    for (size_t i = 0; i < closure->count; i++) {
        free(closure->libraries[i].path);
        free(closure->libraries[i].name);
    }
    free(closure->libraries);
    for (size_t i = 0; i < closure->stems_count; i++)
        free(closure->stems[i]);
    free(closure->stems);
    *closure = (struct kiln_closure){0};
}

// Position of a stem, or where it belongs.
static bool find_stem(const struct kiln_closure *closure, const char *stem, size_t *at) {
    size_t low = 0, high = closure->stems_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(closure->stems[middle], stem);
        if (order == 0) {
            *at = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return false;
}

// 1 when added, 0 when known, negative on failure.
static int add_stem(struct kiln_closure *closure, const char *stem, struct kiln_err *err) {
    size_t at;
    if (find_stem(closure, stem, &at))
        return 0;
    if (closure->stems_count == KILN_RESULT_STEMS_MAX)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "closure_too_large: more than %u libraries", KILN_RESULT_STEMS_MAX);
    if (closure->stems_count == closure->stems_cap) {
        size_t cap = closure->stems_cap ? closure->stems_cap * 2 : 64;
        char **grown = realloc(closure->stems, cap * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "closure");
        closure->stems = grown;
        closure->stems_cap = cap;
    }
    char *copy = strdup(stem);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "closure");
    memmove(closure->stems + at + 1, closure->stems + at, (closure->stems_count - at) * sizeof *closure->stems);
    closure->stems[at] = copy;
    closure->stems_count++;
    return 1;
}

// "libfoo-0123.rmeta" -> "libfoo-0123"; NULL for a name that is no library.
static char *stem_of(const char *path) {
    const char *name = kiln_path_base(path), *dot = strrchr(name, '.');
    if (!dot || strncmp(name, "lib", 3) || (strcmp(dot, ".rlib") && strcmp(dot, ".rmeta") && strcmp(dot, ".so")))
        return NULL;
    return strndup(name, (size_t)(dot - name));
}

static int add_library(const struct kiln_closure_context *context, struct kiln_closure *closure, const char *path,
                       struct kiln_library **added, struct kiln_err *err) {
    *added = NULL;
    const char *name = kiln_path_base(path);
    for (size_t i = 0; i < closure->count; i++)
        if (!strcmp(closure->libraries[i].name, name) && !strcmp(closure->libraries[i].path, path))
            return 0;
    if (closure->count == LIBRARIES_MAX)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "closure_too_large: more than %u files", LIBRARIES_MAX);
    struct stat st;
    struct kiln_library library = {0};
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_missing: %s", path);
    library.size = (uint64_t)st.st_size;
    if (!kiln_memo_known(context->memo, &st, &library.digest)) {
        kiln_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        int rc = fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", path)
                        : kiln_memo_digest_fd(context->memo, fd, &library.digest, &library.size, err);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < closure->count; i++)
        if (!strcmp(closure->libraries[i].name, name)) {
            if (kiln_digest_equal(&closure->libraries[i].digest, &library.digest))
                return 0;
            return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_name_collision: two different files are called %s", name);
        }
    if (closure->count == closure->cap) {
        size_t cap = closure->cap ? closure->cap * 2 : 64;
        struct kiln_library *grown = realloc(closure->libraries, cap * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "closure");
        closure->libraries = grown;
        closure->cap = cap;
    }
    library.path = strdup(path);
    library.name = strdup(name);
    if (!library.path || !library.name) {
        free(library.path);
        free(library.name);
        return kiln_fail(err, KILN_E_NOMEM, "closure");
    }
    closure->libraries[closure->count] = library;
    *added = &closure->libraries[closure->count++];
    return 0;
}

// A proc macro must be observable, or its unit is local. One that makes system calls by itself is watched by the executor.
static int check_macro(const struct kiln_closure_context *context, const struct kiln_library *library, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(16);
    enum kiln_macro_verdict verdict;
    if (kiln_l0_memo_get(context->l0, KILN_MEMO_MACRO, library->digest.bytes, 32, &value, NULL) == 0 && value.len == 1) {
        verdict = value.data[0];
    } else {
        kiln_autofd int fd = open(library->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        int rc = fd < 0 ? kiln_fail_errno(err, KILN_E_IO, "open %s", library->path)
                        : kiln_macro_object_check(fd, &verdict, err);
        if (rc)
            return rc;
        unsigned char byte = (unsigned char)verdict;
        kiln_l0_memo_put(context->l0, KILN_MEMO_MACRO, library->digest.bytes, 32, &byte, 1, NULL);
    }
    if (verdict == KILN_MACRO_SEEN || verdict == KILN_MACRO_SYSCALL)
        return 0;
    return kiln_fail(err, KILN_E_UNSUPPORTED, "macro_%s: %s", kiln_macro_verdict_name(verdict), library->name);
}

void kiln_closure_remember(struct kiln_l0 *l0, const struct kiln_digest *library, char *const *stems, size_t count) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(1 << 20), known = KILN_BUF_INIT(1 << 20);
    if (kiln_l0_memo_get(l0, KILN_MEMO_CLOSURE, library->bytes, 32, &known, NULL) == 0)
        return;
    for (size_t i = 0; i < count; i++)
        kiln_buf_add_field_str(&value, stems[i]);
    if (kiln_buf_check(&value, "closure", NULL) == 0)
        kiln_l0_memo_put(l0, KILN_MEMO_CLOSURE, library->bytes, 32, value.data, value.len, NULL);
}

// The stems that `rustc -Zls=root` lists: lines "N name-EXTRA hash ..." below "=External Dependencies=".
static int parse_listing(char *text, char ***stems, size_t *count, struct kiln_err *err) {
    char *at = strstr(text, "=External Dependencies=");
    if (!at)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_unknown: rustc lists no dependencies");
    size_t cap = 0;
    char *save = NULL;
    strtok_r(at, "\n", &save);
    for (char *line = strtok_r(NULL, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *end;
        unsigned long number = strtoul(line, &end, 10);
        if (end == line || *end != ' ' || number == 0)
            break;
        char *name = end + strspn(end, " ");
        name[strcspn(name, " ")] = 0;
        if (*count == cap) {
            cap = cap ? cap * 2 : 32;
            char **grown = realloc(*stems, cap * sizeof *grown);
            if (!grown)
                return kiln_fail(err, KILN_E_NOMEM, "closure");
            *stems = grown;
        }
        if (asprintf(&(*stems)[*count], "lib%s", name) < 0)
            return kiln_fail(err, KILN_E_NOMEM, "closure");
        (*count)++;
    }
    return 0;
}

static int ask_rustc(const struct kiln_closure_context *context, const struct kiln_library *library, struct kiln_buf *stems,
                     struct kiln_err *err) {
    if (context->system_mode)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_unknown: %s, and no program is run for clients in system mode",
                         library->name);
    char *argv[] = {context->toolchain->rustc_path, (char *)"-Zls=root", library->path, NULL};
    char *const envp[] = {(char *)"RUSTC_BOOTSTRAP=1", (char *)"PATH=/usr/bin:/bin", NULL};
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(4u << 20), errout = KILN_BUF_INIT(1u << 20);
    struct kiln_proc_options options = {.program = context->toolchain->rustc_path, .argv = argv, .envp = envp, .cwd = "/"};
    int status;
    int rc = kiln_proc_run(&options, kiln_clock_ms() + LS_TIMEOUT_MS, &out, &errout, &status, err);
    if (rc == 0 && status)
        rc = KILN_E_UNSUPPORTED;
    if (rc)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_unknown: rustc cannot list %s: %.200s", library->path,
                         kiln_buf_text(&errout));
    char **names = NULL;
    size_t count = 0;
    rc = parse_listing((char *)kiln_buf_text(&out), &names, &count, err);
    if (rc == 0)
        kiln_closure_remember(context->l0, &library->digest, names, count);
    for (size_t i = 0; i < count; i++) {
        kiln_buf_add_field_str(stems, names[i]);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int stems_of_library(const struct kiln_closure_context *context, const struct kiln_library *library,
                            struct kiln_buf *stems, struct kiln_err *err) {
    if (kiln_l0_memo_get(context->l0, KILN_MEMO_CLOSURE, library->digest.bytes, 32, stems, NULL) == 0)
        return 0;
    kiln_buf_reset(stems);
    return ask_rustc(context, library, stems, err);
}

// Where the file STEM.SUFFIX lies in the -L dependency directories; NULL when in none.
static char *find_in_dirs(const struct kiln_closure_context *context, const struct kiln_rustc_call *call, const char *stem,
                          const char *suffix) {
    for (size_t i = 0; i < call->lib_dirs_count; i++) {
        enum kiln_lib_dir_kind kind = call->lib_dirs[i].kind;
        if (kind != KILN_DIR_DEPENDENCY && kind != KILN_DIR_ALL)
            continue;
        char path[PATH_MAX];
        const char *dir = call->lib_dirs[i].path;
        int len = dir[0] == '/' ? snprintf(path, sizeof path, "%s/%s.%s", dir, stem, suffix)
                                : snprintf(path, sizeof path, "%s/%s/%s.%s", context->cwd, dir, stem, suffix);
        if (len < (int)sizeof path && access(path, R_OK) == 0)
            return strdup(path);
    }
    return NULL;
}

// Adds the files of one stem found beside the direct externs. Crates of the sysroot have no file there: skipped.
static int add_stem_files(const struct kiln_closure_context *context, const struct kiln_rustc_call *call,
                          struct kiln_closure *closure, const char *stem, bool libraries, struct kiln_err *err) {
    const char *const order[2] = {libraries ? "rlib" : "rmeta", libraries ? "rmeta" : "rlib"};
    struct kiln_library *added;
    int rc = 0;
    kiln_autofree char *object = find_in_dirs(context, call, stem, "so");
    if (object) {
        rc = add_library(context, closure, object, &added, err);
        if (rc == 0 && added)
            rc = check_macro(context, added, err);
    }
    for (int i = 0; rc == 0 && i < 2; i++) {
        kiln_autofree char *path = find_in_dirs(context, call, stem, order[i]);
        if (path)
            return add_library(context, closure, path, &added, err);
    }
    return rc;
}

static bool is_sysroot_crate(const char *name) {
    static const char *const names[] = {"proc_macro", "std", "core", "alloc", "test"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static int add_direct(const struct kiln_closure_context *context, struct kiln_closure *closure,
                      const struct kiln_extern *item, struct kiln_buf *wanted, struct kiln_err *err) {
    if (!item->path)
        return is_sysroot_crate(item->name)
                   ? 0
                   : kiln_fail(err, KILN_E_UNSUPPORTED, "extern_without_path: %s", item->name);
    kiln_autofree char *path = kiln_path_join(context->cwd, item->path);
    kiln_autofree char *stem = path ? stem_of(path) : NULL;
    if (!stem)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "extern_odd_name: %s", item->path);
    struct kiln_library *added;
    int rc = add_library(context, closure, path, &added, err);
    if (rc || !added)
        return rc;
    if (!strcmp(path + strlen(path) - 3, ".so"))
        rc = check_macro(context, added, err);
    if (rc == 0)
        rc = add_stem(closure, stem, err) < 0 ? KILN_E_UNSUPPORTED : 0;
    kiln_autobuf struct kiln_buf stems = KILN_BUF_INIT(1 << 20);
    if (rc == 0)
        rc = stems_of_library(context, added, &stems, err);
    if (rc == 0)
        rc = kiln_buf_add(wanted, stems.data, stems.len);
    return rc;
}

static int by_library_name(const void *a, const void *b) {
    return strcmp(((const struct kiln_library *)a)->name, ((const struct kiln_library *)b)->name);
}

int kiln_closure_collect(const struct kiln_closure_context *context, const struct kiln_rustc_call *call,
                         struct kiln_closure *closure, struct kiln_err *err) {
    bool libraries = kiln_rustc_needs_libraries(call);
    kiln_autobuf struct kiln_buf wanted = KILN_BUF_INIT(64u << 20);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < call->externs_count; i++)
        rc = add_direct(context, closure, &call->externs[i], &wanted, err);
    struct kiln_reader reader = KILN_READER_INIT(wanted.data, wanted.len);
    while (rc == 0 && reader.at < reader.len && !reader.failed) {
        kiln_autofree char *stem = kiln_read_field_text(&reader, 1024);
        if (!stem)
            break;
        int added = add_stem(closure, stem, err);
        if (added > 0)
            rc = add_stem_files(context, call, closure, stem, libraries, err);
        else if (added < 0)
            rc = added;
    }
    if (rc == 0 && closure->count)
        qsort(closure->libraries, closure->count, sizeof *closure->libraries, by_library_name);
    return rc;
}
