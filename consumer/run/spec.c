#include "consumer/run/spec.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/path.h"

#define BINDS_MAX 1024u
#define LINKS_MAX 256u
#define FILES_MAX 64u
#define ARGS_MAX 8192u
#define ENV_MAX 2048u
#define FILE_BYTES_MAX (1u << 20)
#define STRING_MAX (127u << 10) // the kernel takes less than 128 KiB per argument or variable
#define TEXT_MAX 4096u

static const char spec_magic[] = "kiln-run-2"; // with its NUL

static void encode_strings(struct kiln_buf *out, char *const *strings, size_t count) {
    kiln_buf_add_be32(out, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        kiln_buf_add_field_str(out, strings[i]);
}

static void encode_root(const struct kiln_run_spec *spec, struct kiln_buf *out) {
    kiln_buf_add_be32(out, (uint32_t)spec->binds_count);
    for (size_t i = 0; i < spec->binds_count; i++) {
        kiln_buf_add_be32(out, spec->binds[i].fd);
        kiln_buf_add_field_str(out, spec->binds[i].dest);
        kiln_buf_add_u8(out, spec->binds[i].file);
    }
    kiln_buf_add_be32(out, (uint32_t)spec->links_count);
    for (size_t i = 0; i < spec->links_count; i++) {
        kiln_buf_add_field_str(out, spec->links[i].path);
        kiln_buf_add_field_str(out, spec->links[i].target);
    }
    kiln_buf_add_be32(out, (uint32_t)spec->files_count);
    for (size_t i = 0; i < spec->files_count; i++) {
        kiln_buf_add_field_str(out, spec->files[i].path);
        kiln_buf_add_field(out, spec->files[i].data, spec->files[i].len);
    }
}

int kiln_run_spec_encode(const struct kiln_run_spec *spec, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add(out, spec_magic, sizeof spec_magic);
    encode_root(spec, out);
    encode_strings(out, spec->argv, spec->argc);
    encode_strings(out, spec->env, spec->env_count);
    kiln_buf_add_field_str(out, spec->cwd);
    kiln_buf_add_field_str(out, spec->out_dir);
    kiln_buf_add_field_str(out, spec->observer_dir);
    kiln_buf_add_field_str(out, spec->tmp_dir);
    const uint64_t limits[] = {spec->out_bytes, spec->tmp_bytes,    spec->observer_bytes, spec->inodes,
                               spec->wall_ms,   spec->memory_bytes, spec->file_bytes,     spec->text_bytes};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        kiln_buf_add_be64(out, limits[i]);
    kiln_buf_add_be32(out, spec->processes);
    kiln_buf_add(out, spec->seed, sizeof spec->seed);
    kiln_buf_add_be32(out, spec->watch_fd);
    return kiln_buf_check(out, "sandbox spec", err);
}

// An array of `count` zeroed elements; NULL and a failed reader when there are too many.
static void *read_array(struct kiln_reader *reader, size_t max, size_t element, size_t *count) {
    size_t announced = kiln_read_be32(reader);
    if (reader->failed || announced > max) {
        reader->failed = true;
        return NULL;
    }
    void *array = calloc(announced + 1, element);
    if (!array) {
        reader->failed = true;
        return NULL;
    }
    *count = announced;
    return array;
}

static char **read_strings(struct kiln_reader *reader, size_t max, size_t *count) {
    char **strings = read_array(reader, max, sizeof *strings, count);
    for (size_t i = 0; strings && i < *count; i++)
        strings[i] = kiln_read_field_text(reader, STRING_MAX);
    return strings;
}

static void read_file(struct kiln_reader *reader, struct kiln_run_file *file) {
    file->path = kiln_read_field_text(reader, TEXT_MAX);
    const unsigned char *data = kiln_read_field(reader, FILE_BYTES_MAX, &file->len);
    if (reader->failed)
        return;
    file->data = malloc(file->len + 1);
    if (!file->data)
        reader->failed = true;
    else if (file->len)
        memcpy(file->data, data, file->len);
}

static void read_root(struct kiln_reader *reader, struct kiln_run_spec *spec) {
    spec->binds = read_array(reader, BINDS_MAX, sizeof *spec->binds, &spec->binds_count);
    for (size_t i = 0; spec->binds && i < spec->binds_count; i++) {
        spec->binds[i].fd = kiln_read_be32(reader);
        spec->binds[i].dest = kiln_read_field_text(reader, TEXT_MAX);
        uint8_t file = kiln_read_u8(reader);
        reader->failed |= file > 1;
        spec->binds[i].file = file == 1;
    }
    spec->links = read_array(reader, LINKS_MAX, sizeof *spec->links, &spec->links_count);
    for (size_t i = 0; spec->links && i < spec->links_count; i++) {
        spec->links[i].path = kiln_read_field_text(reader, TEXT_MAX);
        spec->links[i].target = kiln_read_field_text(reader, TEXT_MAX);
    }
    spec->files = read_array(reader, FILES_MAX, sizeof *spec->files, &spec->files_count);
    for (size_t i = 0; spec->files && i < spec->files_count; i++)
        read_file(reader, &spec->files[i]);
}

static void read_limits(struct kiln_reader *reader, struct kiln_run_spec *spec) {
    uint64_t *const limits[] = {&spec->out_bytes, &spec->tmp_bytes,    &spec->observer_bytes, &spec->inodes,
                                &spec->wall_ms,   &spec->memory_bytes, &spec->file_bytes,     &spec->text_bytes};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        *limits[i] = kiln_read_be64(reader);
    spec->processes = kiln_read_be32(reader);
    const unsigned char *seed = kiln_read_bytes(reader, sizeof spec->seed);
    if (seed)
        memcpy(spec->seed, seed, sizeof spec->seed);
    spec->watch_fd = kiln_read_be32(reader);
}

static int check_place(const char *what, const char *path, struct kiln_err *err) {
    int rc = kiln_path_check_absolute(path, err);
    if (rc == 0 && !strcmp(path, "/"))
        rc = kiln_fail(err, KILN_E_INVAL, "it is the root itself");
    return rc ? kiln_wrap(err, rc, "%s \"%.80s\"", what, path) : 0;
}

static int check_places(const struct kiln_run_spec *spec, struct kiln_err *err) {
    int rc = check_place("out directory", spec->out_dir, err);
    if (rc == 0)
        rc = check_place("observer directory", spec->observer_dir, err);
    if (rc == 0)
        rc = check_place("tmp directory", spec->tmp_dir, err);
    if (rc == 0)
        rc = kiln_path_check_absolute(spec->cwd, err);
    for (size_t i = 0; rc == 0 && i < spec->binds_count; i++)
        rc = check_place("bind", spec->binds[i].dest, err);
    for (size_t i = 0; rc == 0 && i < spec->links_count; i++)
        rc = check_place("link", spec->links[i].path, err);
    for (size_t i = 0; rc == 0 && i < spec->files_count; i++)
        rc = check_place("file", spec->files[i].path, err);
    return rc;
}

static int check_command(const struct kiln_run_spec *spec, struct kiln_err *err) {
    if (spec->argc == 0 || spec->argv[0][0] != '/')
        return kiln_fail(err, KILN_E_INVAL, "the program must be an absolute path");
    for (size_t i = 0; i < spec->env_count; i++) {
        const char *equals = strchr(spec->env[i], '=');
        if (!equals || equals == spec->env[i])
            return kiln_fail(err, KILN_E_INVAL, "\"%.80s\" is not a variable", spec->env[i]);
    }
    if (!spec->wall_ms || !spec->memory_bytes || !spec->file_bytes || !spec->text_bytes || !spec->processes ||
        !spec->out_bytes || !spec->tmp_bytes || !spec->observer_bytes || !spec->inodes)
        return kiln_fail(err, KILN_E_INVAL, "a limit is zero");
    return 0;
}

int kiln_run_spec_decode(const void *data, size_t len, struct kiln_run_spec *spec, struct kiln_err *err) {
    if (len > KILN_RUN_SPEC_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "sandbox spec is larger than %u bytes", KILN_RUN_SPEC_MAX);
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    struct kiln_run_spec read = {0};
    const unsigned char *magic = kiln_read_bytes(&reader, sizeof spec_magic);
    if (!magic || memcmp(magic, spec_magic, sizeof spec_magic))
        return kiln_fail(err, KILN_E_CORRUPT, "not a sandbox spec of this version");
    read_root(&reader, &read);
    read.argv = read_strings(&reader, ARGS_MAX, &read.argc);
    read.env = read_strings(&reader, ENV_MAX, &read.env_count);
    read.cwd = kiln_read_field_text(&reader, TEXT_MAX);
    read.out_dir = kiln_read_field_text(&reader, TEXT_MAX);
    read.observer_dir = kiln_read_field_text(&reader, TEXT_MAX);
    read.tmp_dir = kiln_read_field_text(&reader, TEXT_MAX);
    read_limits(&reader, &read);
    int rc = kiln_reader_done(&reader) ? 0 : kiln_fail(err, KILN_E_CORRUPT, "sandbox spec is malformed");
    if (rc == 0)
        rc = check_places(&read, err);
    if (rc == 0)
        rc = check_command(&read, err);
    if (rc) {
        kiln_run_spec_release(&read);
        return rc;
    }
    *spec = read;
    return 0;
}

static void free_strings(char **strings, size_t count) {
    for (size_t i = 0; strings && i < count; i++)
        free(strings[i]);
    free(strings);
}

void kiln_run_spec_release(struct kiln_run_spec *spec) {
    for (size_t i = 0; spec->binds && i < spec->binds_count; i++)
        free(spec->binds[i].dest);
    for (size_t i = 0; spec->links && i < spec->links_count; i++) {
        free(spec->links[i].path);
        free(spec->links[i].target);
    }
    for (size_t i = 0; spec->files && i < spec->files_count; i++) {
        free(spec->files[i].path);
        free(spec->files[i].data);
    }
    free(spec->binds);
    free(spec->links);
    free(spec->files);
    free_strings(spec->argv, spec->argc);
    free_strings(spec->env, spec->env_count);
    free(spec->cwd);
    free(spec->out_dir);
    free(spec->observer_dir);
    free(spec->tmp_dir);
    *spec = (struct kiln_run_spec){0};
}

int kiln_run_report_encode(const struct kiln_run_report *report, struct kiln_buf *out, struct kiln_err *err) {
    kiln_buf_add_be32(out, report->end);
    kiln_buf_add_be32(out, report->value);
    kiln_buf_add_be64(out, report->wall_ms);
    kiln_buf_add_be64(out, report->cpu_ms);
    kiln_buf_add_be64(out, report->peak_bytes);
    kiln_buf_add_field_str(out, report->text ? report->text : "");
    return kiln_buf_check(out, "sandbox report", err);
}

int kiln_run_report_decode(const void *data, size_t len, struct kiln_run_report *report, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    struct kiln_run_report read = {0};
    read.end = kiln_read_be32(&reader);
    read.value = kiln_read_be32(&reader);
    read.wall_ms = kiln_read_be64(&reader);
    read.cpu_ms = kiln_read_be64(&reader);
    read.peak_bytes = kiln_read_be64(&reader);
    read.text = kiln_read_field_text(&reader, TEXT_MAX);
    if (!kiln_reader_done(&reader) || read.end < KILN_END_EXIT || read.end > KILN_END_SPACE) {
        free(read.text);
        return kiln_fail(err, KILN_E_CORRUPT, "sandbox report is malformed");
    }
    *report = read;
    return 0;
}

void kiln_run_report_release(struct kiln_run_report *report) {
    free(report->text);
    *report = (struct kiln_run_report){0};
}
