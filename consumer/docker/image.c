#include "consumer/docker/image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "consumer/docker/gate.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/base/path.h"
#include "lib/core/digest.h"

#define REPOSITORY "kiln-root"
#define IMAGE_BYTES_MAX (64u << 20)
#define BLOCK 512u

// POSIX.1-1988 ustar, the header of one member.
struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, target[100], magic[6], version[2];
    char user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK, "a tar header is one block");

static const char zeros[2 * BLOCK];

static int add_member(struct kiln_buf *tar, const char *name, char type, const char *target, const struct kiln_buf *bytes,
                      struct kiln_err *err) {
    struct ustar head = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    if (strlen(name) > sizeof head.name || strlen(target) > sizeof head.target)
        return kiln_fail(err, KILN_E_LIMIT, "%s: longer than docker's root can have it", name);
    size_t size = bytes ? bytes->len : 0;
    memcpy(head.name, name, strlen(name));
    memcpy(head.target, target, strlen(target));
    snprintf(head.mode, sizeof head.mode, "%07o", type == '2' ? 0777u : bytes ? 0555u : 0755u);
    snprintf(head.uid, sizeof head.uid, "%07o", 0u);
    snprintf(head.gid, sizeof head.gid, "%07o", 0u);
    snprintf(head.size, sizeof head.size, "%011o", (unsigned)size);
    snprintf(head.mtime, sizeof head.mtime, "%011o", 0u);
    memset(head.sum, ' ', sizeof head.sum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof head; i++)
        sum += ((const unsigned char *)&head)[i];
    snprintf(head.sum, sizeof head.sum, "%06o", sum);
    kiln_buf_add(tar, &head, sizeof head);
    if (bytes)
        kiln_buf_add(tar, bytes->data, size);
    return kiln_buf_add(tar, zeros, (BLOCK - size % BLOCK) % BLOCK);
}

static int make_tar(const char *init_program, const struct kiln_run_spec *spec, struct kiln_buf *tar, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf init = KILN_BUF_INIT(IMAGE_BYTES_MAX);
    kiln_autofree char *dir = kiln_path_dir(KILN_GATE_INIT);
    int rc = dir ? kiln_fs_read_file(AT_FDCWD, init_program, &init, err) : kiln_fail(err, KILN_E_NOMEM, "docker's root");
    if (rc == 0)
        rc = add_member(tar, dir, '5', "", NULL, err);
    if (rc == 0)
        rc = add_member(tar, KILN_GATE_INIT, '0', "", &init, err);
    for (size_t i = 0; rc == 0 && i < spec->links_count; i++)
        rc = add_member(tar, spec->links[i].path + 1, '2', spec->links[i].target, NULL, err);
    kiln_buf_add(tar, zeros, sizeof zeros);
    return rc ? rc : kiln_buf_check(tar, "docker's root", err);
}

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0);
}

// KILN_E_NOTFOUND: the daemon does not have it. One of our name with other bytes is refused.
static int look_up(struct kiln_docker *docker, const char *digest, uint64_t deadline_ms, char **id, struct kiln_err *err) {
    kiln_autofree char *path = NULL, *layer = NULL;
    if (asprintf(&path, "/images/" REPOSITORY ":%s/json", digest) < 0 || asprintf(&layer, "sha256:%s", digest) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "docker's root");
    const struct kiln_docker_request request = {.method = "GET", .path = path, .deadline_ms = deadline_ms};
    json_t *answer = NULL;
    int rc = kiln_docker_ask(docker, &request, &answer, err);
    if (rc)
        return rc;
    const json_t *layers = json_object_get(json_object_get(answer, "RootFS"), "Layers");
    const char *only = json_string_value(json_array_get(layers, 0)), *name = json_string_value(json_object_get(answer, "Id"));
    if (json_array_size(layers) != 1 || !only || strcmp(only, layer) || !name ||
        !is_empty(json_object_get(json_object_get(answer, "Config"), "Volumes")))
        rc = kiln_fail(err, KILN_E_CORRUPT, "docker's image " REPOSITORY ":%.12s is not what it was made of: remove it", digest);
    else if (!(*id = strdup(name)))
        rc = kiln_fail(err, KILN_E_NOMEM, "docker's root");
    json_decref(answer);
    return rc;
}

int kiln_image_ensure(struct kiln_docker *docker, const char *init_program, const struct kiln_run_spec *spec,
                      uint64_t deadline_ms, char **id, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf tar = KILN_BUF_INIT(IMAGE_BYTES_MAX);
    struct kiln_digest digest;
    char hex[KILN_DIGEST_HEX_LEN + 1];
    int rc = make_tar(init_program, spec, &tar, err);
    if (rc)
        return rc;
    kiln_digest_of(tar.data, tar.len, &digest);
    kiln_digest_format(&digest, hex);
    rc = look_up(docker, hex, deadline_ms, id, err);
    if (rc != KILN_E_NOTFOUND)
        return rc;
    kiln_autofree char *path = NULL;
    if (asprintf(&path, "/images/create?fromSrc=-&repo=" REPOSITORY "&tag=%s", hex) < 0)
        return kiln_fail(err, KILN_E_NOMEM, "docker's root");
    const struct kiln_docker_request request = {.method = "POST", .path = path, .tar = &tar, .deadline_ms = deadline_ms};
    rc = kiln_docker_ask(docker, &request, NULL, err);
    return rc ? rc : look_up(docker, hex, deadline_ms, id, err);
}
