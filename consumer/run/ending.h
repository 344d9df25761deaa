// How a job ended, as the report has it: the first cause counts, later ones are its consequences.
#pragma once

#include "consumer/run/capture.h"
#include "consumer/run/spec.h"

void kiln_ending_set(struct kiln_run_report *report, enum kiln_run_end how, uint32_t value, const char *text);
void kiln_ending_by_code(struct kiln_run_report *report, unsigned code); // an exit code, or 128 + signal
// After a job that failed: was it for want of room? Directories that it could write to.
void kiln_ending_by_space(struct kiln_run_report *report, const int dirs[], size_t count);
void kiln_ending_by_wall(struct kiln_run_report *report, uint64_t wall_ms);
// Takes what the job has written to stdout and stderr; a text that is too long, or cannot be kept, ends the job.
void kiln_ending_by_texts(struct kiln_run_report *report, struct kiln_capture texts[2]);
