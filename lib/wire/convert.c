#include "lib/wire/convert.h"

#include <stdlib.h>
#include <string.h>

static avro_schema_t follow(avro_schema_t schema) {
    return is_avro_link(schema) ? avro_schema_link_target(schema) : schema;
}

static bool shape_fits(const struct kiln_layout *layout, avro_schema_t schema) {
    switch (layout->shape) {
    case KILN_SHAPE_FIXED:
        return is_avro_fixed(schema) && (size_t)avro_schema_fixed_size(schema) == layout->size;
    case KILN_SHAPE_BOOL:
        return is_avro_boolean(schema);
    case KILN_SHAPE_I32:
    case KILN_SHAPE_U32:
        return is_avro_int32(schema);
    case KILN_SHAPE_U64:
        return is_avro_int64(schema);
    case KILN_SHAPE_TEXT:
        return is_avro_string(schema);
    case KILN_SHAPE_BYTES:
        return is_avro_bytes(schema);
    case KILN_SHAPE_ARRAY:
        return is_avro_array(schema);
    case KILN_SHAPE_RECORD:
        return is_avro_record(schema) && avro_schema_record_size(schema) == layout->fields_count;
    }
    return false;
}

int kiln_convert_check(const struct kiln_layout *layout, avro_schema_t schema) {
    schema = follow(schema);
    if (!shape_fits(layout, schema))
        return KILN_E_UNSUPPORTED;
    if (layout->shape == KILN_SHAPE_ARRAY) {
        bool counted = layout->item->shape == KILN_SHAPE_ARRAY || layout->item->shape == KILN_SHAPE_BYTES;
        // An item has no place for a count of its own.
        return counted ? KILN_E_UNSUPPORTED : kiln_convert_check(layout->item, avro_schema_array_items(schema));
    }
    for (size_t i = 0; i < layout->fields_count; i++) {
        if (strcmp(layout->fields[i].name, avro_schema_record_field_name(schema, (int)i)) != 0)
            return KILN_E_UNSUPPORTED;
        int rc = kiln_convert_check(layout->fields[i].layout, avro_schema_record_field_get_by_index(schema, (int)i));
        if (rc)
            return rc;
    }
    return 0;
}

static size_t count_of(const struct kiln_field *field, const void *record) {
    return field->count_offset ? *(const size_t *)((const char *)record + field->count_offset) : 0;
}

static int put(const struct kiln_layout *layout, const void *slot, size_t count, avro_value_t *value);

static int put_array(const struct kiln_layout *layout, const char *items, size_t count, avro_value_t *value) {
    for (size_t i = 0; i < count; i++) {
        avro_value_t item;
        if (avro_value_append(value, &item, NULL))
            return KILN_E_NOMEM;
        int rc = put(layout->item, items + i * layout->item->size, 0, &item);
        if (rc)
            return rc;
    }
    return 0;
}

static int put_record(const struct kiln_layout *layout, const char *record, avro_value_t *value) {
    for (size_t i = 0; i < layout->fields_count; i++) {
        const struct kiln_field *field = &layout->fields[i];
        avro_value_t child;
        if (avro_value_get_by_index(value, i, &child, NULL))
            return KILN_E_INTERNAL;
        int rc = put(field->layout, record + field->offset, count_of(field, record), &child);
        if (rc)
            return rc;
    }
    return 0;
}

// avro-c's setters take pointers without const and only read through them.
static void *borrow(const void *bytes) { return (void *)(uintptr_t)bytes; }

static int put_text(const char *text, avro_value_t *value) {
    if (!text)
        return KILN_E_INVAL;
    return avro_value_set_string_len(value, borrow(text), strlen(text) + 1) ? KILN_E_NOMEM : 0;
}

static int put(const struct kiln_layout *layout, const void *slot, size_t count, avro_value_t *value) {
    int failed = 0;
    switch (layout->shape) {
    case KILN_SHAPE_FIXED:
        failed = avro_value_set_fixed(value, borrow(slot), layout->size);
        break;
    case KILN_SHAPE_BOOL:
        failed = avro_value_set_boolean(value, *(const bool *)slot);
        break;
    case KILN_SHAPE_I32:
    case KILN_SHAPE_U32: // above INT32_MAX it becomes negative, which the caps refuse
        failed = avro_value_set_int(value, *(const int32_t *)slot);
        break;
    case KILN_SHAPE_U64:
        failed = avro_value_set_long(value, *(const int64_t *)slot);
        break;
    case KILN_SHAPE_TEXT:
        return put_text(*(char *const *)slot, value);
    case KILN_SHAPE_BYTES:
        failed = avro_value_set_bytes(value, count ? *(void *const *)slot : borrow(""), count);
        break;
    case KILN_SHAPE_ARRAY:
        return put_array(layout, *(char *const *)slot, count, value);
    case KILN_SHAPE_RECORD:
        return put_record(layout, slot, value);
    }
    return failed ? KILN_E_NOMEM : 0;
}

