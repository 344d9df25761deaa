#include "ops/admin/checksums.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/core/list.h"

#define LINE_BYTES_MAX 1024u
#define ITEMS_MAX 400000u

struct package { // of a Cargo.lock, while it is read
    char name[256], version[256];
    struct kiln_digest checksum;
    bool has_checksum;
};

void kiln_checksums_release(struct kiln_checksums *checksums) {
    for (size_t i = 0; i < checksums->count; i++)
        free(checksums->items[i].package);
    free(checksums->items);
    *checksums = (struct kiln_checksums){.items = NULL};
}

static int add(struct kiln_checksums *checksums, const char *package, size_t len, const struct kiln_digest *archive, struct kiln_err *err) {
    if (checksums->count == ITEMS_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "more than %u checksums", ITEMS_MAX);
    kiln_autofree char *copy = strndup(package, len);
    struct kiln_checksum *grown = copy ? kiln_list_grow(checksums->items, checksums->count, sizeof *grown) : NULL;
    if (!grown)
        return kiln_fail(err, KILN_E_NOMEM, "checksums: out of memory");
    checksums->items = grown;
    grown[checksums->count++] = (struct kiln_checksum){.package = KILN_STEAL(copy), .archive = *archive};
    return 0;
}

// `key = "value"` of a Cargo.lock.
static bool take_value(const char *line, const char *key, char *out, size_t out_size) {
    size_t len = strlen(key);
    if (strncmp(line, key, len) != 0 || strncmp(line + len, " = \"", 4) != 0)
        return false;
    const char *begin = line + len + 4, *end = strchr(begin, '"');
    if (!end || end == begin || (size_t)(end - begin) >= out_size)
        return false;
    memcpy(out, begin, (size_t)(end - begin));
    out[end - begin] = '\0';
    return true;
}

static int end_package(struct kiln_checksums *checksums, struct package *package, struct kiln_err *err) {
    int rc = 0;
    if (package->has_checksum && *package->name && *package->version) {
        kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(600);
        kiln_buf_addf(&text, "%s-%s", package->name, package->version);
        rc = add(checksums, kiln_buf_text(&text), text.len, &package->checksum, err);
    }
    *package = (struct package){.has_checksum = false};
    return rc;
}

static int take_lock_line(const char *line, struct kiln_checksums *checksums, struct package *package, struct kiln_err *err) {
    char hex[KILN_DIGEST_HEX_LEN + 1];
    if (*line == '[')
        return end_package(checksums, package, err);
    if (take_value(line, "name", package->name, sizeof package->name) ||
        take_value(line, "version", package->version, sizeof package->version))
        return 0;
    if (take_value(line, "checksum", hex, sizeof hex)) {
        int rc = kiln_digest_parse(hex, &package->checksum, err);
        package->has_checksum = rc == 0;
        return rc;
    }
    return 0;
}

static int take_plain_line(const char *line, struct kiln_checksums *checksums, struct kiln_err *err) {
    static const char suffix[] = ".crate";
    char hex[KILN_DIGEST_HEX_LEN + 1];
    struct kiln_digest archive;
    size_t len = strlen(line);
    if (!*line || *line == '#')
        return 0;
    if (len <= KILN_DIGEST_HEX_LEN + sizeof suffix || strcmp(line + len - (sizeof suffix - 1), suffix) != 0 ||
        !strchr(" \t", line[KILN_DIGEST_HEX_LEN]))
        return kiln_fail(err, KILN_E_INVAL, "not \"SHA256  NAME-VERSION.crate\"");
    memcpy(hex, line, KILN_DIGEST_HEX_LEN);
    hex[KILN_DIGEST_HEX_LEN] = '\0';
    int rc = kiln_digest_parse(hex, &archive, err);
    if (rc)
        return rc;
    const char *name = line + KILN_DIGEST_HEX_LEN + strspn(line + KILN_DIGEST_HEX_LEN, " \t*"), *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    size_t name_len = strlen(name) - (sizeof suffix - 1);
    return name_len ? add(checksums, name, name_len, &archive, err) : kiln_fail(err, KILN_E_INVAL, "a name is missing");
}

int kiln_checksums_parse(const char *text, size_t len, struct kiln_checksums *checksums, struct kiln_err *err) {
    bool lock = memmem(text, len, "[[package]]", 11) != NULL;
    struct package package = {.has_checksum = false};
    char line[LINE_BYTES_MAX];
    size_t number = 0;
    for (size_t at = 0; at < len;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end ? (size_t)(end - text) - at : len - at;
        number++;
        if (line_len >= sizeof line || memchr(text + at, '\0', line_len))
            return kiln_fail(err, KILN_E_INVAL, "line %zu: too long, or not text", number);
        memcpy(line, text + at, line_len);
        line[line_len] = '\0';
        line[strcspn(line, "\r")] = '\0';
        at += line_len + 1;
        int rc = lock ? take_lock_line(line, checksums, &package, err) : take_plain_line(line, checksums, err);
        if (rc)
            return kiln_wrap(err, rc, "line %zu", number);
    }
    return end_package(checksums, &package, err);
}

bool kiln_checksums_has(const struct kiln_checksums *checksums, const char *package, const struct kiln_digest *archive) {
    for (size_t i = 0; i < checksums->count; i++) {
        if (kiln_digest_equal(&checksums->items[i].archive, archive) && !strcmp(checksums->items[i].package, package))
            return true;
    }
    return false;
}
