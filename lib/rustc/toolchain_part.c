#include "lib/rustc/toolchain_part.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/base/proc.h"
#include "lib/rustc/paths.h"

#define PART_FILES_MAX 4096
#define PART_FILE_BYTES_MAX (2ull << 30)
#define TOOL_TIMEOUT_MS 20000

void kiln_part_files_release(struct kiln_part_files *files) {
    for (size_t i = 0; i < files->count; i++) {
        free(files->files[i].host);
        free(files->files[i].tree);
    }
    free(files->files);
    *files = (struct kiln_part_files){0};
}

int kiln_part_files_add(struct kiln_part_files *files, const char *host, const char *tree, struct kiln_err *err) {
    for (size_t i = 0; tree && i < files->count; i++)
        if (files->files[i].tree && !strcmp(files->files[i].tree, tree))
            return 0;
    if (files->count == PART_FILES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "a toolchain part has more than %d files", PART_FILES_MAX);
    if (files->count == files->cap) {
        size_t cap = files->cap ? files->cap * 2 : 64;
        struct kiln_part_file *grown = realloc(files->files, cap * sizeof *grown);
        if (!grown)
            return kiln_fail(err, KILN_E_NOMEM, "toolchain file list");
        files->files = grown;
        files->cap = cap;
    }
    struct kiln_part_file file = {.host = strdup(host), .tree = tree ? strdup(tree) : NULL};
    if (!file.host || (tree && !file.tree)) {
        free(file.host);
        free(file.tree);
        return kiln_fail(err, KILN_E_NOMEM, "toolchain file list");
    }
    files->files[files->count++] = file;
    return 0;
}

// Adds the regular files directly in host_dir that `want` accepts, and watches the directory.
static int add_directory(struct kiln_part_files *files, const char *host_dir, const char *tree_dir,
                         bool (*want)(const char *name), struct kiln_err *err) {
    DIR *dir = opendir(host_dir);
    if (!dir)
        return errno == ENOENT ? 0 : kiln_fail_errno(err, KILN_E_IO, "list %s", host_dir);
    int rc = kiln_part_files_add(files, host_dir, NULL, err);
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir))) {
        char host[PATH_MAX], tree[PATH_MAX];
        struct stat st;
        if (entry->d_name[0] == '.' || !want(entry->d_name))
            continue;
        if (snprintf(host, sizeof host, "%s/%s", host_dir, entry->d_name) >= (int)sizeof host ||
            snprintf(tree, sizeof tree, "%s/%s", tree_dir, entry->d_name) >= (int)sizeof tree)
            rc = kiln_fail(err, KILN_E_LIMIT, "path too long below %s", host_dir);
        else if (stat(host, &st) == 0 && S_ISREG(st.st_mode))
            rc = kiln_part_files_add(files, host, tree, err);
    }
    closedir(dir);
    return rc;
}

static bool want_shared_object(const char *name) { return strstr(name, ".so") != NULL; }
static bool want_library(const char *name) { return strncmp(name, "librustc-", 9) != 0; }
static bool want_all(const char *name) { return name[0] != 0; }
static bool want_math_archive(const char *name) { return !strncmp(name, "libm-", 5); }
static bool want_linker(const char *name) { return strcmp(name, "rust-objcopy") && strcmp(name, "wasm-component-ld"); }

