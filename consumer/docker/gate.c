#include "consumer/docker/gate.h"

#include <stdlib.h>
#include <string.h>

#define NAMESPACES_MAX 16u
#define MOUNTS_MAX 2048u
#define TEXT_MAX 4096u

static const char order_magic[] = "kiln-gate-1"; // with its NUL

int kiln_gate_order_encode(const struct kiln_gate_order *order, struct kiln_buf *out, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf spec = KILN_BUF_INIT(KILN_RUN_SPEC_MAX);
    int rc = kiln_run_spec_encode(&order->spec, &spec, err);
    if (rc)
        return rc;
    kiln_buf_add(out, order_magic, sizeof order_magic);
    kiln_buf_add_be32(out, order->uid);
    kiln_buf_add_be32(out, order->gid);
    kiln_buf_add_be32(out, (uint32_t)order->namespaces_count);
    for (size_t i = 0; i < order->namespaces_count; i++) {
        kiln_buf_add_field_str(out, order->namespaces[i].name);
        kiln_buf_add_be64(out, order->namespaces[i].inode);
    }
    kiln_buf_add_be32(out, (uint32_t)order->mounts_count);
    for (size_t i = 0; i < order->mounts_count; i++) {
        kiln_buf_add_field_str(out, order->mounts[i].dest);
        kiln_buf_add_be64(out, order->mounts[i].device);
        kiln_buf_add_be64(out, order->mounts[i].inode);
    }
    kiln_buf_add_field(out, spec.data, spec.len);
    return kiln_buf_check(out, "order", err);
}

static void *read_list(struct kiln_reader *reader, size_t max, size_t element, size_t *count) {
    size_t announced = kiln_read_be32(reader);
    void *list = reader->failed || announced > max ? NULL : calloc(announced + 1, element);
    reader->failed |= !list;
    *count = list ? announced : 0;
    return list;
}

static void read_lists(struct kiln_reader *reader, struct kiln_gate_order *order) {
    order->namespaces = read_list(reader, NAMESPACES_MAX, sizeof *order->namespaces, &order->namespaces_count);
    for (size_t i = 0; i < order->namespaces_count; i++) {
        order->namespaces[i].name = kiln_read_field_text(reader, TEXT_MAX);
        order->namespaces[i].inode = kiln_read_be64(reader);
    }
    order->mounts = read_list(reader, MOUNTS_MAX, sizeof *order->mounts, &order->mounts_count);
    for (size_t i = 0; i < order->mounts_count; i++) {
        order->mounts[i].dest = kiln_read_field_text(reader, TEXT_MAX);
        order->mounts[i].device = kiln_read_be64(reader);
        order->mounts[i].inode = kiln_read_be64(reader);
    }
}

int kiln_gate_order_decode(const void *data, size_t len, struct kiln_gate_order *order, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    struct kiln_gate_order read = {0};
    const unsigned char *magic = kiln_read_bytes(&reader, sizeof order_magic);
    if (!magic || memcmp(magic, order_magic, sizeof order_magic))
        return kiln_fail(err, KILN_E_CORRUPT, "not an order of this version");
    read.uid = kiln_read_be32(&reader);
    read.gid = kiln_read_be32(&reader);
    read_lists(&reader, &read);
    size_t spec_len;
    const unsigned char *spec = kiln_read_field(&reader, KILN_RUN_SPEC_MAX, &spec_len);
    int rc = kiln_reader_done(&reader) ? 0 : kiln_fail(err, KILN_E_CORRUPT, "the order is malformed");
    if (rc == 0)
        rc = kiln_run_spec_decode(spec, spec_len, &read.spec, err);
    if (rc)
        kiln_gate_order_release(&read);
    else
        *order = read;
    return rc;
}

void kiln_gate_order_release(struct kiln_gate_order *order) {
    for (size_t i = 0; i < order->namespaces_count; i++)
        free(order->namespaces[i].name);
    for (size_t i = 0; i < order->mounts_count; i++)
        free(order->mounts[i].dest);
    free(order->namespaces);
    free(order->mounts);
    kiln_run_spec_release(&order->spec);
    *order = (struct kiln_gate_order){0};
}
