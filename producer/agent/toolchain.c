#include "producer/agent/toolchain.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
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
#include "producer/agent/request_env.h"
#include "lib/rustc/toolchain_part.h"

#define PROXY_TIMEOUT_MS 60000
#define IDENTIFY_ATTEMPTS 4

// A part that was identified in this process or found in the memo.
struct part {
    char *key; // "rustc SYSROOT TARGET clippy", "runtime SYSROOT", "link CC"
    struct kiln_part_files files;
    struct kiln_digest identity, digest;
    struct part *next;
};

struct proxy { // a rustup proxy's answer
    char *key;
    char *sysroot;
    struct proxy *next;
};

struct kiln_toolchains {
    pthread_mutex_t lock;
    char *stage_dir;
    struct kiln_l0 *l0;
    bool system_mode;
    enum kiln_toolchain_use use;
    struct part *parts;
    struct proxy *proxies;
};

void kiln_toolchain_release(struct kiln_toolchain *toolchain) {
    free(toolchain->sysroot);
    free(toolchain->host);
    free(toolchain->rustc_path);
    *toolchain = (struct kiln_toolchain){0};
}

int kiln_toolchains_new(const char *dir, struct kiln_l0 *l0, bool system_mode, enum kiln_toolchain_use use,
                        struct kiln_toolchains **out, struct kiln_err *err) {
    struct kiln_toolchains *toolchains = calloc(1, sizeof *toolchains);
    if (!toolchains || !(toolchains->stage_dir = kiln_path_join(dir, "toolchains"))) {
        free(toolchains);
        return kiln_fail(err, KILN_E_NOMEM, "toolchains");
    }
    pthread_mutex_init(&toolchains->lock, NULL);
    toolchains->l0 = l0;
    toolchains->system_mode = system_mode;
    toolchains->use = use;
    *out = toolchains;
    return 0;
}

static void free_part(struct part *part) {
    kiln_part_files_release(&part->files);
    free(part->key);
    free(part);
}

void kiln_toolchains_free(struct kiln_toolchains *toolchains) {
    if (!toolchains)
        return;
    while (toolchains->parts) {
        struct part *next = toolchains->parts->next;
        free_part(toolchains->parts);
        toolchains->parts = next;
    }
    while (toolchains->proxies) {
        struct proxy *next = toolchains->proxies->next;
        free(toolchains->proxies->key);
        free(toolchains->proxies->sysroot);
        free(toolchains->proxies);
        toolchains->proxies = next;
    }
    pthread_mutex_destroy(&toolchains->lock);
    free(toolchains->stage_dir);
    free(toolchains);
}

// A directory that holds lib/rustlib is a sysroot.
static char *sysroot_of_program(const char *program) {
    char real[PATH_MAX];
    if (!realpath(program, real))
        return NULL;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(real, '/');
        if (!slash || slash == real)
            return NULL;
        *slash = 0;
    }
    char rustlib[PATH_MAX + 16];
    snprintf(rustlib, sizeof rustlib, "%s/lib/rustlib", real);
    return access(rustlib, X_OK) == 0 ? strdup(real) : NULL;
}

