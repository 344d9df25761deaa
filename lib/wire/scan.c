#include "lib/wire/scan.h"

#include <inttypes.h>

struct scanner {
    const struct kiln_schema *schema;
    const unsigned char *data;
    size_t len, at;
    struct kiln_err *err;
};

static int malformed(const struct scanner *scanner, const struct kiln_node *node, const char *why) {
    return kiln_fail(scanner->err, KILN_E_CORRUPT, "%s: field '%s', byte %zu: %s", scanner->schema->text->name, node->name,
                     scanner->at, why);
}

static int check_cap(const struct scanner *scanner, const struct kiln_node *node, int64_t value) {
    if (value >= node->cap.min && value <= node->cap.max)
        return 0;
    return kiln_fail(scanner->err, KILN_E_LIMIT, "%s: field '%s': %s %" PRId64 " is not within %" PRId64 " and %" PRId64,
                     scanner->schema->text->name, node->cap.path, kiln_form_name(node->cap.form), value, node->cap.min,
                     node->cap.max);
}

// A zigzag varint of at most `bits` bits in its shortest form.
static int scan_number(struct scanner *scanner, const struct kiln_node *node, unsigned bits, int64_t *value) {
    uint64_t raw = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (scanner->at == scanner->len)
            return malformed(scanner, node, "the record ends in a number");
        unsigned char byte = scanner->data[scanner->at++];
        uint64_t part = byte & 0x7f;
        if (shift >= bits || (bits - shift < 7 && part >> (bits - shift)))
            return malformed(scanner, node, "a number too large for its type");
        raw |= part << shift;
        if (byte & 0x80)
            continue;
        if (byte == 0 && shift)
            return malformed(scanner, node, "a number longer than needed");
        *value = (int64_t)(raw >> 1 ^ -(raw & 1));
        return 0;
    }
}

// Borrows the bytes of a length-prefixed field.
static int scan_length(struct scanner *scanner, const struct kiln_node *node, const unsigned char **bytes, size_t *len) {
    int64_t value = 0;
    int rc = scan_number(scanner, node, 64, &value);
    if (rc == 0)
        rc = check_cap(scanner, node, value);
    if (rc)
        return rc;
    if ((uint64_t)value > scanner->len - scanner->at)
        return malformed(scanner, node, "longer than the record");
    *bytes = scanner->data + scanner->at;
    *len = (size_t)value;
    scanner->at += *len;
    return 0;
}

// Length of the UTF-8 sequence at the beginning of the bytes (RFC 3629, section 4); 0 when there is none, or NUL.
static size_t utf8_sequence(const unsigned char *b, size_t len) {
    if (b[0] < 0x80)
        return b[0] != 0;
    size_t need = b[0] >= 0xc2 && b[0] <= 0xdf ? 2 : (b[0] & 0xf0) == 0xe0 ? 3 : b[0] >= 0xf0 && b[0] <= 0xf4 ? 4 : 0;
    if (need == 0 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xf0 && b[1] < 0x90);
    bool surrogate = b[0] == 0xed && b[1] >= 0xa0;
    bool too_high = b[0] == 0xf4 && b[1] >= 0x90;
    return overlong || surrogate || too_high ? 0 : need;
}

static bool is_text(const unsigned char *bytes, size_t len) {
    for (size_t at = 0, step; at < len; at += step) {
        step = utf8_sequence(bytes + at, len - at);
        if (step == 0)
            return false;
    }
    return true;
}

static bool is_name(const unsigned char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        unsigned char c = bytes[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                     c == '_' || c == '-';
        if (!plain || (i == 0 && c == '.'))
            return false;
    }
    return true;
}

static int scan_string(struct scanner *scanner, const struct kiln_node *node) {
    const unsigned char *bytes = NULL;
    size_t len = 0;
    int rc = scan_length(scanner, node, &bytes, &len);
    if (rc)
        return rc;
    if (node->cap.form == KILN_FORM_NAME)
        return is_name(bytes, len) ? 0 : malformed(scanner, node, "not a name");
    return is_text(bytes, len) ? 0 : malformed(scanner, node, "not UTF-8, or with NUL");
}

static int scan_node(struct scanner *scanner, size_t index);

static int scan_array(struct scanner *scanner, size_t index) {
    const struct kiln_node *node = &scanner->schema->nodes[index], *item = node + 1;
    int64_t count = 0, end = 0;
    int rc = scan_number(scanner, node, 64, &count);
    if (rc == 0)
        rc = check_cap(scanner, node, count); // also refuses negative counts, the form with a byte size
    if (rc)
        return rc;
    if (count == 0)
        return 0;
    if ((uint64_t)count > (scanner->len - scanner->at) / item->least_bytes)
        return malformed(scanner, node, "more items than the record can hold");
    for (int64_t i = 0; i < count && rc == 0; i++)
        rc = scan_node(scanner, index + 1);
    if (rc == 0)
        rc = scan_number(scanner, node, 64, &end);
    if (rc == 0 && end != 0)
        rc = malformed(scanner, node, "a second block");
    return rc;
}

static int scan_record(struct scanner *scanner, size_t index) {
    const struct kiln_node *nodes = scanner->schema->nodes;
    int rc = 0;
    for (size_t child = index + 1; child < nodes[index].end && rc == 0; child = nodes[child].end)
        rc = scan_node(scanner, child);
    return rc;
}

static int scan_fixed(struct scanner *scanner, const struct kiln_node *node, size_t len) {
    if (len > scanner->len - scanner->at)
        return malformed(scanner, node, "longer than the record");
    if (node->kind == KILN_NODE_BOOLEAN && scanner->data[scanner->at] > 1)
        return malformed(scanner, node, "neither 0 nor 1");
    scanner->at += len;
    return 0;
}

static int scan_node(struct scanner *scanner, size_t index) {
    const struct kiln_node *node = &scanner->schema->nodes[index];
    const unsigned char *bytes;
    size_t len;
    int64_t value = 0;
    int rc;
    switch (node->kind) {
    case KILN_NODE_RECORD:
        return scan_record(scanner, index);
    case KILN_NODE_ARRAY:
        return scan_array(scanner, index);
    case KILN_NODE_FIXED:
        return scan_fixed(scanner, node, node->fixed_bytes);
    case KILN_NODE_BOOLEAN:
        return scan_fixed(scanner, node, 1);
    case KILN_NODE_INT:
    case KILN_NODE_LONG:
        rc = scan_number(scanner, node, node->kind == KILN_NODE_INT ? 32 : 64, &value);
        return rc ? rc : check_cap(scanner, node, value);
    case KILN_NODE_STRING:
        return scan_string(scanner, node);
    case KILN_NODE_BYTES:
        return scan_length(scanner, node, &bytes, &len);
    }
    return malformed(scanner, node, "a type without a rule");
}

int kiln_scan(const struct kiln_schema *schema, const void *body, size_t len, struct kiln_err *err) {
    struct scanner scanner = {.schema = schema, .data = body, .len = len, .err = err};
    int rc = scan_node(&scanner, 0);
    if (rc == 0 && scanner.at != len)
        rc = malformed(&scanner, &schema->nodes[0], "bytes behind the record");
    return rc;
}
