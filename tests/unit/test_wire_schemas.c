// What must agree: schemas/ids, schemas/*.avsc, enum kiln_record_type, the structs, the caps and schemas/README.md.
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "lib/base/cleanup.h"
#include "lib/base/fs.h"
#include "lib/wire/convert.h"
#include "lib/wire/fingerprint.h"
#include "lib/wire/scan.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static const char *read_file(const char *name, struct kiln_buf *buf) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", KILN_SOURCE_DIR, name);
    struct kiln_err err = {0};
    if (kiln_fs_read_file(AT_FDCWD, path, buf, &err))
        fail_msg("%s", err.text);
    return kiln_buf_text(buf);
}

// The records as the header has them.
static const struct {
    const char *name;
    uint32_t id;
} records[] = {
#define ROW(name) {#name, KILN_RECORD_##name},
    KILN_RECORD_TYPES(ROW)
#undef ROW
};
enum { RECORDS_COUNT = sizeof records / sizeof *records };

static void fingerprints_of_the_specification(void **state) {
    (void)state;
    static const struct {
        const char *form;
        uint64_t fingerprint;
    } cases[] = {
        {"\"null\"", 0x63dd24e7cc258f8a},
        {"\"int\"", 0x7275d51a3f395c8f},
        {"{\"name\":\"foo\",\"type\":\"record\",\"fields\":[]}", 0xbd0c50c84319be7e},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(kiln_fingerprint(cases[i].form, strlen(cases[i].form)), cases[i].fingerprint);
    assert_int_equal(kiln_fingerprint("", 0), 0xc15d213aa4d7a795u);
}

// Parsing canonical form (Avro 1.11): full names, no docs, a fixed order of attributes, no spaces.
static void add_form(json_t *schema, const char *space, struct kiln_buf *out);

static bool is_primitive(const char *name) {
    static const char *const names[] = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void add_name(const char *name, const char *space, struct kiln_buf *out) {
    bool full = !is_primitive(name);
    kiln_buf_addf(out, "\"%s%s%s\"", full ? space : "", full ? "." : "", name);
}

static void add_fields(json_t *fields, const char *space, struct kiln_buf *out) {
    size_t index;
    json_t *field;
    json_array_foreach(fields, index, field) {
        kiln_buf_addf(out, "%s{\"name\":\"%s\",\"type\":", index ? "," : "", json_string_value(json_object_get(field, "name")));
        add_form(json_object_get(field, "type"), space, out);
        kiln_buf_add_str(out, "}");
    }
}

static void add_form(json_t *schema, const char *space, struct kiln_buf *out) {
    if (json_is_string(schema)) {
        add_name(json_string_value(schema), space, out);
        return;
    }
    assert_true(json_is_object(schema)); // an array would be a union
    const char *type = json_string_value(json_object_get(schema, "type"));
    if (strcmp(type, "array") == 0) {
        kiln_buf_add_str(out, "{\"type\":\"array\",\"items\":");
        add_form(json_object_get(schema, "items"), space, out);
    } else {
        kiln_buf_add_str(out, "{\"name\":");
        add_name(json_string_value(json_object_get(schema, "name")), space, out);
        kiln_buf_addf(out, ",\"type\":\"%s\"", type);
        if (strcmp(type, "record") == 0) {
            kiln_buf_add_str(out, ",\"fields\":[");
            add_fields(json_object_get(schema, "fields"), space, out);
            kiln_buf_add_str(out, "]");
        } else {
            assert_string_equal(type, "fixed");
            kiln_buf_addf(out, ",\"size\":%d", (int)json_integer_value(json_object_get(schema, "size")));
        }
    }
    kiln_buf_add_str(out, "}");
}

static uint64_t fingerprint_of_file(const char *record) {
    char name[128];
    snprintf(name, sizeof name, "schemas/%s.avsc", record);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(FILE_BYTES_MAX), form = KILN_BUF_INIT(FILE_BYTES_MAX);
    json_error_t error;
    json_t *schema = json_loads(read_file(name, &text), JSON_REJECT_DUPLICATES, &error);
    if (!schema)
        fail_msg("%s:%d: %s", name, error.line, error.text);
    const char *space = json_string_value(json_object_get(schema, "namespace"));
    assert_string_equal(space, "kiln.v1");
    assert_true(json_is_string(json_object_get(schema, "doc")));
    add_form(schema, space, &form);
    json_decref(schema);
    return kiln_fingerprint(form.data, form.len);
}

static void ids_pin_what_the_header_and_the_files_say(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(FILE_BYTES_MAX);
    read_file("schemas/ids", &buf);
    size_t found = 0;
    char *rest = NULL;
    for (char *line = strtok_r((char *)buf.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (*line == '#')
            continue;
        uint32_t id;
        uint64_t fingerprint;
        char name[64];
        assert_int_equal(sscanf(line, "%" SCNu32 " %63s 0x%" SCNx64, &id, name, &fingerprint), 3);
        assert_true(found < RECORDS_COUNT);
        assert_string_equal(name, records[found].name);
        assert_int_equal(id, records[found].id);
        if (fingerprint_of_file(name) != fingerprint)
            fail_msg("%s.avsc is not what ids pins: 0x%016" PRIx64, name, fingerprint_of_file(name));
        found++;
    }
    assert_int_equal(found, RECORDS_COUNT);
}

static void every_file_has_an_id(void **state) {
    (void)state;
    DIR *dir = opendir(KILN_SOURCE_DIR "/schemas");
    assert_non_null(dir);
    size_t files = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".avsc") != 0)
            continue;
        bool known = false;
        for (size_t i = 0; i < RECORDS_COUNT; i++)
            known |= strlen(records[i].name) == (size_t)(dot - entry->d_name) &&
                     strncmp(records[i].name, entry->d_name, strlen(records[i].name)) == 0;
        if (!known)
            fail_msg("%s has no id", entry->d_name);
        files++;
    }
    closedir(dir);
    assert_int_equal(files, RECORDS_COUNT);
}

