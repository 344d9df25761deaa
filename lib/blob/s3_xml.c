#include "lib/blob/s3_xml.h"

#include <errno.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"

#define DEPTH_MAX 8
#define NAME_MAX_BYTES 47
#define TEXT_MAX 16384u // a key of 4095 bytes, each percent-encoded, and some

// Elements are told apart by their path from the root: "ListVersionsResult/Version/Key".
struct scan {
    XML_Parser parser;
    char names[DEPTH_MAX][NAME_MAX_BYTES + 1];
    unsigned depth;
    struct kiln_buf text;
    const char *problem;
    void (*begin)(struct scan *scan);
    void (*end)(struct scan *scan, const char *text);
    void *into;
};

static void stop(struct scan *scan, const char *problem) {
    if (!scan->problem)
        scan->problem = problem;
    XML_StopParser(scan->parser, XML_FALSE);
}

static bool at(const struct scan *scan, unsigned depth, const char *last, const char *parent) {
    return scan->depth == depth && strcmp(scan->names[depth - 1], last) == 0 &&
           (depth < 2 || strcmp(scan->names[depth - 2], parent) == 0);
}

static void start_element(void *context, const char *name, const char **attributes) {
    struct scan *scan = context;
    (void)attributes;
    if (scan->problem)
        return;
    if (scan->depth == DEPTH_MAX) {
        stop(scan, "nested too deeply");
        return;
    }
    size_t len = strlen(name);
    if (len > NAME_MAX_BYTES) // none that we know is so long
        len = NAME_MAX_BYTES;
    memcpy(scan->names[scan->depth], name, len);
    scan->names[scan->depth++][len] = 0;
    kiln_buf_reset(&scan->text);
    if (scan->begin)
        scan->begin(scan);
}

static void end_element(void *context, const char *name) {
    struct scan *scan = context;
    (void)name;
    if (scan->problem)
        return;
    if (scan->text.failed)
        stop(scan, "a text is too long");
    else if (strlen(kiln_buf_text(&scan->text)) != scan->text.len)
        stop(scan, "a text holds a NUL");
    else
        scan->end(scan, kiln_buf_text(&scan->text));
    kiln_buf_reset(&scan->text);
    scan->depth--;
}

static void characters(void *context, const char *text, int len) {
    struct scan *scan = context;
    if (!scan->problem)
        kiln_buf_add(&scan->text, text, (size_t)len);
}

static void doctype(void *context, const char *name, const char *system, const char *public, int subset) {
    (void)name, (void)system, (void)public, (void)subset;
    stop(context, "it has a document type");
}

static int parse(struct scan *scan, const void *data, size_t len, struct kiln_err *err) {
    if (len > KILN_S3_XML_BYTES_MAX)
        return kiln_fail(err, KILN_E_LIMIT, "an answer in XML is larger than %u bytes", KILN_S3_XML_BYTES_MAX);
    scan->text = KILN_BUF_INIT(TEXT_MAX);
    scan->parser = XML_ParserCreate("UTF-8");
    if (!scan->parser)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to read XML");
    XML_SetUserData(scan->parser, scan);
    XML_SetElementHandler(scan->parser, start_element, end_element);
    XML_SetCharacterDataHandler(scan->parser, characters);
    XML_SetStartDoctypeDeclHandler(scan->parser, doctype);
    bool whole = XML_Parse(scan->parser, data, (int)len, XML_TRUE) == XML_STATUS_OK;
    const char *problem = scan->problem ? scan->problem : whole ? NULL : XML_ErrorString(XML_GetErrorCode(scan->parser));
    int rc = problem ? kiln_fail(err, KILN_E_CORRUPT, "the server's XML: %s", problem) : 0;
    XML_ParserFree(scan->parser);
    kiln_buf_release(&scan->text);
    return rc;
}

void kiln_s3_listing_release(struct kiln_s3_listing *listing) {
    for (size_t i = 0; i < listing->count; i++)
        free(listing->entries[i].key);
    free(listing->entries);
    free(listing->next_key);
    free(listing->next_version);
    *listing = (struct kiln_s3_listing){0};
}

struct listing_scan {
    struct kiln_s3_listing listing;
    struct kiln_s3_version current;
    bool sized, in_entry, rooted, whole, encoded;
};

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// In place; false when it is no encoding, or decodes to a NUL.
static bool decode_url(char *text) {
    char *to = text;
    for (char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from == '+' ? ' ' : *from;
            continue;
        }
        int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || (high | low) == 0)
            return false;
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = 0;
    return true;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *number) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > max)
        return false;
    *number = value;
    return true;
}

static bool set_text(char **slot, const char *text) {
    free(*slot);
    return (*slot = strdup(text)) != NULL;
}

static void begin_listing(struct scan *scan) {
    struct listing_scan *into = scan->into;
    if (scan->depth == 1) {
        into->rooted = strcmp(scan->names[0], "ListVersionsResult") == 0;
        if (!into->rooted)
            stop(scan, "it is no list of versions");
    }
    if (scan->depth != 2)
        return;
    bool marker = strcmp(scan->names[1], "DeleteMarker") == 0;
    into->in_entry = marker || strcmp(scan->names[1], "Version") == 0;
    into->sized = marker;
    if (into->in_entry)
        into->current.delete_marker = marker;
}

