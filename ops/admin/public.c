// kiln-admin public: which packages belong to everybody. An archive gets in when its digest is on a list that the operator names.
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/fs.h"
#include "lib/base/json.h"
#include "lib/base/path.h"
#include "lib/core/public_list.h"
#include "ops/admin/archive.h"
#include "ops/admin/checksums.h"
#include "ops/admin/commands.h"
#include "ops/admin/draft.h"
#include "ops/admin/root_keys.h"
#include "ops/admin/storage.h"

#define CHECKSUMS_BYTES_MAX (64u << 20)
#define ENVELOPE_BYTES_MAX (KILN_PUBLIC_BYTES_MAX + 4096)
#define OPERANDS_MAX 100000
#define DAY_MS (24ull * 3600 * 1000)
#define DAYS 30
#define DAYS_MAX 3650

static const struct kiln_cli_option options[] = {
    KILN_DRAFT_OPTIONS,
    {"checksums", "FILE,FILE", "Whose archives are trusted: Cargo.lock files, or lines `SHA256  NAME-VERSION.crate`."},
    {"replace", NULL, "Begin an empty list instead of adding to the one in the vault."},
    {"show", NULL, "Print the list in the vault, and change nothing."},
};

struct making {
    struct kiln_admin_settings settings;
    struct kiln_checksums checksums;
    struct kiln_public_list list;
    char *scratch;
    size_t added, known, refused;
};

static void making_release(struct making *making) {
    kiln_admin_settings_release(&making->settings);
    kiln_checksums_release(&making->checksums);
    kiln_public_list_release(&making->list);
    if (making->scratch)
        kiln_fs_remove_tree(AT_FDCWD, making->scratch, NULL);
    free(making->scratch);
}

static int read_checksums(const char *files, struct kiln_checksums *checksums, struct kiln_err *err) {
    kiln_autofree char *copy = strdup(files);
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "checksums: out of memory");
    char *rest = copy, *file;
    while ((file = strsep(&rest, ","))) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(CHECKSUMS_BYTES_MAX);
        int rc = kiln_fs_read_file(AT_FDCWD, file, &text, err);
        if (!rc)
            rc = kiln_checksums_parse((const char *)text.data, text.len, checksums, err);
        if (rc)
            return kiln_wrap(err, rc, "%s", file);
    }
    return 0;
}

static bool listed(const struct kiln_public_list *list, const struct kiln_archive *archive) {
    for (size_t i = 0; i < list->count; i++) {
        if (kiln_digest_equal(&list->packages[i].archive, &archive->archive) && !strcmp(list->packages[i].package, archive->package))
            return true;
    }
    return false;
}

static int take_archive(struct making *making, const char *file, struct kiln_err *err) {
    struct kiln_archive archive;
    int rc = kiln_archive_identify(file, &archive, err);
    if (rc)
        return rc;
    if (listed(&making->list, &archive)) {
        making->known++;
        return 0;
    }
    if (!kiln_checksums_has(&making->checksums, archive.package, &archive.archive)) {
        making->refused++;
        return 0;
    }
    rc = kiln_archive_take_tree(file, making->scratch, &archive, err);
    if (!rc)
        rc = kiln_public_list_add(&making->list, archive.package, &archive.archive, &archive.tree, err);
    making->added += !rc;
    return rc;
}