int kiln_part_rustc(const char *sysroot, const char *host, const char *target, bool clippy,
                    struct kiln_part_files *files, struct kiln_err *err) {
    kiln_autofree char *place = kiln_place(KILN_PLACE_SYSROOT, NULL);
    if (!place)
        return kiln_fail(err, KILN_E_NOMEM, "toolchain");
    const char *root = place + 1; // tree paths are relative
    struct {
        const char *sub;
        bool (*want)(const char *name);
    } const dirs[] = {{"lib", want_shared_object},
                      {"lib/rustlib/%s/lib", want_library},
                      {"lib/rustlib/%s/lib/self-contained", want_all},
                      {"lib/rustlib/%s/bin", want_linker},
                      {"lib/rustlib/%s/bin/gcc-ld", want_all},
                      {"lib/rustlib/%s/codegen-backends", want_all}};
    static const char *const programs[] = {"bin/rustc", "bin/clippy-driver"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < (clippy ? 2 : 1); i++) {
        char from[PATH_MAX], to[PATH_MAX];
        snprintf(from, sizeof from, "%s/%s", sysroot, programs[i]);
        snprintf(to, sizeof to, "%s/%s", root, programs[i]);
        rc = kiln_part_files_add(files, from, to, err);
    }
    const char *const triples[] = {host, target && strcmp(target, host) ? target : NULL};
    for (size_t t = 0; rc == 0 && t < 2 && triples[t]; t++)
        for (size_t i = 0; rc == 0 && i < sizeof dirs / sizeof *dirs; i++) {
            char sub[512], from[PATH_MAX], to[PATH_MAX];
            if (!strchr(dirs[i].sub, '%') && t > 0)
                continue;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(sub, sizeof sub, dirs[i].sub, triples[t]);
#pragma GCC diagnostic pop
            snprintf(from, sizeof from, "%s/%s", sysroot, sub);
            snprintf(to, sizeof to, "%s/%s", root, sub);
            rc = add_directory(files, from, to, dirs[i].want, err);
        }
    return rc;
}

// Where a system file appears in the sandbox: its real directory (below /usr on a merged system), its own name.
static int add_system_file(struct kiln_part_files *files, const char *path, const char *name, struct kiln_err *err) {
    char real[PATH_MAX];
    kiln_autofree char *dir = kiln_path_dir(path);
    if (!dir || !realpath(dir, real))
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "toolchain file %s", path);
    char tree[PATH_MAX];
    if (snprintf(tree, sizeof tree, "%s/%s", real + 1, name ? name : kiln_path_base(path)) >= (int)sizeof tree)
        return kiln_fail(err, KILN_E_LIMIT, "path too long: %s", path);
    return kiln_part_files_add(files, path, tree, err);
}

static int run_tool(const char *program, const char *const *args, struct kiln_buf *out, struct kiln_err *err) {
    char *argv[8] = {(char *)program};
    for (size_t i = 0; args[i] && i < 6; i++)
        argv[i + 1] = (char *)args[i];
    char *const envp[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL};
    kiln_autobuf struct kiln_buf errout = KILN_BUF_INIT(65536);
    struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp, .cwd = "/"};
    int status;
    int rc = kiln_proc_run(&options, kiln_clock_ms() + TOOL_TIMEOUT_MS, out, &errout, &status, err);
    if (rc)
        return kiln_wrap(err, rc, "run %s", program);
    if (status)
        return kiln_fail(err, KILN_E_INVAL, "%s ended with status %d: %.200s", program, status, kiln_buf_text(&errout));
    return 0;
}

static const char *loader_path(void) { return "/lib64/ld-linux-x86-64.so.2"; }

// Adds every library outside `skip_prefix` that the dynamic loader would load for the object.
static int add_needed(struct kiln_part_files *files, const char *object, const char *skip_prefix, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(1 << 20);
    int rc = run_tool(loader_path(), (const char *const[]){"--list", object, NULL}, &out, err);
    if (rc)
        return rc;
    char *save = NULL;
    for (char *line = strtok_r((char *)kiln_buf_text(&out), "\n", &save); rc == 0 && line; line = strtok_r(NULL, "\n", &save)) {
        char *arrow = strstr(line, " => ");
        char *path = arrow ? arrow + 4 : line + strspn(line, " \t");
        path[strcspn(path, " ")] = 0;
        if (path[0] != '/' || (skip_prefix && kiln_path_beneath(path, skip_prefix)))
            continue;
        kiln_autofree char *name = NULL;
        if (arrow) {
            *arrow = 0;
            name = strdup(kiln_path_base(line + strspn(line, " \t")));
        }
        rc = add_system_file(files, path, name, err);
    }
    return rc;
}

