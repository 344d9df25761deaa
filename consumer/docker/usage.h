// What a container's processes have used, read from its control groups while they are there: outputs of the kernel, not of Docker.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kiln_usage {
    int memory, cpu; // directories; -1: not to be had
    bool v2;
    uint64_t peak_bytes, oom_kills, cpu_ms; // of the last take
};

#define KILN_USAGE_INIT ((struct kiln_usage){.memory = -1, .cpu = -1})

void kiln_usage_open(struct kiln_usage *usage, pid_t pid); // of a process of the container
void kiln_usage_take(struct kiln_usage *usage);
void kiln_usage_release(struct kiln_usage *usage);
