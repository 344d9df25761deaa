#include "consumer/executor/host.h"

#include <string.h>

#include "consumer/run/client.h"
#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/proc.h"

#define TEXT_BYTES_MAX 65536u
#define PATIENCE_MS 10000
#define WEAK "weak "

// Its lines about what does not hold, as one text.
static int ask(const char *run_program, const char *const *arguments, struct kiln_buf *weak, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf out = KILN_BUF_INIT(TEXT_BYTES_MAX), errout = KILN_BUF_INIT(TEXT_BYTES_MAX);
    char *argv[KILN_RUN_ARGUMENTS_MAX + 3] = {(char *)"kiln-run", (char *)"--limits"}, *const envp[] = {NULL};
    for (size_t i = 0; arguments && arguments[i] && i < KILN_RUN_ARGUMENTS_MAX; i++)
        argv[2 + i] = (char *)arguments[i];
    const struct kiln_proc_options options = {.program = run_program, .argv = argv, .envp = envp, .cwd = "/"};
    int status;
    int rc = kiln_proc_run(&options, kiln_clock_ms() + PATIENCE_MS, &out, &errout, &status, err);
    if (rc)
        return rc;
    char *rest = (char *)kiln_buf_text(&out);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (!strncmp(line, WEAK, strlen(WEAK)))
            kiln_buf_addf(weak, "%s%s", weak->len ? "; " : "", line + strlen(WEAK));
    if (status && !weak->len)
        return kiln_fail(err, KILN_E_INTERNAL, "kiln-run cannot say which limits hold");
    return kiln_buf_check(weak, "limits of this host", err);
}

int kiln_executor_check_limits(const char *run_program, const char *const *arguments, bool weak_allowed, struct kiln_err *err) {
    kiln_autobuf struct kiln_buf weak = KILN_BUF_INIT(TEXT_BYTES_MAX);
    int rc = ask(run_program, arguments, &weak, err);
    if (rc && !weak_allowed)
        return rc;
    if (rc || weak.len)
        kiln_log(KILN_LOG_WARN, "limits_weak", "text", rc ? err->text : kiln_buf_text(&weak), NULL);
    if (weak.len && !weak_allowed)
        return kiln_fail(err, KILN_E_DENIED, "this host does not bound jobs as it should (executor.insecure_limits = true allows it): %s",
                         kiln_buf_text(&weak));
    return 0;
}