static void embedded_schemas_load_and_fit_the_structs(void **state) {
    (void)state;
    assert_int_equal(kiln_schema_texts_count, RECORDS_COUNT);
    for (size_t i = 0; i < RECORDS_COUNT; i++) {
        const struct kiln_schema_text *text = &kiln_schema_texts[i];
        char name[128];
        snprintf(name, sizeof name, "schemas/%s.avsc", text->name);
        kiln_autobuf struct kiln_buf file = KILN_BUF_INIT(FILE_BYTES_MAX);
        assert_string_equal(text->json, read_file(name, &file));
        assert_int_equal(text->fingerprint, fingerprint_of_file(text->name));
        struct kiln_schema schema = {0};
        struct kiln_err err = {0};
        if (kiln_schema_load(text, &schema, &err))
            fail_msg("%s", err.text);
        assert_int_equal(kiln_convert_check(kiln_layout_of(text->type), schema.avro), 0);
        kiln_schema_release(&schema);
    }
}

// A cap that no field uses is a mistyped path.
static void every_cap_is_used(void **state) {
    (void)state;
    size_t used = 0;
    for (size_t i = 0; i < kiln_schema_texts_count; i++) {
        struct kiln_schema schema = {0};
        assert_int_equal(kiln_schema_load(&kiln_schema_texts[i], &schema, NULL), 0);
        for (size_t node = 0; node < schema.nodes_count; node++)
            used += schema.nodes[node].cap.path != NULL;
        kiln_schema_release(&schema);
    }
    assert_int_equal(used, kiln_caps_count);
    for (size_t i = 0; i < kiln_caps_count; i++) {
        assert_true(kiln_caps[i].min <= kiln_caps[i].max);
        assert_ptr_equal(kiln_cap_find(kiln_caps[i].type, kiln_caps[i].path), &kiln_caps[i]); // once each
    }
}

static const char *record_name(enum kiln_record_type type) {
    for (size_t i = 0; i < RECORDS_COUNT; i++)
        if (records[i].id == type)
            return records[i].name;
    return NULL;
}