// What a rustup proxy's answer depends on: the program, the caller's choice by variable, else the files it looks for.
static int proxy_key(const char *program, const struct kiln_toolchain_query *query, struct kiln_buf *key) {
    const char *chosen = kiln_request_env(query->env, query->env_count, "RUSTUP_TOOLCHAIN");
    const char *home = kiln_request_env(query->env, query->env_count, "RUSTUP_HOME");
    const char *user = kiln_request_env(query->env, query->env_count, "HOME");
    kiln_buf_add_field_str(key, program);
    kiln_buf_add_field_str(key, home ? home : "");
    kiln_buf_add_field_str(key, chosen ? chosen : "");
    if (chosen)
        return 0;
    kiln_buf_add_field_str(key, query->cwd);
    static const char *const names[] = {"rust-toolchain", "rust-toolchain.toml"};
    kiln_autofree char *dir = strdup(query->cwd);
    while (dir && *dir) {
        for (int i = 0; i < 2; i++) {
            struct stat st;
            kiln_autofree char *path = kiln_path_join(dir, names[i]);
            if (path && stat(path, &st) == 0)
                kiln_buf_addf(key, "%s %llu %lld %ld;", path, (unsigned long long)st.st_ino,
                              (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        }
        char *slash = strrchr(dir, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    struct stat st;
    kiln_autofree char *settings = home ? kiln_path_join(home, "settings.toml")
                                        : (user ? kiln_path_join(user, ".rustup/settings.toml") : NULL);
    if (settings && stat(settings, &st) == 0)
        kiln_buf_addf(key, "%llu %lld %ld", (unsigned long long)st.st_ino, (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
    return kiln_buf_check(key, "toolchain choice", NULL);
}

static int ask_proxy(const char *program, const struct kiln_toolchain_query *query, char **sysroot, struct kiln_err *err) {
    char *argv[] = {(char *)program, (char *)"--print", (char *)"sysroot", NULL};
    kiln_autofree char **envp = calloc(query->env_count + 1, sizeof *envp);
    if (!envp)
        return kiln_fail(err, KILN_E_NOMEM, "ask %s", program);
    memcpy(envp, query->env, query->env_count * sizeof *envp);
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(PATH_MAX), errout = KILN_BUF_INIT(65536);
    struct kiln_proc_options options = {.program = program, .argv = argv, .envp = envp, .cwd = query->cwd};
    int status;
    int rc = kiln_proc_run(&options, kiln_clock_ms() + PROXY_TIMEOUT_MS, &out, &errout, &status, err);
    if (rc)
        return kiln_wrap(err, rc, "ask %s for its sysroot", program);
    char *text = (char *)kiln_buf_text(&out);
    text[strcspn(text, "\n")] = 0;
    if (status || text[0] != '/')
        return kiln_fail(err, KILN_E_UNSUPPORTED, "%s names no sysroot", program);
    *sysroot = strdup(text);
    return *sysroot ? 0 : kiln_fail(err, KILN_E_NOMEM, "sysroot");
}

static int sysroot_of_proxy(struct kiln_toolchains *toolchains, const char *program,
                            const struct kiln_toolchain_query *query, char **sysroot, struct kiln_err *err) {
    if (toolchains->system_mode)
        return kiln_fail(err, KILN_E_DENIED, "%s is a proxy: not run for clients in system mode", program);
    kiln_autobuf struct kiln_buf key = KILN_BUF_INIT(1 << 16);
    int rc = proxy_key(program, query, &key);
    if (rc)
        return kiln_fail(err, rc, "toolchain choice of %s", program);
    struct kiln_digest digest;
    char name[KILN_DIGEST_HEX_LEN + 1];
    kiln_digest_of(key.data, key.len, &digest);
    kiln_digest_format(&digest, name);
    for (struct proxy *proxy = toolchains->proxies; proxy; proxy = proxy->next)
        if (!strcmp(proxy->key, name)) {
            *sysroot = strdup(proxy->sysroot);
            return *sysroot ? 0 : kiln_fail(err, KILN_E_NOMEM, "sysroot");
        }
    rc = ask_proxy(program, query, sysroot, err);
    if (rc)
        return rc;
    struct proxy *proxy = calloc(1, sizeof *proxy);
    if (proxy && (proxy->key = strdup(name)) && (proxy->sysroot = strdup(*sysroot))) {
        proxy->next = toolchains->proxies;
        toolchains->proxies = proxy;
    } else if (proxy) {
        free(proxy->key);
        free(proxy);
    }
    return 0;
}

// Fills a part from the memo of an earlier agent; the identity decides whether it still holds.
static bool recall_part(struct kiln_toolchains *toolchains, struct part *part) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(1 << 20);
    if (kiln_l0_memo_get(toolchains->l0, KILN_MEMO_TOOLCHAIN, part->key, strlen(part->key), &value, NULL))
        return false;
    struct kiln_reader reader = KILN_READER_INIT(value.data, value.len);
    const unsigned char *identity = kiln_read_bytes(&reader, 32), *digest = kiln_read_bytes(&reader, 32);
    if (!identity || !digest || kiln_part_files_decode(&reader, &part->files, NULL))
        return false;
    memcpy(part->identity.bytes, identity, 32);
    memcpy(part->digest.bytes, digest, 32);
    return true;
}

static void remember_part(struct kiln_toolchains *toolchains, const struct part *part) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(1 << 20);
    kiln_buf_add(&value, part->identity.bytes, 32);
    kiln_buf_add(&value, part->digest.bytes, 32);
    if (kiln_part_files_encode(&part->files, &value, NULL) == 0)
        kiln_l0_memo_put(toolchains->l0, KILN_MEMO_TOOLCHAIN, part->key, strlen(part->key), value.data, value.len, NULL);
}

static bool part_is_current(const struct kiln_toolchains *toolchains, const struct part *part) {
    struct kiln_digest now;
    if (kiln_part_identity(&part->files, &now, NULL) || !kiln_digest_equal(&now, &part->identity))
        return false;
    if (toolchains->use == KILN_TOOLCHAIN_NAMED)
        return true;
    char hex[KILN_DIGEST_HEX_LEN + 1], path[PATH_MAX];
    kiln_digest_format(&part->digest, hex);
    return snprintf(path, sizeof path, "%s/%s/tree", toolchains->stage_dir, hex) < (int)sizeof path &&
           access(path, R_OK) == 0;
}

struct part_recipe {
    char key[PATH_MAX + 256];
    const char *sysroot, *host, *target, *cc;
    bool clippy;
    enum { PART_RUSTC, PART_RUNTIME, PART_LINK } which;
};

static int list_part(const struct part_recipe *recipe, struct kiln_part_files *files, struct kiln_err *err) {
    switch (recipe->which) {
    case PART_RUSTC:
        return kiln_part_rustc(recipe->sysroot, recipe->host, recipe->target, recipe->clippy, files, err);
    case PART_RUNTIME:
        return kiln_part_runtime(recipe->sysroot, recipe->host, files, err);
    case PART_LINK:
        return kiln_part_link(recipe->cc, files, err);
    }
    return KILN_E_INTERNAL;
}

// Lists, identifies and stages a part; *changed: its files were touched meanwhile.
static int read_part(struct kiln_toolchains *toolchains, const struct part_recipe *recipe, struct part *part, bool *changed,
                     struct kiln_err *err) {
    kiln_part_files_release(&part->files);
    int rc = list_part(recipe, &part->files, err);
    if (rc == 0 && toolchains->system_mode && !kiln_part_trusted(&part->files))
        rc = kiln_fail(err, KILN_E_DENIED, "toolchain %s is writable by others than root and the agent", recipe->key);
    if (rc == 0)
        rc = kiln_part_identity(&part->files, &part->identity, err);
    if (rc == 0)
        rc = toolchains->use == KILN_TOOLCHAIN_NAMED ? kiln_part_digest(&part->files, &part->digest, err)
                                                     : kiln_part_stage(&part->files, toolchains->stage_dir, &part->digest, err);
    struct kiln_digest after;
    if (rc == 0)
        rc = kiln_part_identity(&part->files, &after, err);
    *changed = rc == 0 && !kiln_digest_equal(&after, &part->identity);
    return rc;
}

// A file that only gets another name counts as touched (its ctime tells no more), so it is worth another look.
static int identify_part(struct kiln_toolchains *toolchains, const struct part_recipe *recipe, struct part *part,
                         struct kiln_err *err) {
    for (int attempt = 0; attempt < IDENTIFY_ATTEMPTS; attempt++) {
        bool changed;
        int rc = read_part(toolchains, recipe, part, &changed, err);
        if (rc || !changed)
            return rc;
    }
    return kiln_fail(err, KILN_E_UNSUPPORTED, "%s changed while it was read", recipe->key);
}

static int resolve_part(struct kiln_toolchains *toolchains, const struct part_recipe *recipe, struct kiln_digest *digest,
                        struct kiln_err *err) {
    struct part **slot = &toolchains->parts;
    while (*slot && strcmp((*slot)->key, recipe->key))
        slot = &(*slot)->next;
    struct part *part = *slot;
    bool fresh = !part;
    if (fresh) {
        part = calloc(1, sizeof *part);
        if (!part || !(part->key = strdup(recipe->key))) {
            free(part);
            return kiln_fail(err, KILN_E_NOMEM, "toolchain");
        }
    }
    bool known = fresh ? recall_part(toolchains, part) : true;
    int rc = 0;
    if (!known || !part_is_current(toolchains, part)) {
        rc = identify_part(toolchains, recipe, part, err);
        if (rc == 0)
            remember_part(toolchains, part);
    }
    if (rc) {
        *slot = fresh ? *slot : part->next;
        free_part(part);
        return rc;
    }
    if (fresh) {
        part->next = toolchains->parts;
        toolchains->parts = part;
    }
    *digest = part->digest;
    return 0;
}

// The only host triple Kiln runs on for now; read from the sysroot so that another one is noticed.
static int host_of_sysroot(const char *sysroot, char **host, struct kiln_err *err) {
    static const char *const triples[] = {"x86_64-unknown-linux-gnu"};
    for (size_t i = 0; i < sizeof triples / sizeof *triples; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/lib/rustlib/%s/lib", sysroot, triples[i]);
        if (access(path, X_OK) == 0) {
            *host = strdup(triples[i]);
            return *host ? 0 : kiln_fail(err, KILN_E_NOMEM, "host triple");
        }
    }
    return kiln_fail(err, KILN_E_UNSUPPORTED, "%s has no standard library for x86_64-unknown-linux-gnu", sysroot);
}

static int resolve_sysroot(struct kiln_toolchains *toolchains, const struct kiln_toolchain_query *query, char **sysroot,
                           struct kiln_err *err) {
    const char *spelled = query->clippy && query->rustc ? query->rustc : query->compiler;
    kiln_autofree char *program = kiln_request_which(query->env, query->env_count, query->cwd, spelled);
    if (!program)
        return kiln_fail(err, KILN_E_NOTFOUND, "compiler %s not found", spelled);
    kiln_autofree char *found = sysroot_of_program(program);
    int rc = found ? 0 : sysroot_of_proxy(toolchains, program, query, &found, err);
    if (rc)
        return rc;
    if (!strcmp(found, "/usr"))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "the distribution's own rustc in /usr is not taken: use a rustup toolchain");
    *sysroot = KILN_STEAL(found);
    return 0;
}

static int resolve_link(struct kiln_toolchains *toolchains, const struct kiln_toolchain_query *query,
                        struct kiln_digest *digest, struct kiln_err *err) {
    kiln_autofree char *cc = kiln_request_which(query->env, query->env_count, query->cwd, "cc");
    char real[PATH_MAX];
    if (!cc || !realpath(cc, real))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "no C compiler driver 'cc' on PATH: install gcc");
    if (strncmp(real, "/usr/", 5) || !strstr(kiln_path_base(real), "gcc"))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "cc is %s, not the system's gcc", real);
    struct part_recipe recipe = {.cc = real, .which = PART_LINK};
    snprintf(recipe.key, sizeof recipe.key, "link %s", real);
    return resolve_part(toolchains, &recipe, digest, err);
}

int kiln_toolchain_resolve(struct kiln_toolchains *toolchains, const struct kiln_toolchain_query *query,
                           struct kiln_toolchain *toolchain, struct kiln_err *err) {
    struct kiln_toolchain found = {0};
    pthread_mutex_lock(&toolchains->lock);
    int rc = resolve_sysroot(toolchains, query, &found.sysroot, err);
    if (rc == 0)
        rc = host_of_sysroot(found.sysroot, &found.host, err);
    if (rc == 0 && asprintf(&found.rustc_path, "%s/bin/rustc", found.sysroot) < 0) {
        found.rustc_path = NULL;
        rc = kiln_fail(err, KILN_E_NOMEM, "toolchain");
    }
    if (rc == 0) {
        struct part_recipe recipe = {.sysroot = found.sysroot, .host = found.host, .target = query->target,
                                     .clippy = query->clippy, .which = PART_RUSTC};
        snprintf(recipe.key, sizeof recipe.key, "rustc %s %s %s", found.sysroot, query->target ? query->target : found.host,
                 query->clippy ? "clippy" : "");
        rc = resolve_part(toolchains, &recipe, &found.rustc, err);
    }
    if (rc == 0) {
        struct part_recipe recipe = {.sysroot = found.sysroot, .host = found.host, .which = PART_RUNTIME};
        snprintf(recipe.key, sizeof recipe.key, "runtime %s", found.sysroot);
        rc = resolve_part(toolchains, &recipe, &found.runtime, err);
    }
    if (rc == 0 && query->links)
        rc = resolve_link(toolchains, query, &found.link, err);
    pthread_mutex_unlock(&toolchains->lock);
    if (rc) {
        kiln_toolchain_release(&found);
        return rc;
    }
    *toolchain = found;
    return 0;
}

int kiln_toolchains_list(struct kiln_toolchains *toolchains, bool json, struct kiln_buf *out, struct kiln_err *err) {
    pthread_mutex_lock(&toolchains->lock);
    if (json)
        kiln_buf_add_str(out, "[");
    for (const struct part *part = toolchains->parts; part; part = part->next) {
        char hex[KILN_DIGEST_HEX_LEN + 1];
        kiln_digest_format(&part->digest, hex);
        size_t kind_len = strcspn(part->key, " ");
        size_t files = 0;
        for (size_t i = 0; i < part->files.count; i++)
            files += part->files.files[i].tree != NULL;
        if (json)
            kiln_buf_addf(out, "%s{\"part\":\"%.*s\",\"digest\":\"%s\",\"files\":%zu,\"from\":\"%s\"}",
                          part == toolchains->parts ? "" : ",", (int)kind_len, part->key, hex, files,
                          part->key + kind_len + 1);
        else
            kiln_buf_addf(out, "%-8.*s %s  %4zu files  %s\n", (int)kind_len, part->key, hex, files,
                          part->key + kind_len + 1);
    }
    if (json)
        kiln_buf_add_str(out, "]\n");
    pthread_mutex_unlock(&toolchains->lock);
    return kiln_buf_check(out, "toolchain list", err);
}
