// The head of an HTTP answer of an S3 server, line by line, and the times in it. Hostile bytes: a head that contradicts itself
// (two lengths, two versions, two locks) has a problem and must not be used. Thread: re-entrant.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/blob/s3_xml.h"

struct kiln_s3_answer {
    int status; // of the final answer: an interim one (100) is forgotten
    uint64_t size, retain_until_ms;
    bool has_size, delete_marker;
    char version[KILN_S3_VERSION_ID_MAX + 1], lock_mode[16], etag[80];
    size_t bytes;        // of the head so far
    const char *problem; // or NULL
};

// One line, with or without its CR LF.
void kiln_s3_answer_line(struct kiln_s3_answer *answer, const char *line, size_t len);

// "2026-11-25T04:00:00Z" (whole seconds, rounded up) and back; 0 when the text is no such time (a fraction is allowed and cut off).
#define KILN_S3_TIME_LEN 20
void kiln_s3_time_format(uint64_t wall_ms, char text[KILN_S3_TIME_LEN + 1]);
uint64_t kiln_s3_time_parse(const char *text);
