#include "lib/wire/statement.h"

#include <string.h>

static const char header_magic[] = "kiln-sig-1", statement_magic[] = "kiln-statement-1"; // each with its NUL

#define TOPIC_BYTES_MAX 249u // Kafka's own limit
#define KEY_BYTES_MAX 256u
#define SIGNED_BYTES_MAX 1024u

struct header {
    const unsigned char *principal, *incarnation, *signature;
    size_t principal_len, signed_len; // signed_len: of the header, up to the signature
    uint64_t sequence, at_ms;
};

static bool is_name(const unsigned char *text, size_t len) {
    if (len == 0 || len >= KILN_PRINCIPAL_BYTES || *text == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        bool letter = (text[i] | 0x20) >= 'a' && (text[i] | 0x20) <= 'z', digit = text[i] >= '0' && text[i] <= '9';
        if (!letter && !digit && text[i] != '.' && text[i] != '_' && text[i] != '-')
            return false;
    }
    return true;
}

static int header_decode(const void *data, size_t len, struct header *header, struct kiln_err *err) {
    struct kiln_reader reader = KILN_READER_INIT(data, len);
    const unsigned char *magic = kiln_read_bytes(&reader, sizeof header_magic);
    if (!magic || memcmp(magic, header_magic, sizeof header_magic) != 0)
        return kiln_fail(err, KILN_E_DENIED, "signature: kiln-sig is not of this form");
    struct header found = {0};
    found.principal = kiln_read_field(&reader, KILN_PRINCIPAL_BYTES - 1, &found.principal_len);
    found.incarnation = kiln_read_bytes(&reader, sizeof(struct kiln_job_id));
    found.sequence = kiln_read_be64(&reader);
    found.at_ms = kiln_read_be64(&reader);
    found.signed_len = reader.at;
    found.signature = kiln_read_bytes(&reader, KILN_SIGNATURE_BYTES);
    if (!kiln_reader_done(&reader))
        return kiln_fail(err, KILN_E_DENIED, "signature: kiln-sig is not of this form");
    if (!is_name(found.principal, found.principal_len))
        return kiln_fail(err, KILN_E_DENIED, "signature: kiln-sig names no principal");
    *header = found;
    return 0;
}

static int encode_signed(const struct kiln_statement *statement, const void *header, size_t header_len,
                         struct kiln_buf *out, struct kiln_err *err) {
    size_t topic_len = strlen(statement->topic);
    if (topic_len == 0 || topic_len > TOPIC_BYTES_MAX || statement->key_len > KEY_BYTES_MAX)
        return kiln_fail(err, KILN_E_INVAL, "signature: topic or key is too long");
    struct kiln_digest value;
    kiln_digest_of(statement->value_len ? statement->value : "", statement->value_len, &value);
    kiln_buf_add(out, statement_magic, sizeof statement_magic);
    kiln_buf_add_field(out, statement->topic, topic_len);
    kiln_buf_add_be32(out, statement->partition);
    kiln_buf_add_field(out, statement->key_len ? statement->key : "", statement->key_len);
    kiln_buf_add(out, value.bytes, sizeof value.bytes);
    kiln_buf_add(out, header, header_len);
    return kiln_buf_check(out, "a statement", err);
}

int kiln_statement_sign(const struct kiln_statement *statement, const struct kiln_author *author,
                        const struct kiln_sign_key *key, struct kiln_buf *header, struct kiln_err *err) {
    size_t name_len = strlen(author->principal);
    if (!is_name((const unsigned char *)author->principal, name_len))
        return kiln_fail(err, KILN_E_INVAL, "signature: '%s' is no name of a principal", author->principal);
    kiln_autobuf struct kiln_buf head = KILN_BUF_INIT(KILN_STATEMENT_BYTES_MAX);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(SIGNED_BYTES_MAX);
    kiln_buf_add(&head, header_magic, sizeof header_magic);
    kiln_buf_add_field(&head, author->principal, name_len);
    kiln_buf_add(&head, author->incarnation.bytes, sizeof author->incarnation.bytes);
    kiln_buf_add_be64(&head, author->sequence);
    kiln_buf_add_be64(&head, author->at_ms);
    int rc = kiln_buf_check(&head, "kiln-sig", err);
    uint8_t signature[KILN_SIGNATURE_BYTES];
    if (rc == 0)
        rc = encode_signed(statement, head.data, head.len, &bytes, err);
    if (rc == 0)
        rc = kiln_sign(key, bytes.data, bytes.len, signature, err);
    if (rc)
        return rc;
    kiln_buf_add(&head, signature, sizeof signature);
    kiln_buf_add(header, head.data, head.len);
    return kiln_buf_check(header, "kiln-sig", err);
}

int kiln_statement_principal(const void *data, size_t len, char principal[KILN_PRINCIPAL_BYTES], struct kiln_err *err) {
    struct header header;
    int rc = header_decode(data, len, &header, err);
    if (rc)
        return rc;
    memcpy(principal, header.principal, header.principal_len);
    principal[header.principal_len] = 0;
    return 0;
}

static void fill_author(const struct header *header, const struct kiln_principal *principal, struct kiln_author *author) {
    *author = (struct kiln_author){.role = principal->role, .sequence = header->sequence, .at_ms = header->at_ms};
    memcpy(author->principal, principal->name, sizeof author->principal);
    memcpy(author->tenant, principal->tenant, sizeof author->tenant);
    memcpy(author->pool, principal->pool, sizeof author->pool);
    memcpy(author->incarnation.bytes, header->incarnation, sizeof author->incarnation.bytes);
}

int kiln_statement_check(const struct kiln_statement *statement, const void *data, size_t len,
                         const struct kiln_principal *principal, struct kiln_author *author, struct kiln_err *err) {
    struct header header;
    int rc = header_decode(data, len, &header, err);
    if (rc)
        return rc;
    if (strlen(principal->name) != header.principal_len ||
        memcmp(principal->name, header.principal, header.principal_len) != 0)
        return kiln_fail(err, KILN_E_DENIED, "signature: of another principal than %s", principal->name);
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(SIGNED_BYTES_MAX);
    if (encode_signed(statement, data, header.signed_len, &bytes, err))
        return kiln_fail(err, KILN_E_DENIED, "signature: the record has a topic or key that nobody signs");
    if (kiln_verify(principal->record_key, bytes.data, bytes.len, header.signature, NULL))
        return kiln_fail(err, KILN_E_DENIED, "signature: does not hold for this record and %s", principal->name);
    fill_author(&header, principal, author);
    return 0;
}
