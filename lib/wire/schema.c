#include "lib/wire/schema.h"

#include <stdio.h>
#include <string.h>

struct loader {
    struct kiln_schema *schema;
    struct kiln_err *err;
    char path[128]; // of the current field, as in kiln_caps
};

static int refuse(const struct loader *loader, const char *why) {
    return kiln_fail(loader->err, KILN_E_INTERNAL, "schema %s: field '%s': %s", loader->schema->text->name,
                     loader->path, why);
}

static int add_node(struct loader *loader, avro_schema_t avro, const char *name, unsigned depth);

static int node_kind(avro_type_t type, enum kiln_node_kind *kind) {
    static const struct {
        avro_type_t type;
        enum kiln_node_kind kind;
    } kinds[] = {
        {AVRO_RECORD, KILN_NODE_RECORD},   {AVRO_ARRAY, KILN_NODE_ARRAY}, {AVRO_FIXED, KILN_NODE_FIXED},
        {AVRO_BOOLEAN, KILN_NODE_BOOLEAN}, {AVRO_INT32, KILN_NODE_INT},   {AVRO_INT64, KILN_NODE_LONG},
        {AVRO_STRING, KILN_NODE_STRING},   {AVRO_BYTES, KILN_NODE_BYTES},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].type == type) {
            *kind = kinds[i].kind;
            return 0;
        }
    }
    return KILN_E_UNSUPPORTED;
}

static bool form_fits(enum kiln_node_kind kind, enum kiln_form form) {
    switch (kind) {
    case KILN_NODE_ARRAY:
        return form == KILN_FORM_COUNT;
    case KILN_NODE_INT:
    case KILN_NODE_LONG:
        return form == KILN_FORM_NUMBER;
    case KILN_NODE_STRING:
        return form == KILN_FORM_TEXT || form == KILN_FORM_NAME;
    case KILN_NODE_BYTES:
        return form == KILN_FORM_BYTES;
    default:
        return false;
    }
}

static int add_cap(const struct loader *loader, struct kiln_node *node) {
    if (node->kind == KILN_NODE_RECORD || node->kind == KILN_NODE_FIXED || node->kind == KILN_NODE_BOOLEAN)
        return 0;
    const struct kiln_cap *cap = kiln_cap_find(loader->schema->text->type, loader->path);
    if (!cap || !form_fits(node->kind, cap->form))
        return refuse(loader, cap ? "the cap does not fit its type" : "no cap");
    node->cap = *cap;
    return 0;
}

static int add_fields(struct loader *loader, struct kiln_node *node, avro_schema_t avro, unsigned depth) {
    size_t prefix = strlen(loader->path);
    for (int i = 0; i < (int)avro_schema_record_size(avro); i++) {
        const char *name = avro_schema_record_field_name(avro, i);
        snprintf(loader->path + prefix, sizeof loader->path - prefix, "%s%s", prefix ? "." : "", name);
        size_t index = loader->schema->nodes_count;
        int rc = add_node(loader, avro_schema_record_field_get_by_index(avro, i), name, depth + 1);
        if (rc)
            return rc;
        node->least_bytes += loader->schema->nodes[index].least_bytes;
        loader->path[prefix] = 0;
    }
    return 0;
}

static int add_items(struct loader *loader, struct kiln_node *node, avro_schema_t avro, unsigned depth) {
    size_t prefix = strlen(loader->path);
    snprintf(loader->path + prefix, sizeof loader->path - prefix, "[]");
    size_t index = loader->schema->nodes_count;
    int rc = add_node(loader, avro_schema_array_items(avro), node->name, depth + 1);
    if (rc)
        return rc;
    if (loader->schema->nodes[index].least_bytes == 0)
        return refuse(loader, "items of no size"); // a count of them would cost memory and no bytes
    loader->path[prefix] = 0;
    node->least_bytes = 1;
    return 0;
}

static int add_node(struct loader *loader, avro_schema_t avro, const char *name, unsigned depth) {
    struct kiln_schema *schema = loader->schema;
    if (is_avro_link(avro))
        avro = avro_schema_link_target(avro);
    enum kiln_node_kind kind;
    if (depth > KILN_SCHEMA_DEPTH_MAX || schema->nodes_count == KILN_SCHEMA_NODES_MAX)
        return refuse(loader, "too deep or too large"); // also the end of a recursion
    if (node_kind(avro_typeof(avro), &kind))
        return refuse(loader, "a type that records do not use");
    struct kiln_node *node = &schema->nodes[schema->nodes_count++];
    *node = (struct kiln_node){.kind = kind, .name = name, .least_bytes = 1};
    int rc = add_cap(loader, node);
    if (rc == 0 && kind == KILN_NODE_RECORD) {
        node->least_bytes = 0;
        rc = add_fields(loader, node, avro, depth);
    } else if (rc == 0 && kind == KILN_NODE_ARRAY) {
        rc = add_items(loader, node, avro, depth);
    } else if (rc == 0 && kind == KILN_NODE_FIXED) {
        node->least_bytes = node->fixed_bytes = (uint32_t)avro_schema_fixed_size(avro);
    }
    node->end = (uint16_t)schema->nodes_count;
    return rc;
}

int kiln_schema_load(const struct kiln_schema_text *text, struct kiln_schema *schema, struct kiln_err *err) {
    schema->text = text;
    struct loader loader = {.schema = schema, .err = err};
    if (avro_schema_from_json_length(text->json, strlen(text->json), &schema->avro))
        return kiln_fail(err, KILN_E_INTERNAL, "schema %s is not an Avro schema", text->name);
    int rc = add_node(&loader, schema->avro, text->name, 0);
    if (rc == 0 && schema->nodes[0].kind != KILN_NODE_RECORD)
        rc = refuse(&loader, "not a record");
    if (rc)
        kiln_schema_release(schema);
    return rc;
}

void kiln_schema_release(struct kiln_schema *schema) {
    if (schema->avro)
        avro_schema_decref(schema->avro);
    *schema = (struct kiln_schema){0};
}
