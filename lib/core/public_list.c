#include "lib/core/public_list.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/path.h"
#include "lib/core/list.h"

static const char core_magic[] = "kiln-public-1"; // with its NUL
static const struct kiln_rooted envelope_form = {"kiln-public-signed-1", "list of public packages", KILN_PUBLIC_BYTES_MAX};

#define ENTRY_BYTES_MIN (5 + 32 + 32)

void kiln_public_list_release(struct kiln_public_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->packages[i].package);
    free(list->packages);
    *list = (struct kiln_public_list){0};
}

int kiln_public_list_add(struct kiln_public_list *list, const char *package, const struct kiln_digest *archive,
                         const struct kiln_digest *tree, struct kiln_err *err) {
    if (list->count >= KILN_PUBLIC_ENTRIES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "at most %u public packages", KILN_PUBLIC_ENTRIES_MAX);
    struct kiln_public_package *grown = kiln_list_grow(list->packages, list->count, sizeof *grown);
    if (grown)
        list->packages = grown;
    char *copy = grown ? strdup(package) : NULL;
    if (!copy)
        return kiln_fail(err, KILN_E_NOMEM, "no memory for a public package");
    grown[list->count++] = (struct kiln_public_package){copy, *archive, *tree};
    return 0;
}

static int by_package(const void *a, const void *b) {
    const struct kiln_public_package *one = a, *other = b;
    int order = strcmp(one->package, other->package);
    return order ? order : kiln_digest_compare(&one->tree, &other->tree);
}

static int check_package(const char *package, struct kiln_err *err) {
    if (strchr(package, '/') || kiln_path_check_relative(package, NULL))
        return kiln_fail(err, KILN_E_INVAL, "\"%.200s\" is no name of a package", package);
    return 0;
}

static int check(const struct kiln_public_list *list, struct kiln_err *err) {
    if (!list->version || list->expires_ms <= list->issued_ms)
        return kiln_fail(err, KILN_E_INVAL, "versions begin at 1, and a list expires after it is issued");
    for (size_t i = 0; i < list->count; i++) {
        int rc = check_package(list->packages[i].package, err);
        if (rc)
            return rc;
        if (i > 0 && by_package(&list->packages[i - 1], &list->packages[i]) >= 0)
            return kiln_fail(err, KILN_E_INVAL, "package %s is there twice or out of order", list->packages[i].package);
    }
    return 0;
}

int kiln_public_list_finish(struct kiln_public_list *list, struct kiln_err *err) {
    if (list->count)
        qsort(list->packages, list->count, sizeof *list->packages, by_package);
    return check(list, err);
}

int kiln_public_list_encode(const struct kiln_public_list *list, struct kiln_buf *out, struct kiln_err *err) {
    int rc = check(list, err);
    if (rc)
        return rc;
    size_t start = out->len;
    kiln_buf_add(out, core_magic, sizeof core_magic);
    kiln_buf_add_be64(out, list->version);
    kiln_buf_add_be64(out, list->issued_ms);
    kiln_buf_add_be64(out, list->expires_ms);
    kiln_buf_add_be32(out, (uint32_t)list->count);
    for (size_t i = 0; i < list->count; i++) {
        kiln_buf_add_field_str(out, list->packages[i].package);
        kiln_buf_add_digest(out, &list->packages[i].archive);
        kiln_buf_add_digest(out, &list->packages[i].tree);
    }
    rc = kiln_buf_check(out, "a list of public packages", err);
    if (!rc && out->len - start > KILN_PUBLIC_BYTES_MAX)
        rc = kiln_fail(err, KILN_E_LIMIT, "a list of public packages is larger than %u bytes", KILN_PUBLIC_BYTES_MAX);
    return rc;
}

int kiln_public_list_decode(const void *data, size_t len, struct kiln_public_list *list, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *head = kiln_read_bytes(&reader, sizeof core_magic);
    if (len > KILN_PUBLIC_BYTES_MAX || !head || memcmp(head, core_magic, sizeof core_magic) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "not a list of public packages");
    kiln_autopublic_list struct kiln_public_list decoded = {0};
    decoded.version = kiln_read_be64(&reader);
    decoded.issued_ms = kiln_read_be64(&reader);
    decoded.expires_ms = kiln_read_be64(&reader);
    decoded.packages = kiln_list_read(&reader, KILN_PUBLIC_ENTRIES_MAX, ENTRY_BYTES_MIN, sizeof *decoded.packages,
                                      &decoded.count);
    for (size_t i = 0; i < decoded.count && !reader.failed; i++) {
        decoded.packages[i].package = kiln_read_field_text(&reader, KILN_PUBLIC_PACKAGE_BYTES_MAX);
        kiln_read_digest(&reader, &decoded.packages[i].archive);
        kiln_read_digest(&reader, &decoded.packages[i].tree);
    }
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_CORRUPT, "a list of public packages is malformed near byte %zu", reader.at);
    if (check(&decoded, err))
        return kiln_wrap(err, KILN_E_CORRUPT, "a list of public packages");
    *list = decoded;
    decoded = (struct kiln_public_list){0};
    return 0;
}

int kiln_public_list_sign(const struct kiln_public_list *list, const struct kiln_sign_key *const *roots, size_t count,
                          struct kiln_buf *envelope, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf core = KILN_BUF_INIT(KILN_PUBLIC_BYTES_MAX);
    int rc = kiln_public_list_encode(list, &core, err);
    return rc ? rc : kiln_rooted_sign(&envelope_form, core.data, core.len, roots, count, envelope, err);
}

int kiln_public_list_open(const void *envelope, size_t len, const struct kiln_roots *roots, struct kiln_public_list *list,
                          struct kiln_err *err) {
    const unsigned char *core;
    size_t core_len;
    int rc = kiln_rooted_open(&envelope_form, envelope, len, roots, &core, &core_len, err);
    return rc ? rc : kiln_public_list_decode(core, core_len, list, err);
}

bool kiln_public_list_has(const struct kiln_public_list *list, const char *package, const struct kiln_digest *tree) {
    struct kiln_public_package key = {.package = (char *)(uintptr_t)package, .tree = *tree};
    return list->count && bsearch(&key, list->packages, list->count, sizeof key, by_package);
}