static void the_readme_repeats_the_caps(void **state) {
    (void)state;
    kiln_autobuf struct kiln_buf buf = KILN_BUF_INIT(FILE_BYTES_MAX);
    const char *readme = read_file("schemas/README.md", &buf);
    const char *table = strstr(readme, "| record | field | kind | least | most |\n");
    assert_non_null(table);
    table = strchr(strchr(table, '\n') + 1, '\n') + 1;
    for (size_t i = 0; i < kiln_caps_count; i++) {
        const struct kiln_cap *cap = &kiln_caps[i];
        char row[256];
        snprintf(row, sizeof row, "| %s | %s | %s | %" PRId64 " | %" PRId64 " |\n", record_name(cap->type), cap->path,
                 kiln_form_name(cap->form), cap->min, cap->max);
        if (strncmp(table, row, strlen(row)) != 0)
            fail_msg("schemas/README.md: expected the row %s", row);
        table += strlen(row);
    }
    assert_int_not_equal(*table, '|');
}

static void assert_refused(const char *json) {
    const struct kiln_schema_text text = {.type = KILN_RECORD_lease, .name = "lease", .json = json};
    struct kiln_schema schema = {0};
    struct kiln_err err = {0};
    if (kiln_schema_load(&text, &schema, &err) == 0)
        fail_msg("loads: %s", json);
    assert_int_equal(err.code, KILN_E_INTERNAL);
    assert_null(schema.avro);
}

#define RECORD(fields) "{\"type\": \"record\", \"name\": \"R\", \"fields\": [" fields "]}"

static void schemas_beyond_the_scan_are_refused(void **state) {
    (void)state;
    struct kiln_schema schema = {0};
    const struct kiln_schema_text good = {.type = KILN_RECORD_lease, .name = "lease",
                                          .json = RECORD("{\"name\": \"at_ms\", \"type\": \"long\"}")};
    assert_int_equal(kiln_schema_load(&good, &schema, NULL), 0);
    kiln_schema_release(&schema);
    assert_refused("nonsense");
    assert_refused("\"long\"");
    assert_refused(RECORD("{\"name\": \"uncapped\", \"type\": \"long\"}"));
    assert_refused(RECORD("{\"name\": \"at_ms\", \"type\": \"string\"}")); // a number's cap
    assert_refused(RECORD("{\"name\": \"at_ms\", \"type\": \"double\"}"));
    assert_refused(RECORD("{\"name\": \"at_ms\", \"type\": [\"null\", \"long\"]}"));
    assert_refused(RECORD("{\"name\": \"at_ms\", \"type\": {\"type\": \"map\", \"values\": \"long\"}}"));
    assert_refused(RECORD("{\"name\": \"at_ms\", \"type\": {\"type\": \"enum\", \"name\": \"E\", \"symbols\": [\"A\"]}}"));
    assert_refused(RECORD("{\"name\": \"again\", \"type\": \"R\"}"));
}

// The cap of another record's array, whose items cost no bytes.
static void items_without_bytes_are_refused(void **state) {
    (void)state;
    const struct kiln_schema_text text = {
        .type = KILN_RECORD_answer, .name = "answer",
        .json = RECORD("{\"name\": \"reasons\", \"type\": {\"type\": \"array\", \"items\": "
                       "{\"type\": \"record\", \"name\": \"Empty\", \"fields\": []}}}")};
    struct kiln_schema schema = {0};
    assert_int_equal(kiln_schema_load(&text, &schema, NULL), KILN_E_INTERNAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fingerprints_of_the_specification),
        cmocka_unit_test(ids_pin_what_the_header_and_the_files_say),
        cmocka_unit_test(every_file_has_an_id),
        cmocka_unit_test(embedded_schemas_load_and_fit_the_structs),
        cmocka_unit_test(every_cap_is_used),
        cmocka_unit_test(the_readme_repeats_the_caps),
        cmocka_unit_test(schemas_beyond_the_scan_are_refused),
        cmocka_unit_test(items_without_bytes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