int kiln_part_runtime(const char *sysroot, const char *host, struct kiln_part_files *files, struct kiln_err *err) {
    static const char *const objects[] = {"bin/rustc", "lib/rustlib/%s/bin/rust-lld", "lib/rustlib/%s/bin/gcc-ld/ld.lld"};
    int rc = add_system_file(files, loader_path(), NULL, err);
    for (size_t i = 0; rc == 0 && i < sizeof objects / sizeof *objects; i++) {
        char sub[512], path[PATH_MAX];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(sub, sizeof sub, objects[i], host);
#pragma GCC diagnostic pop
        snprintf(path, sizeof path, "%s/%s", sysroot, sub);
        if (access(path, R_OK) == 0)
            rc = add_needed(files, path, sysroot, err);
    }
    // Macros link these too, and glibc before 2.34 kept parts of itself in them.
    static const char *const always[] = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0",
                                         "libdl.so.2", "librt.so.1", "libutil.so.1"};
    for (size_t i = 0; rc == 0 && i < sizeof always / sizeof *always; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "/lib/x86_64-linux-gnu/%s", always[i]);
        if (access(path, R_OK) == 0)
            rc = add_system_file(files, path, NULL, err);
    }
    return rc;
}

// The path that the C driver itself would use for a program or file; NULL when it has none.
static char *ask_driver(const char *cc, const char *question, const char *name, struct kiln_err *err) {
    char argument[256];
    snprintf(argument, sizeof argument, "%s=%s", question, name);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(8192);
    if (run_tool(cc, (const char *const[]){argument, NULL}, &out, err))
        return NULL;
    char *text = (char *)kiln_buf_text(&out);
    text[strcspn(text, "\n")] = 0;
    if (text[0] == '/')
        return strdup(text);
    if (strcmp(question, "-print-prog-name"))
        return NULL;
    kiln_autofree char *path = kiln_path_join("/usr/bin", text);
    return path && access(path, X_OK) == 0 ? KILN_STEAL(path) : NULL;
}

int kiln_part_link(const char *cc, struct kiln_part_files *files, struct kiln_err *err) {
    static const char *const programs[] = {"collect2", "lto-wrapper", "ld"};
    static const char *const objects[] = {
        "liblto_plugin.so", "crtbegin.o",    "crtbeginS.o",       "crtbeginT.o", "crtend.o",      "crtendS.o", "libgcc.a",
        "libgcc_eh.a",      "libgcc_s.so",   "libatomic.a",       "libatomic.so", "libstdc++.a",  "libstdc++.so",
        "crt1.o",           "Scrt1.o",       "rcrt1.o",           "gcrt1.o",     "crti.o",        "crtn.o",    "libc.so",
        "libc.a",           "libc_nonshared.a", "libm.so",        "libm.a",      "libmvec.a",     "libpthread.a", "libdl.a",
        "librt.a",          "libutil.a",     "libresolv.so",      "libresolv.a", "libgcc_s.so.1", "libmvec.so.1"};
    int rc = kiln_part_files_add(files, cc, "usr/bin/cc", err);
    if (rc == 0)
        rc = add_needed(files, cc, NULL, err);
    for (size_t i = 0; rc == 0 && i < sizeof programs / sizeof *programs; i++) {
        kiln_autofree char *path = ask_driver(cc, "-print-prog-name", programs[i], err);
        if (!path && strcmp(programs[i], "lto-wrapper"))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "%s names no %s", cc, programs[i]);
        if (path)
            rc = add_system_file(files, path, programs[i], err);
        if (path && rc == 0)
            rc = add_needed(files, path, NULL, err);
    }
    for (size_t i = 0; rc == 0 && i < sizeof objects / sizeof *objects; i++) {
        kiln_autofree char *path = ask_driver(cc, "-print-file-name", objects[i], err);
        if (path && access(path, R_OK) == 0)
            rc = add_system_file(files, path, objects[i], err);
    }
    // libm.a, libresolv.so and libstdc++.so are, or lead to, files whose names hold a version.
    static const char *const versioned[] = {"/lib/x86_64-linux-gnu/libresolv.so.2", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"};
    for (size_t i = 0; rc == 0 && i < sizeof versioned / sizeof *versioned; i++)
        if (access(versioned[i], R_OK) == 0)
            rc = add_system_file(files, versioned[i], NULL, err);
    return rc ? rc : add_directory(files, "/usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", want_math_archive, err);
}

