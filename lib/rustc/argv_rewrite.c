#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"
#include "lib/rustc/argv.h"

struct rewrite {
    kiln_place_fn place;
    void *context;
    int (*emit)(void *context, const char *arg, struct kiln_err *err);
    struct kiln_err *err;
    bool dependency_dir_written;
};

static int write_path(struct rewrite *rewrite, const struct kiln_arg *arg) {
    if (arg->role == KILN_ARG_LIB_DIR && strcmp(arg->flag, "-Ldependency=") == 0) {
        if (rewrite->dependency_dir_written)
            return 0;
        rewrite->dependency_dir_written = true;
    }
    kiln_autofree char *place = rewrite->place(rewrite->context, arg);
    if (!place)
        return kiln_fail(rewrite->err, KILN_E_UNSUPPORTED, "%s%.200s has no place in the sandbox", arg->flag,
                         arg->path);
    if (arg->role == KILN_ARG_SOURCE && (place[0] == '-' || place[0] == '@' || !place[0]))
        return kiln_fail(rewrite->err, KILN_E_UNSUPPORTED, "%.200s would not be read as a source", place);
    char *text;
    bool named = arg->role == KILN_ARG_EXTERN;
    if (asprintf(&text, "%s%s%s%s", arg->flag, named ? arg->value : "", named ? "=" : "", place) < 0)
        return kiln_fail(rewrite->err, KILN_E_NOMEM, "rustc arguments");
    int rc = rewrite->emit(rewrite->context, text, rewrite->err);
    free(text);
    return rc;
}

static int write_pathless_extern(struct rewrite *rewrite, const struct kiln_arg *arg) {
    char *text;
    if (asprintf(&text, "%s%s", arg->flag, arg->value) < 0)
        return kiln_fail(rewrite->err, KILN_E_NOMEM, "rustc arguments");
    int rc = rewrite->emit(rewrite->context, text, rewrite->err);
    free(text);
    return rc;
}

int kiln_rustc_rewrite(const struct kiln_rustc_call *call, kiln_place_fn place, void *context,
                       int (*emit)(void *context, const char *arg, struct kiln_err *err), struct kiln_err *err) {
    struct rewrite rewrite = {.place = place, .context = context, .emit = emit, .err = err};
    if (call->kind != KILN_CALL_COMPILE)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "a call that is not cacheable has no canonical form");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < call->args_count; i++) {
        const struct kiln_arg *arg = &call->args[i];
        if (arg->role == KILN_ARG_PLAIN)
            rc = emit(context, arg->flag, err);
        else if (arg->role == KILN_ARG_EXTERN && !arg->path)
            rc = write_pathless_extern(&rewrite, arg);
        else if (arg->role != KILN_ARG_DROP)
            rc = write_path(&rewrite, arg);
    }
    return rc;
}
