#include "consumer/run/ending.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

void kiln_ending_set(struct kiln_run_report *report, enum kiln_run_end how, uint32_t value, const char *text) {
    if (report->end)
        return;
    report->end = how;
    report->value = value;
    report->text = strdup(text);
}

void kiln_ending_by_code(struct kiln_run_report *report, unsigned code) {
    if (code == 128 + SIGXFSZ)
        kiln_ending_set(report, KILN_END_SPACE, 0, "wrote a larger file than it may");
    else if (code > 128 && code < 128 + NSIG)
        kiln_ending_set(report, KILN_END_SIGNAL, code - 128, strsignal((int)code - 128));
    else
        kiln_ending_set(report, KILN_END_EXIT, code, "");
}

void kiln_ending_by_space(struct kiln_run_report *report, const int dirs[], size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct statvfs room;
        if (fstatvfs(dirs[i], &room) == 0 && (room.f_bavail == 0 || room.f_favail == 0))
            kiln_ending_set(report, KILN_END_SPACE, 0, room.f_bavail ? "made more files than it may" : "wrote more than it may");
    }
}

void kiln_ending_by_wall(struct kiln_run_report *report, uint64_t wall_ms) {
    char text[80];
    snprintf(text, sizeof text, "ran longer than %llu ms", (unsigned long long)wall_ms);
    kiln_ending_set(report, KILN_END_WALL, 0, text);
}

void kiln_ending_by_texts(struct kiln_run_report *report, struct kiln_capture texts[2]) {
    for (int i = 0; i < 2; i++) {
        struct kiln_err err;
        char text[120];
        if (kiln_capture_drain(&texts[i], &err))
            kiln_ending_set(report, KILN_END_BROKEN, 0, err.text);
        if (!texts[i].exceeded)
            continue;
        snprintf(text, sizeof text, "%s grew over %llu bytes", i ? "stderr" : "stdout", (unsigned long long)texts[i].max_bytes);
        kiln_ending_set(report, KILN_END_TEXT, 0, text);
    }
}
