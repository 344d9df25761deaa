// The schemas of schemas/*.avsc, as compiled in, in two forms: avro-c's, and a flat list of nodes with their limits that
// the pre-scan walks. Made once per process; read-only afterwards.
#pragma once

#include <avro.h>
#include <stdbool.h>

#include "lib/wire/caps.h"

#define KILN_SCHEMA_NODES_MAX 48u
#define KILN_SCHEMA_DEPTH_MAX 8u

enum kiln_node_kind { KILN_NODE_RECORD, KILN_NODE_ARRAY, KILN_NODE_FIXED, KILN_NODE_BOOLEAN, KILN_NODE_INT, KILN_NODE_LONG,
                      KILN_NODE_STRING, KILN_NODE_BYTES };

struct kiln_node {
    enum kiln_node_kind kind;
    const char *name;      // of the field; the array's for its items
    struct kiln_cap cap;   // not of RECORD, FIXED, BOOLEAN
    uint16_t end;          // its children are the nodes from its own index + 1 up to here
    uint32_t fixed_bytes;  // FIXED
    uint32_t least_bytes;  // the shortest encoding
};

// Generated from schemas/ids and schemas/*.avsc.
struct kiln_schema_text {
    enum kiln_record_type type;
    const char *name;
    uint64_t fingerprint; // CRC-64-AVRO of the canonical form, as pinned
    const char *json;
};
extern const struct kiln_schema_text kiln_schema_texts[];
extern const size_t kiln_schema_texts_count;

struct kiln_schema {
    const struct kiln_schema_text *text;
    avro_schema_t avro;
    struct kiln_node nodes[KILN_SCHEMA_NODES_MAX]; // [0] is the record itself
    size_t nodes_count;
};

// Parses the schema and lays out its nodes. Refuses what the pre-scan does not know (unions, maps, recursion, ...) and
// fields without a cap. *schema must be zeroed.
int kiln_schema_load(const struct kiln_schema_text *text, struct kiln_schema *schema, struct kiln_err *err);
void kiln_schema_release(struct kiln_schema *schema);