static int take_directory(struct making *making, const char *path, struct kiln_err *err) {
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort), rc = 0;
    if (count < 0)
        return kiln_fail_errno(err, KILN_E_IO, "%s", path);
    for (int i = 0; i < count; i++) {
        size_t len = strlen(names[i]->d_name);
        kiln_autofree char *file = kiln_path_join(path, names[i]->d_name);
        if (!rc && len > 6 && !strcmp(names[i]->d_name + len - 6, ".crate"))
            rc = file ? take_archive(making, file, err) : kiln_fail(err, KILN_E_NOMEM, "%s: out of memory", path);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int take_operand(struct making *making, const char *path, struct kiln_err *err) {
    struct stat st;
    if (stat(path, &st))
        return kiln_fail_errno(err, KILN_E_NOTFOUND, "%s", path);
    return S_ISDIR(st.st_mode) ? take_directory(making, path, err) : take_archive(making, path, err);
}

// The list in the vault, or in the file of --in; an empty one when there is none yet.
static int read_list(const struct kiln_cli_call *call, struct making *making, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    const char *in = kiln_cli_text(call, "in");
    int rc = in ? kiln_fs_read_file(AT_FDCWD, in, &envelope, err) : kiln_storage_open(&making->settings, &storage, err);
    if (!rc && !in) {
        rc = kiln_storage_get(&storage, KILN_PUBLIC_KEY, &envelope, err);
        if (rc == KILN_E_NOTFOUND)
            return 0;
    }
    return rc ? rc : kiln_public_list_open(envelope.data, envelope.len, &making->settings.roots, &making->list, err);
}

static int sign(const struct kiln_cli_call *call, struct making *making, struct kiln_buf *envelope, struct kiln_err *err) {
    kiln_autoroot_keys struct kiln_root_keys keys = {.count = 0};
    kiln_autopublic_list struct kiln_public_list checked = {0};
    uint32_t days;
    const char *files = kiln_cli_text(call, "roots");
    int rc = files ? kiln_admin_number(call, "days", DAYS, DAYS_MAX, &days, err) : kiln_fail(err, KILN_E_INVAL, "--roots is needed");
    if (rc)
        return rc;
    making->list.version++;
    making->list.issued_ms = kiln_clock_wall_ms();
    making->list.expires_ms = making->list.issued_ms + days * DAY_MS;
    rc = kiln_public_list_finish(&making->list, err);
    if (!rc)
        rc = kiln_root_keys_load(files, &keys, err);
    if (!rc)
        rc = kiln_public_list_sign(&making->list, (const struct kiln_sign_key *const *)keys.keys, keys.count, envelope, err);
    return rc ? rc : kiln_public_list_open(envelope->data, envelope->len, &making->settings.roots, &checked, err);
}

static int issue(const struct kiln_cli_call *call, struct making *making, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf envelope = KILN_BUF_INIT(ENVELOPE_BYTES_MAX);
    kiln_autostorage struct kiln_storage storage = {.client = NULL};
    const char *out = kiln_cli_text(call, "out");
    int rc = sign(call, making, &envelope, err);
    if (!rc && out)
        return kiln_fs_write_file(AT_FDCWD, out, envelope.data, envelope.len, 0644, err);
    if (!rc)
        rc = kiln_storage_open(&making->settings, &storage, err);
    return rc ? rc : kiln_storage_put(&storage, KILN_PUBLIC_KEY, &envelope, err);
}

static int make(const struct kiln_cli_call *call, struct making *making, struct kiln_err *err) {
    int rc = kiln_cli_flag(call, "replace") && !kiln_cli_flag(call, "show") ? 0 : read_list(call, making, err);
    if (rc || kiln_cli_flag(call, "show"))
        return rc;
    rc = read_checksums(kiln_cli_text(call, "checksums"), &making->checksums, err);
    if (!rc && !(making->scratch = strdup("/tmp/kiln-public-XXXXXX")))
        rc = kiln_fail(err, KILN_E_NOMEM, "public: out of memory");
    if (!rc && !mkdtemp(making->scratch))
        rc = kiln_fail_errno(err, KILN_E_IO, "%s", making->scratch);
    for (size_t i = 0; !rc && i < call->operands_count; i++)
        rc = take_operand(making, call->operands[i], err);
    return rc ? rc : issue(call, making, err);
}

static void print_list(const struct kiln_public_list *list, bool json, struct kiln_buf *out) {
    char archive[KILN_DIGEST_HEX_LEN + 1], tree[KILN_DIGEST_HEX_LEN + 1];
    if (json)
        kiln_buf_addf(out, "{\"version\": %" PRIu64 ", \"expires_ms\": %" PRIu64 ", \"packages\": [", list->version, list->expires_ms);
    for (size_t i = 0; i < list->count; i++) {
        const struct kiln_public_package *one = &list->packages[i];
        kiln_digest_format(&one->archive, archive);
        kiln_digest_format(&one->tree, tree);
        if (json) {
            kiln_buf_add_str(out, i ? ",\n  {\"package\": " : "\n  {\"package\": ");
            kiln_json_add_string(out, one->package, strlen(one->package));
            kiln_buf_addf(out, ", \"archive\": \"%s\", \"tree\": \"%s\"}", archive, tree);
        } else
            kiln_buf_addf(out, "%s  %s\n", archive, one->package);
    }
    if (json)
        kiln_buf_add_str(out, "]}\n");
}

static int print(const struct kiln_cli_call *call, const struct making *making) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(KILN_ADMIN_TEXT_BYTES_MAX);
    bool json = kiln_cli_flag(call, "json");
    if (kiln_cli_flag(call, "show"))
        print_list(&making->list, json, &out);
    else
        kiln_buf_addf(&out,
                      json ? "{\"version\": %" PRIu64 ", \"packages\": %zu, \"added\": %zu, \"known\": %zu, \"refused\": %zu}\n"
                           : "list of public packages, version %" PRIu64 ": %zu packages, %zu added, %zu known before, %zu refused\n",
                      making->list.version, making->list.count, making->added, making->known, making->refused);
    return kiln_admin_print(&out);
}

static int run(const struct kiln_cli_call *call) {
    struct making making __attribute__((cleanup(making_release))) = {.added = 0};
    struct kiln_err err;
    bool show = kiln_cli_flag(call, "show");
    if (!show && (!call->operands_count || !kiln_cli_text(call, "checksums")))
        return kiln_admin_usage(call, "archives and --checksums are needed");
    int rc = kiln_admin_settings_load(call, &making.settings, &err);
    if (!rc)
        rc = make(call, &making, &err);
    return rc ? kiln_admin_failed(call, &err) : print(call, &making);
}

const struct kiln_cli_command kiln_admin_public = {
    .name = "public",
    .operands = "ARCHIVE|DIR ...",
    .operands_max = OPERANDS_MAX,
    .help = "Make, sign and publish the list of public packages: archives (.crate) whose digest is on a list you trust.",
    .details = "Units of these packages, and what depends on nothing but them, are shared by all tenants. A directory stands for the "
               "archives in it; what is on no list is counted as refused and left out. All roots that must sign sign here.",
    .options = options,
    .options_count = sizeof options / sizeof *options,
    .run = run,
};
