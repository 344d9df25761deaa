#include "verifier/vault_content.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

static int no_memory(struct kiln_err *err) { return kiln_fail(err, KILN_E_NOMEM, "no memory for content"); }

// What is wrong with an output is its sender's fault; that it cannot be read may pass.
static int blame(int rc, const struct kiln_output *output, struct kiln_err *err) {
    if (rc == KILN_E_NOTFOUND)
        return kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" was not uploaded", output->name);
    if (rc == KILN_E_LIMIT)
        return kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" grew", output->name);
    return rc;
}

// One object for each output.
static int take_one(const struct kiln_vault *vault, const char *scope, const struct kiln_output *output,
                    const char *quarantine_key, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("blob", scope, &output->digest);
    kiln_autofd int fd = -1;
    struct stat st;
    int rc = key ? kiln_store_open_unchecked(vault->store, KILN_SPACE_QUARANTINE, quarantine_key, &fd, err) : no_memory(err);
    if (!rc && fstat(fd, &st))
        rc = kiln_fail_errno(err, KILN_E_IO, "cannot stat output \"%s\"", output->name);
    if (!rc && (uint64_t)st.st_size != output->size)
        rc = kiln_fail(err, KILN_E_CORRUPT, "output \"%s\" has another size", output->name);
    if (!rc)
        rc = kiln_store_put_fd(vault->store, KILN_SPACE_VAULT, key, fd, output->size, &output->digest, err);
    return blame(rc, output, err);
}

static int set_pin(struct kiln_result *result, const struct kiln_pin *pin, struct kiln_err *err) {
    char *text = strdup(pin->text);
    if (!text)
        return no_memory(err);
    free(result->bundle_pin);
    result->bundle_pin = text;
    return 0;
}

static uint64_t content_until(const struct kiln_vault *vault, uint64_t now_ms) {
    return vault->content_ms ? now_ms + vault->content_ms : 0;
}

int kiln_vault_keep_bundle(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result, int bundle,
                           struct kiln_err *err) {
    struct kiln_pin pin = {{0}};
    kiln_autofree char *key = kiln_key_content("bundle", result->scope, &result->bundle);
    int rc = key ? kiln_store_keep_fd(vault->store, key, bundle, result->bundle_size, &result->bundle, content_until(vault, now_ms), &pin, err)
                 : no_memory(err);
    return rc ? rc : set_pin(result, &pin, err);
}

static bool is_library(const struct kiln_output *output) {
    static const char *const ends[] = {".rlib", ".rmeta", ".so"};
    size_t len = strlen(output->name);
    for (size_t i = 0; output->kind == KILN_OUTPUT_FILE && i < sizeof ends / sizeof *ends; i++) {
        size_t end_len = strlen(ends[i]);
        if (len > end_len && strcmp(output->name + len - end_len, ends[i]) == 0)
            return true;
    }
    return false;
}

struct offers {
    struct kiln_store_offer *list;
    size_t count;
};

static void release_offers(struct offers *offers) {
    for (size_t i = 0; i < offers->count; i++)
        free((char *)(uintptr_t)offers->list[i].key);
    free(offers->list);
}

int kiln_vault_share(const struct kiln_vault *vault, const struct kiln_result *result, const struct kiln_harvest *harvest,
                     struct kiln_err *err) {
    kiln_auto(release_offers) struct offers offers = {.list = calloc(result->outputs_count + 1, sizeof *offers.list)};
    if (!offers.list)
        return no_memory(err);
    for (size_t i = 0; i < result->outputs_count; i++) {
        const struct kiln_output *output = &result->outputs[i];
        int fd = is_library(output) ? kiln_harvest_find(harvest, &output->digest) : -1;
        if (fd < 0)
            continue;
        char *key = kiln_key_content("blob", result->scope, &output->digest);
        if (!key)
            return no_memory(err);
        offers.list[offers.count++] = (struct kiln_store_offer){.space = KILN_SPACE_INPUTS, .key = key, .fd = fd,
                                                                .max_bytes = output->size, .expected = &output->digest};
    }
    return offers.count ? kiln_store_put_many(vault->store, offers.list, offers.count, err) : 0;
}

static int take_bundle(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result, const struct kiln_harvest *harvest,
                       struct kiln_store_pair *pair, struct kiln_err *err) {
    if (!harvest || !harvest->members)
        return kiln_fail(err, KILN_E_INTERNAL, "outputs are to be kept that were not fetched");
    result->bundle = harvest->digest;
    result->bundle_size = harvest->size;
    pair->content_key = kiln_key_content("bundle", result->scope, &result->bundle);
    pair->pointer_key = kiln_key_result(result->scope, result->generation, &result->action);
    pair->content_size = result->bundle_size;
    pair->content_until_ms = content_until(vault, now_ms);
    pair->expected = &result->bundle;
    if (!pair->content_key || !pair->pointer_key)
        return no_memory(err);
    int rc = kiln_store_pair_content(vault->store, pair, harvest->bundle, err);
    return rc ? rc : set_pin(result, &pair->pin, err);
}

int kiln_vault_take(const struct kiln_vault *vault, uint64_t now_ms, struct kiln_result *result,
                    const struct kiln_vault_source *source, struct kiln_store_pair *pair, struct kiln_err *err) {
    int rc = 0;
    if (!result->outputs_count)
        return 0;
    if (kiln_store_wants_bundles(vault->store))
        return take_bundle(vault, now_ms, result, source->harvest, pair, err);
    for (size_t i = 0; !rc && i < result->outputs_count; i++)
        rc = take_one(vault, result->scope, &result->outputs[i], source->keys[i], err);
    return rc;
}

static int read_one(const struct kiln_vault *vault, const char *scope, const struct kiln_output *output,
                    struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("blob", scope, &output->digest);
    kiln_autofd int fd = -1;
    uint64_t size;
    int rc = key ? kiln_store_get_fd(vault->store, KILN_SPACE_VAULT, key, &output->digest, &fd, &size, err) : no_memory(err);
    if (rc == KILN_E_NOTFOUND || (!rc && size != output->size))
        rc = kiln_fail(err, KILN_E_CORRUPT, "content of \"%s\" is missing", output->name);
    return rc;
}

static int read_bundle(const struct kiln_vault *vault, const struct kiln_result *result, int *bundle, struct kiln_err *err) {
    kiln_autofree char *key = kiln_key_content("bundle", result->scope, &result->bundle);
    kiln_autofd int fd = -1;
    struct kiln_pin pin = {{0}};
    uint64_t size;
    if (!key)
        return no_memory(err);
    if (strlen(result->bundle_pin) >= sizeof pin.text)
        return kiln_fail(err, KILN_E_CORRUPT, "the pin of a bundle is too long");
    memcpy(pin.text, result->bundle_pin, strlen(result->bundle_pin));
    int rc = kiln_store_get_pinned(vault->store, key, &pin, &result->bundle, &fd, &size, err);
    if (rc == KILN_E_NOTFOUND || (!rc && size != result->bundle_size))
        rc = kiln_fail(err, KILN_E_CORRUPT, "the bundle of a result is missing");
    if (!rc)
        *bundle = kiln_steal_fd(&fd);
    return rc;
}

int kiln_vault_read(const struct kiln_vault *vault, const struct kiln_result *result, int *bundle, struct kiln_err *err) {
    static const struct kiln_digest none;
    if (!kiln_digest_equal(&result->bundle, &none))
        return read_bundle(vault, result, bundle, err);
    int rc = 0;
    for (size_t i = 0; !rc && i < result->outputs_count; i++)
        rc = read_one(vault, result->scope, &result->outputs[i], err);
    return rc;
}
