#include "producer/agent/source_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define SOURCE_BYTES_MAX (64u << 20)
#define NAMES_MAX 4096

static int encode_facts(const struct kiln_scan_facts *facts, struct kiln_buf *out) {
    kiln_buf_add_u8(out, (uint8_t)(facts->out_dir_used | facts->out_dir_as_value << 1 | facts->env_computed << 2));
    kiln_buf_add_be32(out, (uint32_t)facts->env_count);
    for (size_t i = 0; i < facts->env_count; i++)
        kiln_buf_add_field_str(out, facts->env_names[i]);
    return kiln_buf_check(out, "source facts", NULL);
}

static bool decode_facts(const struct kiln_buf *value, struct kiln_scan_facts *facts) {
    struct kiln_reader reader = KILN_READER_INIT(value->data, value->len);
    uint8_t bits = kiln_read_u8(&reader);
    uint32_t count = kiln_read_be32(&reader);
    if (reader.failed || count > NAMES_MAX || !(facts->env_names = calloc(count + 1, sizeof *facts->env_names)))
        return false;
    for (uint32_t i = 0; i < count && !reader.failed; i++)
        if ((facts->env_names[facts->env_count] = kiln_read_field_text(&reader, 4096)))
            facts->env_count++;
    facts->out_dir_used = bits & 1;
    facts->out_dir_as_value = bits & 2;
    facts->env_computed = bits & 4;
    return kiln_reader_done(&reader);
}

static int scan_file(const char *path, struct kiln_scan_facts *facts, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(SOURCE_BYTES_MAX);
    kiln_autofd int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return kiln_fail_errno(err, KILN_E_IO, "open %s", path);
    int rc = kiln_fs_read_fd(fd, &text, err);
    return rc ? rc : kiln_scan_source(text.data, text.len, facts, err);
}

static int scan_tree(const char *dir, struct kiln_scan_facts *facts, struct kiln_err *err) {
    char *const roots[] = {(char *)dir, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    if (!walk)
        return kiln_fail_errno(err, KILN_E_IO, "walk %s", dir);
    int rc = 0;
    FTSENT *entry;
    while (rc == 0 && (entry = fts_read(walk))) {
        if (entry->fts_info == FTS_D && entry->fts_level > 0 &&
            (entry->fts_name[0] == '.' || (entry->fts_level == 1 && !strcmp(entry->fts_name, "target"))))
            fts_set(walk, entry, FTS_SKIP);
        else if (entry->fts_info == FTS_F && entry->fts_namelen > 3 &&
                 !strcmp(entry->fts_name + entry->fts_namelen - 3, ".rs"))
            rc = scan_file(entry->fts_path, facts, err);
    }
    fts_close(walk);
    if (rc == 0)
        kiln_scan_finish(facts);
    return rc;
}

// What was read belongs to `tree` only if the directory was that before and after.
static int check_unchanged(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, const struct kiln_digest *tree,
                           struct kiln_err *err) {
    struct kiln_digest after;
    int rc = kiln_dir_digest(l0, memo, dir, KILN_DIR_PACKAGE, &after, err);
    if (rc == 0 && !kiln_digest_equal(tree, &after))
        rc = kiln_fail(err, KILN_E_UNSUPPORTED, "changing_inputs: %s changed while it was read", dir);
    return rc;
}

int kiln_source_facts(struct kiln_l0 *l0, struct kiln_memo *memo, const char *dir, const struct kiln_digest *tree,
                      struct kiln_scan_facts *facts, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(1 << 20);
    if (kiln_l0_memo_get(l0, KILN_MEMO_SCAN, tree->bytes, 32, &value, NULL) == 0) {
        if (decode_facts(&value, facts))
            return 0;
        kiln_scan_release(facts);
        *facts = (struct kiln_scan_facts){0};
        kiln_buf_reset(&value);
    }
    int rc = scan_tree(dir, facts, err);
    if (rc)
        return kiln_wrap(err, rc, "scan sources of %s", dir);
    rc = check_unchanged(l0, memo, dir, tree, err);
    if (rc == 0 && encode_facts(facts, &value) == 0)
        kiln_l0_memo_put(l0, KILN_MEMO_SCAN, tree->bytes, 32, value.data, value.len, NULL);
    return rc;
}