static bool is_own(const struct stat *st) { return st->st_uid == 0 || st->st_uid == geteuid(); }

// Nobody but root and the agent can put another file in this one's place: checked up to the root.
static bool is_kept(const char *path) {
    kiln_autofree char *dir = strdup(path);
    while (dir) {
        char *slash = strrchr(dir, '/');
        struct stat st;
        if (!slash)
            return false;
        slash[slash == dir] = 0;
        if (stat(dir, &st) || !is_own(&st) || ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
            return false;
        if (!dir[1])
            return true;
    }
    return false;
}

bool kiln_part_trusted(const struct kiln_part_files *files) {
    for (size_t i = 0; i < files->count; i++) {
        struct stat st;
        if (stat(files->files[i].host, &st) || !is_own(&st) || (st.st_mode & 022) || !is_kept(files->files[i].host))
            return false;
    }
    return true;
}

// The directory of the file before: files of one directory follow each other, and a short path is looked up faster.
struct near {
    char dir[PATH_MAX];
    int fd;
};

static void leave(struct near *near) { kiln_cleanup_fd(&near->fd); }

static int stat_file(struct near *near, const char *path, struct stat *st) {
    size_t len = (size_t)(kiln_path_base(path) - path);
    if (len == 0 || len >= sizeof near->dir)
        return stat(path, st);
    if (near->fd < 0 || strncmp(near->dir, path, len) || near->dir[len]) {
        leave(near);
        memcpy(near->dir, path, len);
        near->dir[len] = 0;
        near->fd = open(near->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    return near->fd < 0 ? -1 : fstatat(near->fd, path + len, st, 0);
}

int kiln_part_identity(const struct kiln_part_files *files, struct kiln_digest *identity, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(PART_FILES_MAX * 64);
    kiln_auto(leave) struct near near = {.fd = -1};
    for (size_t i = 0; i < files->count; i++) {
        struct stat st;
        if (stat_file(&near, files->files[i].host, &st))
            return kiln_fail_errno(err, KILN_E_NOTFOUND, "toolchain file %s", files->files[i].host);
        kiln_buf_add_be64(&buf, st.st_dev);
        kiln_buf_add_be64(&buf, st.st_ino);
        kiln_buf_add_be64(&buf, (uint64_t)st.st_size);
        kiln_buf_add_be64(&buf, (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec);
        kiln_buf_add_be64(&buf, (uint64_t)st.st_ctim.tv_sec * 1000000000u + (uint64_t)st.st_ctim.tv_nsec);
    }
    int rc = kiln_buf_check(&buf, "toolchain identity", err);
    if (rc == 0)
        kiln_digest_of(buf.data, buf.len, identity);
    return rc;
}

static int stage_file(const struct kiln_part_file *file, int root, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autofd int in = open(file->host, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st))
        return kiln_fail_errno(err, KILN_E_IO, "open %s", file->host);
    bool executable = st.st_mode & 0111;
    kiln_autofree char *dir = kiln_path_dir(file->tree);
    if (!dir)
        return kiln_fail(err, KILN_E_NOMEM, "stage toolchain");
    int rc = kiln_fs_make_dirs(root, dir, 0755, err);
    if (rc)
        return rc;
    kiln_autofd int out = openat(root, file->tree, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0)
        return kiln_fail_errno(err, KILN_E_IO, "stage %s", file->tree);
    struct kiln_digest digest;
    uint64_t size;
    rc = kiln_digest_copy_fd(in, out, PART_FILE_BYTES_MAX, &digest, &size, err);
    if (rc)
        return kiln_wrap(err, rc, "stage %s", file->host);
    if (fchmod(out, executable ? 0555 : 0444))
        return kiln_fail_errno(err, KILN_E_IO, "stage %s", file->tree);
    return kiln_tree_add_file(tree, file->tree, executable, size, &digest, err);
}

static int name_file(const struct kiln_part_file *file, struct kiln_tree *tree, struct kiln_err *err) {
    kiln_autofd int in = open(file->host, O_RDONLY | O_CLOEXEC);
    struct stat st;
    struct kiln_digest digest;
    uint64_t size;
    if (in < 0 || fstat(in, &st))
        return kiln_fail_errno(err, KILN_E_IO, "open %s", file->host);
    int rc = kiln_digest_of_fd(in, PART_FILE_BYTES_MAX, &digest, &size, err);
    return rc ? kiln_wrap(err, rc, "read %s", file->host)
              : kiln_tree_add_file(tree, file->tree, st.st_mode & 0111, size, &digest, err);
}

int kiln_part_digest(const struct kiln_part_files *files, struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < files->count; i++)
        if (files->files[i].tree)
            rc = name_file(&files->files[i], &tree, err);
    if (rc == 0)
        rc = kiln_tree_finish(&tree, err);
    return rc ? rc : kiln_tree_digest(&tree, digest, err);
}

static int stage_into(const struct kiln_part_files *files, int stage, const char *name, struct kiln_digest *digest,
                      struct kiln_err *err) {
    kiln_autotree struct kiln_tree tree = {0};
    char root_name[64];
    snprintf(root_name, sizeof root_name, "%s/root", name);
    int rc = kiln_fs_make_dirs(stage, root_name, 0755, err);
    kiln_autofd int root = rc ? -1 : openat(stage, root_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && root < 0)
        rc = kiln_fail_errno(err, KILN_E_IO, "open %s", root_name);
    for (size_t i = 0; rc == 0 && i < files->count; i++)
        if (files->files[i].tree)
            rc = stage_file(&files->files[i], root, &tree, err);
    if (rc == 0)
        rc = kiln_tree_finish(&tree, err);
    kiln_autobuf struct kiln_buf encoding = KILN_BUF_INIT(KILN_TREE_BYTES_MAX);
    if (rc == 0)
        rc = kiln_tree_encode(&tree, &encoding, err);
    char tree_name[64];
    snprintf(tree_name, sizeof tree_name, "%s/tree", name);
    if (rc == 0)
        rc = kiln_fs_write_file(stage, tree_name, encoding.data, encoding.len, 0444, err);
    if (rc == 0)
        kiln_digest_of(encoding.data, encoding.len, digest);
    return rc;
}

int kiln_part_stage(const struct kiln_part_files *files, const char *stage_dir, struct kiln_digest *digest,
                    struct kiln_err *err) {
    kiln_autofd int stage = -1;
    int rc = kiln_fs_make_dirs(AT_FDCWD, stage_dir, 0700, err);
    if (rc == 0)
        rc = kiln_fs_open_dir(stage_dir, &stage, err);
    if (rc)
        return rc;
    char temporary[48];
    snprintf(temporary, sizeof temporary, ".new-%d-%llu", (int)getpid(), (unsigned long long)kiln_clock_us());
    rc = stage_into(files, stage, temporary, digest, err);
    if (rc == 0) {
        char hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(digest, hex);
        if (renameat2(stage, temporary, stage, hex, RENAME_NOREPLACE) && errno != EEXIST)
            rc = kiln_fail_errno(err, KILN_E_IO, "publish toolchain %s", hex);
    }
    kiln_fs_remove_tree(stage, temporary, NULL);
    return rc;
}

int kiln_part_files_encode(const struct kiln_part_files *files, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_be32(out, (uint32_t)files->count);
    for (size_t i = 0; i < files->count; i++) {
        kiln_buf_add_field_str(out, files->files[i].host);
        kiln_buf_add_field_str(out, files->files[i].tree ? files->files[i].tree : "");
    }
    return kiln_buf_check(out, "toolchain file list", err);
}

int kiln_part_files_decode(struct kiln_reader *reader, struct kiln_part_files *files, struct kiln_err *err) {
    uint32_t count = kiln_read_be32(reader);
    int rc = count > PART_FILES_MAX ? KILN_E_CORRUPT : 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        kiln_autofree char *host = kiln_read_field_text(reader, PATH_MAX);
        kiln_autofree char *tree = kiln_read_field_text(reader, PATH_MAX);
        rc = host && tree ? kiln_part_files_add(files, host, *tree ? tree : NULL, err) : KILN_E_CORRUPT;
    }
    return rc ? kiln_fail(err, KILN_E_CORRUPT, "toolchain file list in the memo") : 0;
}