static void end_entry(struct scan *scan, struct listing_scan *into) {
    struct kiln_s3_listing *listing = &into->listing;
    into->in_entry = false;
    if (!into->current.key || !into->current.version[0] || !into->sized) {
        stop(scan, "a version lacks its key, id or size");
        return;
    }
    if (listing->count == KILN_S3_LIST_MAX) {
        stop(scan, "a page has too many entries");
        return;
    }
    if (listing->count % 64 == 0) {
        void *grown = reallocarray(listing->entries, listing->count + 64, sizeof *listing->entries);
        if (!grown) {
            stop(scan, "no memory");
            return;
        }
        listing->entries = grown;
    }
    listing->entries[listing->count++] = into->current;
    into->current = (struct kiln_s3_version){0};
}

static void end_of_entry_part(struct scan *scan, struct listing_scan *into, const char *name, const char *text) {
    if (strcmp(name, "Key") == 0 && !set_text(&into->current.key, text))
        stop(scan, "no memory");
    else if (strcmp(name, "VersionId") == 0 && strlen(text) > KILN_S3_VERSION_ID_MAX)
        stop(scan, "a version id is too long");
    else if (strcmp(name, "VersionId") == 0)
        memcpy(into->current.version, text, strlen(text) + 1);
    else if (strcmp(name, "Size") == 0 && !(into->sized = parse_number(text, INT64_MAX, &into->current.size)))
        stop(scan, "a size is no number");
}

static void end_of_head(struct scan *scan, struct listing_scan *into, const char *name, const char *text) {
    bool truncated = strcmp(text, "true") == 0;
    if (strcmp(name, "IsTruncated") == 0) {
        into->listing.truncated = truncated;
        into->whole = truncated || strcmp(text, "false") == 0;
    } else if (strcmp(name, "EncodingType") == 0) {
        into->encoded = strcmp(text, "url") == 0;
    } else if ((strcmp(name, "NextKeyMarker") == 0 && !set_text(&into->listing.next_key, text)) ||
               (strcmp(name, "NextVersionIdMarker") == 0 && !set_text(&into->listing.next_version, text))) {
        stop(scan, "no memory");
    }
}

static void end_listing(struct scan *scan, const char *text) {
    struct listing_scan *into = scan->into;
    if (scan->depth == 3 && into->in_entry)
        end_of_entry_part(scan, into, scan->names[2], text);
    else if (scan->depth == 2 && into->in_entry)
        end_entry(scan, into);
    else if (scan->depth == 2)
        end_of_head(scan, into, scan->names[1], text);
}

static bool decode_keys(struct kiln_s3_listing *listing) {
    for (size_t i = 0; i < listing->count; i++)
        if (!decode_url(listing->entries[i].key))
            return false;
    return !listing->next_key || decode_url(listing->next_key);
}

int kiln_s3_xml_listing(const void *data, size_t len, struct kiln_s3_listing *listing, struct kiln_err *err) {
    struct listing_scan into = {0};
    struct scan scan = {.begin = begin_listing, .end = end_listing, .into = &into};
    int rc = parse(&scan, data, len, err);
    if (!rc && !into.whole)
        rc = kiln_fail(err, KILN_E_CORRUPT, "the server's list does not say whether it is whole");
    if (!rc && into.listing.truncated && !(into.listing.next_key && *into.listing.next_key))
        rc = kiln_fail(err, KILN_E_CORRUPT, "the server's list does not say where it goes on");
    if (!rc && into.encoded && !decode_keys(&into.listing))
        rc = kiln_fail(err, KILN_E_CORRUPT, "a key in the server's list is not encoded as it says");
    free(into.current.key);
    if (rc) {
        kiln_s3_listing_release(&into.listing);
        return rc;
    }
    *listing = into.listing;
    return 0;
}

static void end_error(struct scan *scan, const char *text) {
    if (at(scan, 2, "Code", "Error") && strlen(text) < 64)
        memcpy(scan->into, text, strlen(text) + 1);
}

void kiln_s3_xml_error(const void *data, size_t len, char code[64]) {
    struct scan scan = {.end = end_error, .into = code};
    code[0] = 0;
    if (parse(&scan, data, len, NULL))
        code[0] = 0;
    for (char *c = code; *c; c++)
        if (*c <= 0x20 || *c >= 0x7f) // goes into messages
            *c = '?';
}

static void end_lock(struct scan *scan, const char *text) {
    struct kiln_s3_lock_rule *rule = scan->into;
    uint64_t number;
    if (at(scan, 2, "ObjectLockEnabled", "ObjectLockConfiguration"))
        rule->enabled = strcmp(text, "Enabled") == 0;
    else if (at(scan, 4, "Mode", "DefaultRetention"))
        rule->compliance = strcmp(text, "COMPLIANCE") == 0;
    else if (at(scan, 4, "Days", "DefaultRetention") && parse_number(text, 1000000, &number))
        rule->days = (uint32_t)number;
    else if (at(scan, 4, "Years", "DefaultRetention") && parse_number(text, 1000, &number))
        rule->days = (uint32_t)number * 365;
}

int kiln_s3_xml_lock(const void *data, size_t len, struct kiln_s3_lock_rule *rule, struct kiln_err *err) {
    struct kiln_s3_lock_rule found = {0};
    struct scan scan = {.end = end_lock, .into = &found};
    int rc = parse(&scan, data, len, err);
    if (!rc)
        *rule = found;
    return rc;
}

static void end_versioning(struct scan *scan, const char *text) {
    if (at(scan, 2, "Status", "VersioningConfiguration"))
        *(bool *)scan->into = strcmp(text, "Enabled") == 0;
}

int kiln_s3_xml_versioning(const void *data, size_t len, bool *enabled, struct kiln_err *err) {
    bool found = false;
    struct scan scan = {.end = end_versioning, .into = &found};
    int rc = parse(&scan, data, len, err);
    if (!rc)
        *enabled = found;
    return rc;
}
