#include "producer/agent/scope.h"

#include <string.h>

#include "lib/base/cleanup.h"

static bool is_public_library(struct kiln_l0 *l0, const struct kiln_digest *library) {
    kiln_autobuf struct kiln_buf value = KILN_BUF_INIT(16);
    return kiln_l0_memo_get(l0, KILN_MEMO_PUBLIC, library->bytes, sizeof library->bytes, &value, NULL) == 0;
}

bool kiln_scope_is_public(struct kiln_keeper *keeper, struct kiln_l0 *l0, const struct kiln_unit *unit) {
    const struct kiln_action *action = &unit->action;
    for (size_t i = 0; i < action->inputs_count; i++)
        if (action->inputs[i].form == KILN_INPUT_PACK &&
            !kiln_keeper_is_public(keeper, action->package, &action->inputs[i].tree))
            return false;
    for (size_t i = 0; i < unit->closure.count; i++)
        if (!is_public_library(l0, &unit->closure.libraries[i].digest))
            return false;
    return true;
}

void kiln_scope_remember_library(struct kiln_l0 *l0, const struct kiln_result *result, const struct kiln_digest *library) {
    if (!strcmp(result->scope, KILN_SCOPE_PUBLIC))
        kiln_l0_memo_put(l0, KILN_MEMO_PUBLIC, library->bytes, sizeof library->bytes, "1", 1, NULL);
}
