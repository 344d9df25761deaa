#include "lib/rustc/message.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

// rustc writes the fields of an artifact line in this order; the second form is that of older releases.
static const char *const artifact_starts[] = {"{\"$message_type\":\"artifact\",\"artifact\":\"", "{\"artifact\":\""};

struct replay {
    const struct kiln_path_map *map;
    const char *out_dir;
    char *target; // the sandbox's target place with a slash behind
};

static bool begins(const char *text, size_t len, const char *prefix) {
    size_t prefix_len = strlen(prefix);
    return len >= prefix_len && memcmp(text, prefix, prefix_len) == 0;
}

// Length of what comes before the path of an artifact line; 0 when the line is none.
static size_t artifact_path(const char *line, size_t len) {
    for (size_t i = 0; i < sizeof artifact_starts / sizeof *artifact_starts; i++)
        if (begins(line, len, artifact_starts[i]))
            return strlen(artifact_starts[i]);
    return 0;
}

// Length of a file name that a JSON string ends with; 0 when there is none, or more than one component.
static size_t name_in_string(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"')
            return i;
        if (text[i] == '\\')
            i++;
        if (i < len && (text[i] == '/' || text[i] == '\n'))
            return 0;
    }
    return 0;
}

// Writes an artifact line's beginning up to the end of its path, and tells how much of the line that was; 0 when the
// line is not an artifact in the target place.
static size_t add_artifact(const struct replay *replay, const char *line, size_t len, struct kiln_buf *out) {
    size_t path = artifact_path(line, len);
    if (path == 0 || !begins(line + path, len - path, replay->target))
        return 0;
    size_t name = path + strlen(replay->target);
    size_t name_len = name_in_string(line + name, len - name);
    // With the slash before it, such a name would be the sandbox root.
    if (name_len == 0 || begins(line + name, name_len, kiln_sandbox_root() + 1))
        return 0;
    size_t dir_len = strlen(replay->out_dir);
    kiln_buf_add(out, line, path);
    kiln_path_add_json(out, replay->out_dir, dir_len);
    if (dir_len && replay->out_dir[dir_len - 1] != '/')
        kiln_buf_add_str(out, "/");
    kiln_buf_add(out, line + name, name_len);
    return name + name_len;
}

static int map_line(const struct replay *replay, const char *line, size_t len, struct kiln_buf *out, bool *residue,
                    struct kiln_err *err) {
    bool json = line[0] == '{';
    size_t done = json ? add_artifact(replay, line, len, out) : 0;
    return kiln_path_map_text_to_real(replay->map, line + done, len - done, json, out, residue, err);
}

int kiln_message_to_real(const void *data, size_t len, const struct kiln_path_map *map, const char *out_dir,
                         struct kiln_buf *out, bool *residue, struct kiln_err *err) {
    if (len > KILN_MESSAGE_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "compiler output is larger than %u bytes", KILN_MESSAGE_BYTES_MAX);
    kiln_autofree char *target = kiln_place(KILN_PLACE_TARGET, "");
    if (!target)
        return kiln_fail(err, KILN_E_NOMEM, "compiler output: out of memory");
    struct replay replay = {map, out_dir, target};
    const char *text = data;
    bool left = false;
    for (size_t at = 0; at < len;) {
        const char *stop = memchr(text + at, '\n', len - at);
        size_t line = stop ? (size_t)(stop - text) + 1 - at : len - at;
        int rc = map_line(&replay, text + at, line, out, &left, err);
        if (rc)
            return kiln_wrap(err, rc, "compiler output");
        at += line;
    }
    if (left)
        *residue = true;
    return 0;
}
