// One line per event on a descriptor: time, level, event name, key=value pairs (logfmt; or JSON by option).
// Only programs log; lib/ reports errors to its caller. Thread-safe: one write(2) per line.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum kiln_log_level { KILN_LOG_ERROR, KILN_LOG_WARN, KILN_LOG_INFO, KILN_LOG_DEBUG };

void kiln_log_init(int fd, const char *program, enum kiln_log_level level, bool json);
// fields: alternating "key", "value" strings, ended by NULL. Values are quoted and escaped; NULL values print as "".
void kiln_log(enum kiln_log_level level, const char *event, ...) __attribute__((sentinel));
bool kiln_log_enabled(enum kiln_log_level level);
int kiln_log_level_parse(const char *text, enum kiln_log_level *level); // 0 or KILN_E_INVAL
