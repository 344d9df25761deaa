#include "lib/blob/s3_versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/path.h"

#define PAGES_MAX 64u // of one key: a thousand versions each

int kiln_s3_check_version(const struct kiln_s3_exchange *exchange, const struct kiln_pin *pin, struct kiln_err *err) {
    if (!pin->text[0] || strcmp(pin->text, "null") == 0)
        return kiln_fail(err, KILN_E_CORRUPT, "version: no pin for %s", exchange->key);
    if (strcmp(exchange->version, pin->text) != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "version: asked for \"%s\" of %s, got \"%s\"", pin->text, exchange->key, exchange->version);
    return 0;
}

int kiln_s3_check_lock(const struct kiln_s3_exchange *exchange, uint64_t until_ms, struct kiln_err *err) {
    char wanted[KILN_S3_TIME_LEN + 1], found[KILN_S3_TIME_LEN + 1];
    uint64_t now_ms = kiln_clock_wall_ms();
    if (strcmp(exchange->lock_mode, "COMPLIANCE") != 0)
        return kiln_fail(err, KILN_E_CORRUPT, "lock: %s has the mode \"%s\"", exchange->key, exchange->lock_mode);
    if (until_ms < now_ms)
        until_ms = now_ms;
    if (exchange->retain_until_ms >= until_ms)
        return 0;
    kiln_s3_time_format(until_ms, wanted);
    kiln_s3_time_format(exchange->retain_until_ms, found);
    return kiln_fail(err, KILN_E_CORRUPT, "lock: %s is locked until %s, not %s", exchange->key, found, wanted);
}

void kiln_s3_ask_versions(struct kiln_s3_exchange *exchange, enum kiln_space space, const char *prefix) {
    kiln_s3_exchange_init(exchange, "GET", space, NULL);
    exchange->sink = KILN_S3_SINK_BYTES;
    exchange->max_bytes = KILN_S3_XML_BYTES_MAX;
    kiln_s3_add_query(exchange, "versions", "");
    kiln_s3_add_query(exchange, "prefix", prefix);
    kiln_s3_add_query(exchange, "encoding-type", "url");
    kiln_s3_add_query(exchange, "max-keys", "1000");
}

int kiln_s3_never_was(const struct kiln_s3_exchange *exchange, const char *key, bool *never, struct kiln_err *err) {
    kiln_autolisting struct kiln_s3_listing listing = {0};
    if (exchange->rc) {
        if (err)
            *err = exchange->err;
        return exchange->rc;
    }
    int rc = kiln_s3_xml_listing(exchange->bytes.data, exchange->bytes.len, &listing, err);
    bool found = false;
    for (size_t i = 0; !rc && i < listing.count; i++)
        found |= strcmp(listing.entries[i].key, key) == 0;
    if (!rc) // the key itself comes before all that it begins
        *never = !found && !(listing.truncated && listing.count == 0);
    return rc;
}

// One page of versions whose keys begin with `prefix`, after the markers.
static int list_page(struct kiln_s3_client *client, enum kiln_space space, const char *prefix, const char *key_marker,
                     const char *version_marker, struct kiln_s3_listing *listing, struct kiln_err *err) {
    struct kiln_s3_exchange exchange;
    kiln_s3_ask_versions(&exchange, space, prefix);
    if (key_marker)
        kiln_s3_add_query(&exchange, "key-marker", key_marker);
    if (version_marker && *version_marker)
        kiln_s3_add_query(&exchange, "version-id-marker", version_marker);
    int rc = kiln_s3_run_one(client, &exchange, err);
    if (rc == 0)
        rc = kiln_s3_xml_listing(exchange.bytes.data, exchange.bytes.len, listing, err);
    kiln_s3_exchange_release(&exchange);
    return rc ? kiln_wrap(err, rc, "listing %s", prefix) : 0;
}

// The page is newest first: a later entry pushes the newest one out.
static void add_older(struct kiln_s3_versions *versions, const struct kiln_s3_version *found) {
    versions->listed++;
    if (found->delete_marker)
        return;
    if (versions->count == KILN_POINTER_VERSIONS_MAX)
        versions->count--;
    memmove(&versions->items[1], &versions->items[0], versions->count * sizeof *versions->items);
    snprintf(versions->items[0].pin.text, sizeof versions->items[0].pin.text, "%s", found->version);
    versions->items[0].size = found->size;
    versions->count++;
}