int kiln_convert_put(const struct kiln_layout *layout, const void *record, avro_value_t *value) {
    return put(layout, record, 0, value);
}

static int get(const struct kiln_layout *layout, avro_value_t *value, void *slot, size_t *count);

static int get_array(const struct kiln_layout *layout, avro_value_t *value, char **slot, size_t *count) {
    size_t items_count;
    if (avro_value_get_size(value, &items_count))
        return KILN_E_INTERNAL;
    if (items_count == 0)
        return 0;
    char *items = calloc(items_count, layout->item->size);
    if (!items)
        return KILN_E_NOMEM;
    *slot = items;
    *count = items_count; // zeroed items are released as well as filled ones
    for (size_t i = 0; i < items_count; i++) {
        avro_value_t item;
        if (avro_value_get_by_index(value, i, &item, NULL))
            return KILN_E_INTERNAL;
        int rc = get(layout->item, &item, items + i * layout->item->size, NULL);
        if (rc)
            return rc;
    }
    return 0;
}

static int get_record(const struct kiln_layout *layout, avro_value_t *value, char *record) {
    for (size_t i = 0; i < layout->fields_count; i++) {
        const struct kiln_field *field = &layout->fields[i];
        avro_value_t child;
        if (avro_value_get_by_index(value, i, &child, NULL))
            return KILN_E_INTERNAL;
        size_t *count = field->count_offset ? (size_t *)(record + field->count_offset) : NULL;
        int rc = get(field->layout, &child, record + field->offset, count);
        if (rc)
            return rc;
    }
    return 0;
}

static int get_fixed(const struct kiln_layout *layout, avro_value_t *value, void *slot) {
    const void *bytes;
    size_t len;
    if (avro_value_get_fixed(value, &bytes, &len) || len != layout->size)
        return KILN_E_INTERNAL;
    memcpy(slot, bytes, len);
    return 0;
}

static int get_boolean(avro_value_t *value, bool *slot) {
    int number;
    if (avro_value_get_boolean(value, &number))
        return KILN_E_INTERNAL;
    *slot = number != 0;
    return 0;
}

static int get_text(avro_value_t *value, char **slot) {
    const char *text;
    size_t size; // with the terminator
    if (avro_value_get_string(value, &text, &size) || size == 0)
        return KILN_E_INTERNAL;
    *slot = strndup(text, size - 1);
    return *slot ? 0 : KILN_E_NOMEM;
}

static int get_bytes(avro_value_t *value, unsigned char **slot, size_t *count) {
    const void *bytes;
    size_t len;
    if (avro_value_get_bytes(value, &bytes, &len))
        return KILN_E_INTERNAL;
    if (len == 0)
        return 0;
    *slot = malloc(len);
    if (!*slot)
        return KILN_E_NOMEM;
    memcpy(*slot, bytes, len);
    *count = len;
    return 0;
}

static int get(const struct kiln_layout *layout, avro_value_t *value, void *slot, size_t *count) {
    switch (layout->shape) {
    case KILN_SHAPE_FIXED:
        return get_fixed(layout, value, slot);
    case KILN_SHAPE_BOOL:
        return get_boolean(value, slot);
    case KILN_SHAPE_I32:
    case KILN_SHAPE_U32:
        return avro_value_get_int(value, (int32_t *)slot) ? KILN_E_INTERNAL : 0;
    case KILN_SHAPE_U64:
        return avro_value_get_long(value, (int64_t *)slot) ? KILN_E_INTERNAL : 0;
    case KILN_SHAPE_TEXT:
        return get_text(value, slot);
    case KILN_SHAPE_BYTES:
        return get_bytes(value, slot, count);
    case KILN_SHAPE_ARRAY:
        return get_array(layout, value, slot, count);
    case KILN_SHAPE_RECORD:
        return get_record(layout, value, slot);
    }
    return KILN_E_INTERNAL;
}

int kiln_convert_get(const struct kiln_layout *layout, avro_value_t *value, void *record) {
    return get(layout, value, record, NULL);
}
