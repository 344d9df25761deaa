// Any bytes as an observer's log give a report that keeps its promises: sorted, unique, at most 64 lines of plain ASCII,
// and one that says so when the log is not what an observer writes.
#include <stdlib.h>
#include <string.h>

#include "consumer/run/witness.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct kiln_witness_mount mounts[] = {{"/b/ws", 1}, {"/b/out", 0}};
static const char *const tools[] = {"/b/sysroot", "/usr"};
static const char *const withheld[] = {"/b/ws/a/.git"};
static const char *const names[] = {"A", "B"};
static const char *const path_values[] = {"B"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct kiln_witness_world world = {
        .mounts = mounts, .mounts_count = 2, .tool_prefixes = tools, .tool_prefixes_count = 2, .withheld = withheld,
        .withheld_count = 1, .out_dir = "/b/target", .tmp_dir = "/tmp", .observer_dir = "/b/obs", .cwd = "/b/ws",
        .env_names = names, .env_count = 2, .env_path_values = path_values, .env_path_count = 1};
    struct kiln_witness_report report;
    if (kiln_witness_read(data, size, &world, &report, NULL))
        abort();
    if (report.count > 64 || (report.count == 0 && report.events == 0))
        abort();
    for (size_t i = 0; i < report.count; i++) {
        if (i && strcmp(report.observations[i - 1], report.observations[i]) >= 0)
            abort();
        for (const char *at = report.observations[i]; *at; at++)
            if (*at < 0x20 || *at > 0x7e)
                abort();
    }
    kiln_witness_report_release(&report);
    return 0;
}