int kiln_s3_versions_of(struct kiln_s3_client *client, enum kiln_space space, const char *key, struct kiln_s3_versions *versions,
                        struct kiln_err *err) {
    kiln_autolisting struct kiln_s3_listing listing = {0};
    struct kiln_s3_versions found = {0};
    bool more = true;
    for (unsigned page = 0; more; page++) {
        kiln_autofree char *key_marker = KILN_STEAL(listing.next_key), *version_marker = KILN_STEAL(listing.next_version);
        kiln_s3_listing_release(&listing);
        if (page == PAGES_MAX)
            return kiln_fail(err, KILN_E_LIMIT, "object %s has too many versions", key);
        int rc = list_page(client, space, key, key_marker, version_marker, &listing, err);
        if (rc)
            return rc;
        more = listing.truncated && strcmp(listing.next_key, key) == 0;
        for (size_t i = 0; i < listing.count; i++)
            if (strcmp(listing.entries[i].key, key) == 0)
                add_older(&found, &listing.entries[i]);
    }
    *versions = found;
    return 0;
}

static int delete_keys(struct kiln_s3_client *client, enum kiln_space space, const struct kiln_s3_listing *listing, const char *prefix,
                       struct kiln_err *err) {
    kiln_autofree struct kiln_s3_exchange *exchanges = calloc(listing->count + 1, sizeof *exchanges);
    kiln_autofree struct kiln_s3_exchange **queue = calloc(listing->count + 1, sizeof *queue);
    const char *last = NULL;
    size_t count = 0;
    if (!exchanges || !queue)
        return kiln_fail(err, KILN_E_NOMEM, "no memory to delete objects");
    for (size_t i = 0; i < listing->count; i++) {
        const char *key = listing->entries[i].key;
        if (!kiln_path_beneath(key, prefix) || (last && strcmp(last, key) == 0))
            continue;
        last = key;
        kiln_s3_exchange_init(&exchanges[count], "DELETE", space, key);
        queue[count] = &exchanges[count];
        count++;
    }
    kiln_s3_run(client, queue, count);
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        if (!rc && exchanges[i].rc && exchanges[i].rc != KILN_E_NOTFOUND) {
            rc = exchanges[i].rc;
            if (err)
                *err = exchanges[i].err;
        }
        kiln_s3_exchange_release(&exchanges[i]);
    }
    return rc;
}

int kiln_s3_delete_below(struct kiln_s3_client *client, enum kiln_space space, const char *prefix, struct kiln_err *err) {
    kiln_autolisting struct kiln_s3_listing listing = {0};
    bool more = true;
    for (unsigned page = 0; more; page++) {
        kiln_autofree char *key_marker = KILN_STEAL(listing.next_key), *version_marker = KILN_STEAL(listing.next_version);
        kiln_s3_listing_release(&listing);
        if (page == PAGES_MAX)
            return kiln_fail(err, KILN_E_LIMIT, "too many objects below %s", prefix);
        int rc = list_page(client, space, prefix, key_marker, version_marker, &listing, err);
        if (rc == 0)
            rc = delete_keys(client, space, &listing, prefix, err);
        if (rc)
            return rc;
        more = listing.truncated;
    }
    return 0;
}

int kiln_s3_judge_refused(struct kiln_s3_client *client, const struct kiln_s3_exchange *get, const struct kiln_pin *pin, struct kiln_err *err) {
    if (err->code != KILN_E_IO || get->status < 500)
        return err->code;
    struct kiln_s3_exchange head;
    kiln_s3_exchange_init(&head, "HEAD", get->space, get->key);
    head.once = true;
    if (pin)
        kiln_s3_add_query(&head, "versionId", pin->text);
    if (kiln_s3_run_one(client, &head, NULL) == 0) {
        kiln_wrap(err, KILN_E_CORRUPT, "unreadable: the store has it and cannot give it");
        err->retriable = false;
    }
    kiln_s3_exchange_release(&head);
    return err->code;
}
